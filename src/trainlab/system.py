"""What the kernel lets this process use, and what it has used: its control group, version 1 or 2.

A container sees the whole machine in /proc; its own share is written in /sys/fs/cgroup.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import psutil

import trainlab
from trainlab import origin, paths, secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
FIRST = Path("/proc/1/cgroup")
UNLIMITED = 1 << 60  # bytes; version 1 writes a number near 2**63 for none


def memory_limit(root: Path = CGROUPS, own: Path = OWN) -> int | None:
    """Return the bytes of memory that this process's group and those above it allow, None for no limit."""
    files = {"memory": "memory.limit_in_bytes", "": "memory.max"}
    texts = [_read(folder / files[controller]) for folder, controller in _folders("memory", root, own)]
    limits = [int(text) for text in texts if text.isdigit()]
    return min((limit for limit in limits if limit < UNLIMITED), default=None)


def memory_used(root: Path = CGROUPS, own: Path = OWN) -> int | None:
    """Return the bytes that this process's group uses, less file cache that gives way; None if unknown."""
    names = {
        "memory": ("memory.usage_in_bytes", "total_inactive_file"),
        "": ("memory.current", "inactive_file"),
    }
    for folder, controller in _folders("memory", root, own):
        usage, cache = names[controller]
        if text := _read(folder / usage):
            return max(int(text) - int(_table(folder / "memory.stat").get(cache, 0)), 0)
    return None


def oom_kills(root: Path = CGROUPS, own: Path = OWN) -> int | None:
    """Return how many processes of this group the kernel has killed for memory so far; None if unknown."""
    names = {"memory": "memory.oom_control", "": "memory.events"}
    for folder, controller in _folders("memory", root, own):
        counts = _table(folder / names[controller])
        if "oom_kill" in counts:
            return int(counts["oom_kill"])
    return None


def cpu_limit(root: Path = CGROUPS, own: Path = OWN) -> float | None:
    """Return how many CPUs' time this process's group and those above it allow, None for no limit."""
    limits = []
    for folder, controller in _folders("cpu", root, own):
        if controller:
            words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
        else:
            words = _read(folder / "cpu.max").split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def cpu_seconds(root: Path = CGROUPS, own: Path = OWN) -> float | None:
    """Return the CPU time that this process's group has used so far, in seconds; None if unknown."""
    for folder, controller in _folders("cpuacct", root, own):
        if controller and (text := _read(folder / "cpuacct.usage")):
            return int(text) / 1e9
        if used := _table(folder / "cpu.stat").get("usage_usec"):
            return int(used) / 1e6
    return None


def disk_bytes(root: Path = CGROUPS, own: Path = OWN) -> tuple[int, int] | None:
    """Return the bytes that this process's group has read from and written to disks; None if unknown.

    Version 1 leaves out what is written later from memory, and many kernels there count nothing at all.
    """
    for folder, controller in _folders("blkio", root, own):
        if controller:  # lines of a device, a kind and a number; sums have no device
            text = _read(folder / "blkio.throttle.io_service_bytes_recursive")
            counts = re.findall(r"^\S+ (Read|Write) (\d+)$", text, re.MULTILINE)
        else:
            counts = re.findall(r"\b([rw])bytes=(\d+)", _read(folder / "io.stat"))
        if counts or (folder / "io.stat").exists():  # empty before the first byte
            read = sum(int(count) for kind, count in counts if kind in ("Read", "r"))
            return read, sum(int(count) for _, count in counts) - read
    return None


def in_container(root: Path = CGROUPS, own: Path = OWN, first: Path = FIRST) -> bool:
    """Say whether this process's group is a container's own, and no one else's: process 1 is in it too.

    On a machine without containers process 1 is in another group, or everything is in the topmost one.
    """
    text = _read(own)
    if not text or text != _read(first):
        return False
    groups = [line.split(":", 2)[1:] for line in text.splitlines()]
    nested = any("cpuacct" in names.split(",") and path != "/" for names, path in groups)
    # version 2 shows a container its group as the topmost one; only a machine's has no such file
    return nested or (root / "cgroup.events").exists()


def _table(path: Path) -> dict[str, str]:
    """Return a file of names and numbers, one pair a line."""
    return dict(line.split(maxsplit=1) for line in _read(path).splitlines() if " " in line)


def _folders(controller: str, root: Path, own: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folders of this process's group and of those above it, with the controller ('' in version 2).

    Inside a container the path in /proc may be the host's, and the mounted folder the group's own: what does
    not exist is left out.
    """
    for line in _read(own).splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        top = root / controller if names else root
        group = Path(path.lstrip("/"))
        for each in (group, *group.parents):
            if (top / each).is_dir() and ".." not in each.parts:
                yield top / each, controller if names else ""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


T = TypeVar("T")


class Processes:
    """This process and its children.

    Memory is the sum of their resident sets: what forked workers share counts for each of them.
    """

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._all = [self._own]

    def cpu_seconds(self) -> float | None:
        """Return the CPU time used so far, in seconds, with that of children which have ended."""
        self._look()
        return sum(sum(times[:4]) for times in self._each(psutil.Process.cpu_times))

    def memory_bytes(self) -> int | None:
        """Return the memory in use, in bytes: of the children seen when the others were asked last."""
        return sum(memory.rss for memory in self._each(psutil.Process.memory_info))

    def disk_bytes(self) -> tuple[int, int] | None:
        """Return the bytes read from and written to disks so far."""
        self._look()
        counts = self._each(psutil.Process.io_counters)
        return sum(each.read_bytes for each in counts), sum(each.write_bytes for each in counts)

    def _look(self) -> None:
        """Look for children; that costs a look at every process of the machine."""
        self._all = [self._own, *self._own.children(recursive=True)]

    def _each(self, read: Callable[[psutil.Process], T]) -> list[T]:
        """Return what each process tells; one that has ended meanwhile tells nothing."""
        found = []
        for each in self._all:
            with suppress(psutil.Error):
                found.append(read(each))
        return found


class Meter(NamedTuple):
    """What measures a training, so far: CPU seconds, bytes in use, bytes read from and written to disks."""

    cpu_seconds: Callable[[], float | None]
    memory_bytes: Callable[[], int | None]
    disk_bytes: Callable[[], tuple[int, int] | None]


def meter() -> Meter:
    """Return what measures this training: its container, or its processes where there is none.

    A container whose disks the kernel doesn't count has its processes' figures for them.
    """
    processes = Processes()
    if not in_container():
        return Meter(processes.cpu_seconds, processes.memory_bytes, processes.disk_bytes)
    return Meter(cpu_seconds, memory_used, disk_bytes if disk_bytes() is not None else processes.disk_bytes)


def cpus() -> float:
    """Return how many CPUs this process may use: those it may run on, and its group's limit."""
    allowed = float(len(os.sched_getaffinity(0)))
    return min(allowed, cpu_limit() or allowed)


GIB = 1 << 30


class Gpus:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves; none where there is no driver. Use it from one thread."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        with suppress(Exception):  # no driver, another one than the library's, no permission: no figures
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handles = list(visible_gpus(pynvml, os.environ.get("CUDA_VISIBLE_DEVICES")))

    def sample(self) -> dict[str, float]:
        """Return gpu_percent, gpu_memory_gib, gpu_watts and gpu_celsius as they are now.

        Of several GPUs: the mean of the percents, the sum of memory and watts, the hottest. They are whole
        GPUs' figures, whoever else uses them. What a GPU does not tell is left out.
        """
        nvml = self._nvml
        if nvml is None:
            return {}
        measures: dict[str, tuple[Callable[[list[float]], float], Callable[[Any], float]]] = {
            "gpu_percent": (fmean, lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
            "gpu_memory_gib": (sum, lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used / GIB),
            "gpu_watts": (sum, lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
            "gpu_celsius": (max, lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
        }
        values = {name: self._each(read) for name, (_, read) in measures.items()}
        return {name: float(measures[name][0](each)) for name, each in values.items() if each}

    def close(self) -> None:
        """Let the library go."""
        if self._nvml is not None:
            with suppress(Exception):
                self._nvml.nvmlShutdown()
        self._nvml = None

    def _each(self, read: Callable[[Any], float]) -> list[float]:
        found = []
        for handle in self._handles:
            with suppress(self._nvml.NVMLError):
                found.append(float(read(handle)))
        return found


@contextmanager
def nvml() -> Iterator[Any]:
    """Open NVIDIA's library and yield it; None where there is no driver that it knows."""
    opened = None
    with suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        opened = pynvml
    try:
        yield opened
    finally:
        if opened is not None:
            with suppress(Exception):
                opened.nvmlShutdown()


def visible_gpus(nvml: Any, setting: str | None) -> Iterator[Any]:
    """Yield the handles of the GPUs that CUDA shows: all of them, or those named up to the first unknown one.

    A number counts as NVML counts, by the bus; CUDA does so with CUDA_DEVICE_ORDER=PCI_BUS_ID, or where all
    GPUs are of one kind.
    """
    every = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if setting is None:
        yield from every
        return
    for name in setting.split(","):
        if name.strip().isdigit():
            found = every[int(name) :][:1]
        else:
            found = [each for each in every if name.strip() and gpu_uuid(nvml, each).startswith(name.strip())]
        if len(found) != 1:
            return
        yield found[0]


def gpu_uuid(nvml: Any, handle: Any) -> str:
    """Return what tells a GPU from all others, wherever it is plugged in."""
    given = nvml.nvmlDeviceGetUUID(handle)
    return given.decode() if isinstance(given, bytes) else given


PACKAGES = """
    torch lightning transformers tokenizers datasets accelerate tensorboard numpy pandas scikit-learn
    tensorflow keras jax flax tensorboardX
"""


def hardware() -> dict[str, Any]:
    """Return the CPU's model and usable cores, the memory in GiB, and the names of the GPUs."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    models = re.findall(r"^model name\s*:\s*(.*)", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / GIB, 1),
        "gpus": _gpus(),
    }


def packages() -> dict[str, str]:
    """Return the versions of Python and of those packages that decide a result and are installed."""
    versions = {"python": platform.python_version(), "trainlab": trainlab.__version__}
    for name in PACKAGES.split():
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def installed_since_start() -> dict[str, str]:
    """Return {name: version} of what was installed since this process began, as by `%pip install`."""
    began, found = psutil.Process().create_time(), {}
    for folder in sys.path:
        for path in Path(folder).glob("*.dist-info"):
            with suppress(OSError):  # replaced meanwhile
                if path.stat().st_mtime > began:
                    name, _, version = path.stem.rpartition("-")
                    found[name.replace("_", "-").lower()] = version
    return found


def git(code: Path) -> dict[str, Any] | None:
    """Return the commit of the repository that a file or folder is in, and whether files differ from it.

    None without git, a repository or a commit, and for what the repository ignores: a package that is
    installed in a project's .venv is not the project's code.
    """
    folder, name = (code, ".") if code.is_dir() else (code.parent, code.name)
    try:
        status = _git(folder, "status", "--porcelain=v2", "--branch")
        status.check_returncode()
        if _git(folder, "check-ignore", "--quiet", "--", name).returncode == 0:
            return None
    except (OSError, subprocess.SubprocessError):
        return None
    lines = status.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), "(initial)")
    if commit == "(initial)":
        return None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # Hooks export GIT_DIR and the like, which would point at another repository; a container's user need
    # not own the project's folder; a status must not take the lock from a commit that somebody is making.
    surroundings = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    surroundings |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_DISCOVERY_ACROSS_FILESYSTEM": "1"}  # mounted folders
    # No other repository of somebody else's: its settings could name commands to run.
    trusted = {paths.root().resolve(), origin.OURS.parents[1]}
    options = [word for place in trusted for word in ("-c", f"safe.directory={place}")]
    return subprocess.run(
        ["git", *options, "-c", "core.fsmonitor=false", "-C", folder, *words],
        env=surroundings,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=5,
        check=False,
    )


def command() -> str:
    """Return the command line of this process, with the values of options named like secrets hidden."""
    words = [*(sys.argv or [""])]
    for place, word in enumerate(words):
        option, equals, _ = word.partition("=")
        if not secrets.is_secret_name(option):
            continue
        if equals:
            words[place] = f"{option}={secrets.HIDDEN}"
        elif option.startswith("-") and place + 1 < len(words):
            words[place + 1] = secrets.HIDDEN
    return shlex.join(map(secrets.without_secrets, words))


def _gpus() -> list[str]:
    """Ask torch only where it has started CUDA already: starting it here would break programs that fork."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if not shutil.which("nvidia-smi"):
        return []
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]
