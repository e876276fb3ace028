"""The two containers, driven as a stranger would: a fresh clone, `docker compose up`, HTTP, a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest

from containers import GROUP, KEEPER, SERVER, USER, Stack, started
from project import CHECKOUT, status_of
from waiting import until

KERNEL, TERMINAL = "^[^ ]*python.*ipykernel_launcher", "^/bin/bash $"  # their command lines
THEME = "@jupyterlab/apputils-extension:themes"
KEEP_BUSY = """
from jupyter_client import BlockingKernelClient, find_connection_file
client = BlockingKernelClient()
client.load_connection_file(find_connection_file())
client.start_channels()
client.wait_for_ready(timeout=20)
client.execute("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\\nprint(1)\\nwhile True: pass")
while client.get_iopub_msg(timeout=20)["msg_type"] != "stream": pass
"""

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Stack]:
    """Start a fresh clone with no file prepared; its folder's name is the project's."""
    with started(tmp_path_factory.mktemp(f"stack{os.getpid()}-"), free_port) as clone:
        yield clone


def test_a_fresh_clone_starts_healthy_with_no_file_prepared(stack):
    assert not (stack.folder / ".env").exists()
    for service in ("jupyter", "tensorboard"):
        assert stack.state(service)["State"]["Health"]["Status"] == "healthy"
    assert status_of(stack.url("tensorboard", "/data/environment")) == 200


def test_the_address_in_the_logs_opens_jupyterlab(stack):
    assert status_of(stack.url("jupyter", f"/lab?token={stack.drawn_token()}")) == 200


@pytest.mark.parametrize("path", ["/api/contents", "/api/kernels", "/api/contents?token=wrong"])
def test_nothing_is_shown_without_the_token(stack, path):
    assert status_of(stack.url("jupyter", path)) == 403


def test_a_foreign_host_name_is_refused_even_with_the_token(stack):
    address = stack.url("jupyter", f"/api/contents?token={stack.drawn_token()}")
    port = stack.environment["JUPYTER_PORT"]
    assert status_of(address, Host="evil.example") == 403
    assert status_of(address, Host=f"evil.example:{port}") == 403
    assert status_of(address, Host=f"localhost:{port}") == 200


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("jupyter", "/workspace/README.md"),
        ("jupyter", "/workspace/.git/config"),
        ("jupyter", "/opt/venv/new"),
        ("jupyter", "/etc/new"),
        ("tensorboard", "/workspace/logs/new"),
        ("tensorboard", "/opt/venv/new"),
    ],
)
def test_what_must_not_change_is_mounted_read_only(stack, service, path):
    done = stack.inside(service, f"echo >>{path}", check=False)
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize("service", ["jupyter", "tensorboard"])
def test_processes_have_no_capabilities_and_gain_none(stack, service):
    status = dict(
        line.split(":\t")
        for line in stack.inside(service, "cat /proc/1/status").stdout.splitlines()
        if ":\t" in line
    )
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == [str(USER)] * 4


def test_files_written_inside_belong_to_the_caller(stack):
    for folder in ("logs", "data", "models", "notebooks", "src"):
        stack.inside("jupyter", f"touch /workspace/{folder}/written")
        written = stack.folder / folder / "written"
        assert (written.stat().st_uid, written.stat().st_gid) == (USER, GROUP)
        written.unlink()


def test_kernels_and_terminals_inherit_the_key_of_a_tracker_and_neither_token_nor_whom_to_tell(stack):
    token = stack.drawn_token()
    topic = "json://127.0.0.1:9/a-given-topic"
    stack.up(JUPYTER_TOKEN="a-given-token", WANDB_API_KEY="a-given-key", NOTIFY=topic)
    try:
        environments = kernel_and_terminal(stack, "a-given-token")
        assert "a-given-" not in stack.compose("logs", "jupyter").stdout
    finally:
        stack.up()
    for environment in environments:
        assert {"TRAINLAB_ROOT=/workspace", "WANDB_API_KEY=a-given-key"} <= set(environment)
        assert not any(line.startswith("MLFLOW_TRACKING_") for line in environment), "none was given"
        assert not any("a-given-token" in line or "a-given-topic" in line for line in environment)
    assert stack.drawn_token() != token, "a token is drawn anew at each start"


def kernel_and_terminal(stack: Stack, token: str) -> list[list[str]]:
    """Start a kernel and a terminal; return the environment of each one's process."""
    stack.jupyter("POST", "/api/kernels", token)
    stack.jupyter("POST", "/api/terminals", token)
    return [process_environment(stack, each) for each in (KERNEL, TERMINAL)]


def process_environment(stack: Stack, pattern: str) -> list[str]:
    """Return the environment of the process whose command line matches, as soon as there is one."""
    line = f"""for process in /proc/[0-9]*; do
        if tr '\\0' ' ' <$process/cmdline | grep -q '{pattern}'; then tr '\\0' '\\n' <$process/environ; fi
    done"""

    def lines() -> list[str]:
        return stack.inside("jupyter", line, check=False).stdout.splitlines()

    return until(lines, f"a process {pattern}", 20)


def test_git_the_command_and_an_editor_of_packages_work_in_a_terminal(stack):
    head = subprocess.check_output(
        ["git", "-c", "safe.directory=*", "-C", stack.folder, "rev-parse", "HEAD"], text=True
    )
    assert stack.inside("jupyter", "git rev-parse HEAD").stdout == head
    assert stack.inside("jupyter", "git status --porcelain -- Makefile src/trainlab/errors.py").stdout == ""
    assert "run" in stack.inside("jupyter", "trainlab --help").stdout


def test_settings_and_packages_of_the_user_survive_down_and_up(stack):
    dark = {"raw": json.dumps({"theme": "JupyterLab Dark"})}
    stack.jupyter("PUT", f"/lab/api/settings/{THEME}", stack.drawn_token(), dark)
    stack.inside(
        "jupyter",
        "mkdir /tmp/mine && cd /tmp/mine && echo 'answer = 42' >mine.py && "
        'printf \'[project]\\nname = "mine"\\nversion = "1"\\n[tool.setuptools]\\npy-modules = ["mine"]\\n\' '
        ">pyproject.toml && pip install --user --quiet --no-index --no-build-isolation .",
    )
    stack.compose("down")
    began = time.monotonic()
    stack.up()
    seconds = time.monotonic() - began
    answer = stack.jupyter("GET", f"/lab/api/settings/{THEME}", stack.drawn_token())
    assert answer["settings"] == {"theme": "JupyterLab Dark"}
    assert stack.inside("jupyter", "python -c 'import mine; print(mine.answer)'").stdout == "42\n"
    print(f"healthy after {seconds:.1f} s")  # asserted where nothing else runs: see benchmarks/


def test_monitoring_is_of_the_container_and_its_limits(stack):
    code = """
import json, time
from pathlib import Path
from trainlab import system as limits
from trainlab.run.monitor import Gauge

gauge = Gauge(Path("/workspace/logs"))
used = bytearray(b"1") * (300 << 20)
while time.process_time() < 1: pass
gauge.look()
print(json.dumps({"inside": limits.in_container(), **gauge.point()}))
"""
    told = json.loads(stack.inside("jupyter", f"python -c '{code}'").stdout)
    assert told["inside"]
    assert 0.3 < told["memory_gib"] < 4
    assert told["memory_percent"] == pytest.approx(100 * told["memory_gib"] / 8)  # mem_limit's default
    assert told["cpu_percent"] > 1
    assert told["disk_write_mib_s"] >= 0
    assert told["disk_free_gib"] > 0


def test_tensorboard_serves_the_curve_of_a_headless_run(stack):
    write_notebook(stack.folder / "notebooks/foreign.ipynb")
    done = stack.compose("exec", "-T", "jupyter", "trainlab", "run", "foreign", "steps=1500")
    [folder] = (stack.folder / "logs/foreign").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["config"]) == ("finished", {"steps": 1500}), done.stdout
    assert folder.stat().st_uid == USER
    assert record["git"]["commit"]
    name = f"foreign/{folder.name}"
    address = f"/data/plugin/scalars/scalars?tag=train/loss&run={name}"
    until(lambda: name in stack.tensorboard("/data/runs"), "TensorBoard lists the run", 30)
    points = until(lambda: len(points := stack.tensorboard(address)) == 1500 and points, "all its points", 30)
    assert [(step, value) for _, step, value in points[:3]] == [(0, 1.0), (1, 0.5), (2, 0.25)]
    printed = json.loads((folder / "notebook.ipynb").read_text())
    assert "token: none" in json.dumps(printed), "a headless kernel does not inherit the token either"


def write_notebook(path: Path) -> None:
    """Write a notebook as somebody else would: a cell of parameters, a plain loop."""
    cells = [
        nbformat.v4.new_code_cell("steps = 10", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            "import os, trainlab\n"
            "with trainlab.Run('foreign', {'steps': steps}) as run:\n"
            "    for step in range(steps):\n"
            "        run.log({'train/loss': 0.5 ** step}, step)\n"
            "print('token:', {'JUPYTER_TOKEN', 'NOTIFY'} & os.environ.keys() or 'none')"
        ),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    if os.geteuid() == 0:
        os.chown(path, USER, GROUP)


@pytest.mark.parametrize(("service", "path"), [("jupyter", "/api"), ("tensorboard", "/data/environment")])
def test_a_killed_server_comes_back_and_its_port_is_never_free(stack, service, path):
    before = stack.state(service)
    until(lambda: age(before) > 10, "the server is no more taken for one that cannot start", 15)
    for _ in range(2 if service == "tensorboard" else 1):
        until(lambda: status_of(stack.url(service, path)) == 200, "an answer", 60)
        stack.inside(service, f"{SERVER}; kill -KILL $server", check=False)
        with pytest.raises(OSError, match="in use"), socket.socket() as enemy:
            enemy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            enemy.bind(("127.0.0.1", int(stack.environment[f"{service.upper()}_PORT"])))
    until(lambda: status_of(stack.url(service, path)) == 200, "an answer", 60)
    assert stack.state(service)["RestartCount"] == before["RestartCount"], "the container went on"


def age(state: dict[str, Any]) -> float:
    """Return for how many seconds a container has been running."""
    started = datetime.fromisoformat(state["State"]["StartedAt"][:19] + "+00:00")
    return time.time() - started.timestamp()


@pytest.mark.parametrize("service", ["jupyter", "tensorboard"])
def test_what_keeps_a_server_going_comes_back_itself(stack, service):
    before = stack.state(service)
    stack.inside(service, f"{KEEPER}; kill -KILL $server", check=False)
    until(lambda: stack.state(service)["RestartCount"] == before["RestartCount"] + 1, "a restart", 20)
    until(lambda: stack.state(service)["State"]["Health"]["Status"] == "healthy", "healthy again", 60)


def test_a_server_goes_before_a_training_where_memory_runs_out(stack):
    scores = {
        service: stack.inside(service, f"{SERVER}; cat /proc/$server/oom_score_adj").stdout.strip()
        for service in ("jupyter", "tensorboard")
    }
    assert scores == {"jupyter": "600", "tensorboard": "500"}
    code = (
        "from trainlab.run import record; record.raise_oom_score(); "
        "print(open('/proc/self/oom_score_adj').read())"
    )
    assert stack.inside("jupyter", f'python -c "{code}"').stdout.strip() == "500"


@pytest.mark.parametrize("service", ["jupyter", "tensorboard"])
def test_a_server_may_open_as_many_files_as_the_engine_allows_at_most(stack, service):
    limit = stack.inside(service, f"{SERVER}; grep 'open files' /proc/$server/limits").stdout
    soft, hard = limit.split()[3:5]
    assert int(soft) == min(int(hard), 65536)


def test_a_body_of_3_gb_kills_nothing(stack):
    for service, path in (("tensorboard", "/data/runs"), ("jupyter", "/api/contents")):
        before = stack.state(service)["State"]
        port = int(stack.environment[f"{service.upper()}_PORT"])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as enemy:
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3000000000\r\n\r\n"
            enemy.sendall(head.encode())
            with contextlib.suppress(OSError):
                for _ in range(3000):
                    enemy.sendall(bytes(1_000_000))
        after = stack.state(service)["State"]
        assert (after["StartedAt"], after["OOMKilled"]) == (before["StartedAt"], False)


def test_tensorboard_refuses_a_foreign_host_name(stack):
    assert status_of(stack.url("tensorboard", "/data/runs"), Host="evil.example") == 403
    assert status_of(stack.url("tensorboard", "/data/runs"), Origin="http://evil.example") == 403


def test_a_kernel_that_does_not_listen_keeps_no_stop_beyond_its_grace_period(stack):
    stack.jupyter("POST", "/api/kernels", stack.drawn_token())
    process_environment(stack, KERNEL)
    stack.inside("jupyter", f"python -c '{KEEP_BUSY}'")
    began = time.monotonic()
    stack.compose("stop")
    seconds = time.monotonic() - began
    codes = [stack.state(service)["State"]["ExitCode"] for service in ("jupyter", "tensorboard")]
    stack.up()
    print(f"stopped after {seconds:.1f} s")
    assert set(codes) <= {0, 143}, "else the engine had to kill them"


@pytest.mark.parametrize("folder", ["logs", "data", "models", "notebooks"])
def test_an_unwritable_folder_is_reported_with_the_command_that_mends_it(stack, folder):
    (stack.folder / folder).chmod(0o555)
    start = ("run", "--rm", "--no-deps", "jupyter", "true")
    done = stack.compose(*start, check=False)
    assert done.returncode == 2
    mend = re.search(rf"sudo (chown -R \S+ {folder} && chmod -R \S+ {folder})", done.stderr)
    assert mend, done.stderr
    stack.run("bash", "-c", mend[1])
    assert stack.compose(*start).returncode == 0


def test_unreadable_logs_are_reported_by_tensorboard(stack):
    (stack.folder / "logs").chmod(0o000)
    try:
        done = stack.compose("run", "--rm", "--no-deps", "tensorboard", check=False)
    finally:
        (stack.folder / "logs").chmod(0o755)
    assert done.returncode == 2
    assert "chmod -R u+rwX logs" in done.stderr


def test_a_missing_folder_is_named_and_not_made_by_the_engine(stack):
    (stack.folder / "notebooks").rename(stack.folder / "elsewhere")
    try:
        done = stack.compose("run", "--rm", "--no-deps", "jupyter", "true", check=False)
        assert not (stack.folder / "notebooks").exists()
    finally:
        (stack.folder / "elsewhere").rename(stack.folder / "notebooks")
    assert done.returncode != 0
    assert f"{stack.folder}/notebooks" in done.stderr


def test_a_rebuild_after_a_change_in_the_code_installs_nothing(stack):
    tag = f"trainlab-jupyter:test-{os.getpid()}"
    override = stack.folder / "rebuild.yml"
    override.write_text(f"services: {{jupyter: {{image: '{tag}'}}}}\n")
    for wheel in (CHECKOUT / "jupyter/wheels").glob("*.whl"):  # part of what the build looks at
        shutil.copy2(wheel, stack.folder / "jupyter/wheels")
    build = ("--progress=plain", "-f", "docker-compose.yml", "-f", "rebuild.yml", "build", "jupyter")
    try:
        stack.compose(*build)
        with (stack.folder / "src/trainlab/__init__.py").open("a") as code:
            code.write("# changed\n")
        done = stack.compose(*build)
    finally:
        stack.run("docker", "image", "rm", "--force", tag, check=False)
    printed = done.stdout + done.stderr
    assert "COPY src src" in printed
    assert "Successfully installed" not in printed and "Collecting" not in printed
