"""`trainlab doctor`: looks at what a training needs and says what is wrong, and how to fix it.

It never imports torch: versions and builds are read from the packages' own files.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from packaging.version import Version

from trainlab import datasets, paths, system
from trainlab.cli import doctor_sweeps
from trainlab.cli.finding import Level, Line
from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 1 << 30
LITTLE_MEMORY = 4 * GIB  # torch, the default backbone and JupyterLab together take half of it
LITTLE_DISK, NO_DISK = 5 * GIB, GIB // 2
LITTLE_SHM = 256 << 20  # bytes; an engine's own default of 64 MiB breaks data loaders with workers
PATIENCE = 3.0  # seconds for each address
OLDEST_COMPOSE = "2.17"
OLDEST = {  # known holes below these
    "jupyter-server": "2.21",
    "jupyterlab": "4.6.2",
    "tensorboard": "2.21",
    "torch": "2.13",
}
# https://docs.nvidia.com/deploy/cuda-compatibility/: what each major version of CUDA needs
OLDEST_DRIVER = {"11": "450.80", "12": "525.60", "13": "580.65"}
HUB = "https://huggingface.co"
READ_ENV = "source stack/settings.sh && fail() { exit 2; } && in_file $1"  # there is one reader of .env

PODMAN_PROBLEM = 'cd "$0" && source stack/podman.sh && podman_problem'


def examine() -> Iterator[Line]:
    """Yield every finding, as it is made."""
    stack = paths.in_stack_container() or (paths.root() / "docker-compose.yml").is_file()
    if stack:
        yield engine()
    version, cuda = torch_build()
    if stack or version is not None:
        yield gpu(nvidia_gpus(), version, cuda)
    yield memory()
    yield processors()
    yield disk(shutil.disk_usage(paths.root()).free)
    yield shared_memory(Path("/dev/shm"))
    if stack:
        yield from ports()
    yield from permissions(stack)
    yield from unfinished_saves()
    if stack or util.find_spec("huggingface_hub"):
        yield hub()
    yield from versions(stack)
    if stack and _setting("HEAD_PASSWORD", ""):  # `make head` was here
        yield from doctor_sweeps.listening(_setting("HEAD_PORT", "5432"), "a database")
        yield from doctor_sweeps.listening(_setting("HEAD_STORE_PORT", "29400"), "a store of trainings")
    yield from doctor_sweeps.examine(paths.logs())


def engine() -> Line:
    """Look for the engine that runs the services."""
    if paths.in_stack_container():
        return Line("engine", "ok", "inside the container")
    if not shutil.which("docker"):
        return Line("engine", "ok", "no Docker here: the local engine")
    server = _output("docker", "info", "--format", "{{.ServerVersion}}")
    if not server and shutil.which("podman"):
        return podman(_output("bash", "-c", PODMAN_PROBLEM, str(paths.root())))
    if not server:
        fix = "sudo systemctl start docker; or ENGINE=local make up"
        return Line("engine", "warning", "Docker is installed and no engine answers", fix)
    compose = _output("docker", "compose", "version", "--short")
    if not compose or Version(compose.lstrip("v").partition("-")[0]) < Version(OLDEST_COMPOSE):
        fix = f"install the plugin docker-compose-plugin, {OLDEST_COMPOSE} or newer"
        return Line("engine", "error", f"Docker {server}, Compose {compose or 'missing'}", fix)
    return Line("engine", "ok", f"Docker {server}, Compose {compose}")


def podman(problem: str) -> Line:
    """Say what keeps Podman from running the services; `problem` is what stack/podman.sh found, or empty."""
    if problem:
        found, _, mend = problem.partition(": ")
        return Line("engine", "warning", f"no Docker engine answers; for ENGINE=podman {found}", mend)
    return Line("engine", "ok", "no Docker engine answers, and Podman does: ENGINE=podman make up")


def torch_build() -> tuple[str | None, str | None]:
    """Return torch's version and the CUDA version that it was built for (None for a CPU build)."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None, None
    found = util.find_spec("torch")
    text = Path(found.origin).with_name("version.py").read_text() if found and found.origin else ""
    cuda = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)", text, re.MULTILINE)
    return version, cuda[1] if cuda else None


def gpu(found: list[tuple[str, str]] | None, torch: str | None, cuda: str | None) -> Line:
    """Hold GPUs, (name, driver) each or None without a driver, against torch's build."""
    if torch is None:
        return Line("GPU", "error", "torch is not installed", "make build")
    built = f"torch {torch} for {f'CUDA {cuda}' if cuda else 'the CPU'}"
    if found is None:
        return Line("GPU", "ok", f"no NVIDIA GPU: the CPU computes; {built}")
    if not found:
        return Line("GPU", "warning", f"nvidia-smi finds no GPU; {built}", "nvidia-smi says why")
    name, driver = found[0]
    seen = f"{len(found)} {name}, driver {driver}; {built}"
    if cuda is None:
        return Line("GPU", "warning", f"{seen}: the GPU is not used", "GPU=1 make up")
    oldest = OLDEST_DRIVER.get(cuda.partition(".")[0], "0")
    if Version(driver) < Version(oldest):
        fix = f"install driver {oldest} or newer, or build with TORCH_INDEX of an older CUDA"
        return Line("GPU", "error", f"{seen}: the driver is too old", fix)
    return Line("GPU", "ok", seen)


def memory() -> Line:
    """Weigh the memory that this process may use: the container's limit where it is the smaller one."""
    machine = psutil.virtual_memory()
    limit = system.memory_limit()
    total, free = machine.total, machine.available
    if limit is not None and limit < total:
        total, free = limit, min(free, limit - (system.memory_used() or 0))
    found = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free" + (", a limit" if total == limit else "")
    little = free < LITTLE_MEMORY / 2 or total < LITTLE_MEMORY
    return Line("memory", _weighed(little), found, "raise JUPYTER_MEMORY in .env, or stop other kernels")


def processors() -> Line:
    """Count the CPUs that this process may use."""
    usable, limit = len(os.sched_getaffinity(0)), system.cpu_limit()
    limited = f", limited to {limit:g}" if limit is not None and limit < usable else ""
    return Line("CPUs", _weighed(limit and limit < 1), f"{usable}{limited}", "raise JUPYTER_CPUS in .env")


def disk(free: int) -> Line:
    """Weigh the free bytes of the project's disk."""
    fix = "docker builder prune; rm old runs in logs/"
    level: Level = "error" if free < NO_DISK else _weighed(free < LITTLE_DISK)
    return Line("disk", level, f"{free / GIB:.1f} GiB free", fix)


def shared_memory(folder: Path) -> Line:
    """Weigh what data loaders with workers pass batches through."""
    if not folder.is_dir():
        return Line("shared memory", "warning", f"no {folder}", "mount a tmpfs there")
    total = shutil.disk_usage(folder).total
    fix = "raise JUPYTER_SHM in .env; until then num_workers=0"
    return Line("shared memory", _weighed(total < LITTLE_SHM), f"{total / GIB:.2f} GiB", fix)


def ports() -> Iterator[Line]:
    """See whether the two ports are free, served by these services, or taken."""
    yield port("JUPYTER_PORT", "127.0.0.1", int(_setting("JUPYTER_PORT", "8888")), "/api", b"version")
    # as the services are told: in a container TensorBoard has another host and, maybe, another port
    at = os.environ.get("TENSORBOARD_AT") or f"127.0.0.1:{_setting('TENSORBOARD_PORT', '6006')}"
    host, _, number = at.rpartition(":")
    if number.isdecimal():
        yield port("TENSORBOARD_PORT", host, int(number), "/data/environment", b"data_location")
    else:
        yield Line("TensorBoard", "ok", "no port of its own: behind JupyterLab's login, at /tensorboard/")


def port(variable: str, host: str, number: int, path: str, expected: bytes) -> Line:
    """Ask a port for a page that only the right service has."""
    service = "JupyterLab" if variable.startswith("JUPYTER") else "TensorBoard"
    try:
        socket.create_connection((host, number), PATIENCE).close()
    except OSError:
        return Line(f"port {number}", "ok", f"free for {service}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        # both services refuse other names than this machine's own: "tensorboard" within a container, too
        question = urllib.request.Request(f"http://{host}:{number}{path}", headers={"Host": "localhost"})
        with direct.open(question, timeout=PATIENCE) as answer:
            ours = expected in answer.read(10_000)
    except (OSError, ValueError):
        ours = False
    if ours:
        return Line(f"port {number}", "ok", f"{service} answers")
    fix = f"choose another: {variable}={number + 1} in .env"
    return Line(f"port {number}", "warning", f"something else than {service} answers", fix)


def permissions(stack: bool = True) -> Iterator[Line]:
    """See whether this user may write where runs, data, models and notebooks are kept.

    Without the stack, in somebody's own project, folders are made when they are needed.
    """
    for folder in (paths.logs(), paths.data(), paths.models(), paths.notebooks()):
        if not folder.is_dir() and not stack:
            if folder == paths.logs():
                yield Line(folder.name, "ok", f"{folder} is made with the first run")
        elif not folder.is_dir():
            yield Line(folder.name, "error", f"{folder} is missing", f"mkdir -p {folder}")
        elif not os.access(folder, os.W_OK | os.X_OK):
            owned = f"sudo chown -R {os.getuid()}:{os.getgid()}"
            fix = f"on the host: {owned} {folder.name}" if stack else f"{owned} {folder}"
            yield Line(folder.name, "error", f"user {os.getuid()} can't write {folder}", fix)
        else:
            yield Line(folder.name, "ok", f"{folder} can be written")


def unfinished_saves() -> Iterator[Line]:
    """Find notebooks whose saving was killed: Jupyter's copy from before still lies beside them."""
    for before in sorted(paths.notebooks().rglob(".~*.ipynb")):
        from trainlab.headless import notebook

        path = before.with_name(before.name.removeprefix(".~"))
        try:
            notebook.read(path)
            fix = f"it is whole: rm {shlex.quote(str(before))}"
        except (UserError, OSError):
            fix = notebook.way_back(path) or f"look at both: {path}, {before}"
        yield Line(path.name, "warning", f"saving it was cut off; the copy from before is {before}", fix)


def hub(address: str = HUB) -> Line:
    """See whether models and data sets can be downloaded."""
    if datasets.offline():
        return Line("hub", "ok", "offline, as HF_HUB_OFFLINE says")
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        fix = "backbone=minilm and data=sample need no hub; HF_HUB_OFFLINE=1 saves the waiting"
        return Line("hub", "warning", f"{address} can't be reached ({getattr(error, 'reason', error)})", fix)
    return Line("hub", "ok", f"{address} answers")


def versions(stack: bool = True) -> Iterator[Line]:
    """Hold the versions that matter against the oldest that are safe; of a project only those that it has."""
    for package, oldest in OLDEST.items():
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            if stack:
                yield Line(package, "error", "not installed", "make build")
            continue
        fault: Level = "error" if stack else "warning"
        fix = "make build" if stack else f'pip install "{package}>={oldest}"'
        level = "ok" if Version(version) >= Version(oldest) else fault
        yield Line(package, level, version, f"at least {oldest}: {fix}")


def nvidia_gpus() -> list[tuple[str, str]] | None:
    """Return each GPU's name and driver, or None where there is no NVIDIA driver."""
    if not shutil.which("nvidia-smi"):
        return None
    text = _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    rows = (row.rpartition(",") for row in text.splitlines())
    return [(name.strip(), driver.strip()) for name, _, driver in rows]


def _setting(name: str, default: str) -> str:
    """Return a setting: the environment's, or the running local engine's, or .env's, or the default."""
    if value := os.environ.get(name):
        return value
    started = paths.root() / ".stack" / name.lower().replace("_", ".")
    if started.is_file():
        return started.read_text().strip()
    return _output("bash", "-c", f'cd "$0" && {READ_ENV}', str(paths.root()), name) or default


def _weighed(little: object) -> Level:
    return "warning" if little else "ok"


def _output(*command: str) -> str:
    """Return what a command prints, '' where it fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
