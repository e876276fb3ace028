"""What `make` chooses, writes, refuses and deletes, in front of engines that only seem to be there."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from project import CHECKOUT, Project, clean_environment, copy_checkout, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TARGETS = "help up down status logs shell run runs demo article bench build test lint clean"
ENGINE_INFO = {
    "ServerVersion": "26.1.5+dfsg1",
    "Runtimes": {"runc": {}, "io.containerd.runc.v2": {}},
    "MemTotal": 10 * 2**30,
    "NCPU": 3,
    "DockerRootDir": "/",
}
# notes each call; answers `info` and `compose version`; `compose port` answers while it is up
FAKE_DOCKER = """#!/bin/bash
echo "$*" >>"$FAKE/calls"
case "$*" in
  info*) cat "$FAKE/info"; [[ -s $FAKE/info ]] ;;
  "compose version"*) cat "$FAKE/compose" ;;
  "compose up"*) touch "$FAKE/up" ;;
  "compose down"*) rm -f "$FAKE/up" ;;
  "compose port"*) [[ -e $FAKE/up ]] && echo "127.0.0.1:$4" ;;
  "compose ps"*) [[ ! -e $FAKE/up ]] || echo healthy ;;
esac
"""


class Machine(Project):
    """A copy of the checkout on a machine whose docker, df and nvidia-smi are ours."""

    def __init__(self, folder: Path, ports: tuple[int, int]) -> None:
        self.tools = folder.parent / "tools"
        self.tools.mkdir()
        super().__init__(
            copy_checkout(folder),
            {
                "PATH": f"{self.tools}:{os.environ['PATH']}",
                "FAKE": str(self.tools),
                "JUPYTER_PORT": str(ports[0]),
                "TENSORBOARD_PORT": str(ports[1]),
            },
        )
        self.tool("docker", FAKE_DOCKER)
        self.tool("nvidia-smi", "#!/bin/bash\nexit 9\n")
        self.engine(ENGINE_INFO)
        (folder / f"jupyter/wheels/torch-{torch_version()}+cpu-any.whl").touch()  # nothing is fetched

    def tool(self, name: str, script: str) -> None:
        (self.tools / name).write_text(script)
        (self.tools / name).chmod(0o755)

    def engine(self, info: dict[str, object] | None, compose: str = "2.26.1-4") -> None:
        (self.tools / "info").write_text(json.dumps(info, separators=(",", ":")) if info else "")
        (self.tools / "compose").write_text(compose)

    def with_gpu(self) -> None:
        self.engine(ENGINE_INFO | {"Runtimes": {"runc": {}, "nvidia": {"path": "nvidia-container-runtime"}}})
        self.tool("nvidia-smi", "#!/bin/bash\necho 'GPU 0: NVIDIA H200'\n")

    def calls(self) -> str:
        return (self.tools / "calls").read_text()

    def built(self) -> int:
        return self.calls().splitlines().count("compose build")


def torch_version() -> str:
    found = re.search(r'"torch==([\d.]+)"', (CHECKOUT / "pyproject.toml").read_text())
    assert found
    return found[1]


@pytest.fixture
def machine(tmp_path: Path, free_port: Callable[[], int]) -> Machine:
    found = Machine(tmp_path / "project", (free_port(), free_port()))
    found.tool("df", "#!/bin/bash\nprintf 'Filesystem 1024-blocks Used Available\\nx 9 9 104857600\\n'\n")
    return found


def test_make_alone_explains_every_target(machine: Machine) -> None:
    said = machine.make().stdout
    for target in TARGETS.split():
        assert re.search(rf"^ +make {target} +\w", said, re.M), target


def test_an_unknown_benchmark_is_refused_before_anything_is_installed(machine: Machine) -> None:
    done = machine.make("bench", check=False, ARGS="growth nonsense")
    assert done.returncode == 2
    assert "benchmarks/ has no 'nonsense'; there are: command_line growth" in done.stdout
    assert not (machine.folder / ".venv").exists()


def first_line(machine: Machine, **changes: str) -> str:
    return machine.make("status", **changes).stdout.splitlines()[0]


def test_docker_is_chosen_where_an_engine_answers(machine: Machine) -> None:
    assert first_line(machine) == "Docker 26.1, no NVIDIA runtime: CPU"
    assert first_line(machine, ENGINE="local") == "ENGINE=local: local, CPU"


def test_the_gpu_is_chosen_where_the_engine_can_hand_it_out(machine: Machine) -> None:
    machine.with_gpu()
    assert first_line(machine) == "Docker 26.1, NVIDIA runtime: GPU"
    assert first_line(machine, GPU="0") == "Docker 26.1, NVIDIA runtime, GPU=0: CPU"
    assert first_line(machine, ENGINE="local") == "ENGINE=local: local, GPU"
    machine.tool("nvidia-smi", "#!/bin/bash\nexit 9\n")
    assert first_line(machine) == "Docker 26.1, NVIDIA runtime but no GPU in sight: CPU"
    assert first_line(machine, GPU="1") == "Docker 26.1, NVIDIA runtime, GPU=1: GPU"


def test_without_an_engine_the_local_one_is_chosen_and_the_reason_given(machine: Machine) -> None:
    machine.engine(None)
    assert first_line(machine) == "no Docker engine answers: local, CPU"
    machine.engine(ENGINE_INFO, compose="2.9.0")
    assert first_line(machine) == "Compose 2.9.0 is older than 2.17: local, CPU"


@pytest.mark.parametrize(
    ("info", "compose", "words"),
    [
        (None, "2.26.1", "no Docker engine answers"),
        (ENGINE_INFO, "v2.9.0", "Compose 2.9.0 is older than 2.17"),
    ],
)
def test_docker_by_order_without_a_fit_engine_is_refused_before_anything_is_made(
    machine: Machine, info: dict[str, object] | None, compose: str, words: str
) -> None:
    machine.engine(info, compose)
    done = machine.make("up", check=False, ENGINE="docker")
    assert done.returncode == 2
    assert words in done.stdout
    assert "ENGINE=local" in done.stdout
    assert not machine.built()
    assert not (machine.folder / ".env").exists()


@pytest.mark.parametrize(("name", "value"), [("ENGINE", "podman"), ("GPU", "yes")])
def test_an_unknown_override_is_refused_with_what_is_allowed(machine: Machine, name: str, value: str) -> None:
    done = machine.make("up", f"{name}={value}", check=False)
    assert done.returncode == 2
    assert f"{name}={value}" in done.stdout
    assert "allowed" in done.stdout


def test_up_builds_what_is_missing_once_and_prints_the_addresses(machine: Machine) -> None:
    said = machine.make("up").stdout
    assert f"{machine.jupyter}/lab?token={machine.token}" in said
    assert machine.tensorboard in said
    machine.make("up")
    assert machine.built() == 1
    with (machine.folder / "jupyter/requirements.lock").open("a") as lock:
        lock.write("# another version\n")
    machine.make("up")
    assert machine.built() == 2


def test_another_choice_of_trackers_is_built_anew(machine: Machine) -> None:
    machine.make("up")
    with (machine.folder / ".env").open("a") as settings:
        settings.write("TRACKERS=mlflow\n")
    machine.make("up")
    machine.make("up")
    assert machine.built() == 2


@pytest.mark.parametrize("value", ["nonsense", "wandb,nonsense", "../requirements", "*"])
@pytest.mark.parametrize("engine", ["docker", "local"])
def test_an_unknown_tracker_is_refused_with_those_that_there_are(
    machine: Machine, engine: str, value: str
) -> None:
    done = machine.make("up", check=False, ENGINE=engine, TRACKERS=value)
    assert done.returncode == 2
    assert f"TRACKERS={value}" in done.stdout
    assert "none of mlflow wandb" in done.stdout
    assert not machine.built()
    assert not (machine.folder / ".venv").exists()


def test_without_docker_each_chosen_tracker_is_installed_once(machine: Machine) -> None:
    calls = machine.tools / "pip"
    pip = machine.folder / ".venv/bin/pip"
    pip.parent.mkdir(parents=True)
    pip.write_text(f'#!/bin/bash\necho "$*" >>{calls}\n')
    pip.chmod(0o755)
    for chosen in ("wandb", "wandb, mlflow", "mlflow wandb"):
        machine.make("build", ENGINE="local", GPU="0", TRACKERS=chosen)
        installed = re.findall(r"-r jupyter/trackers/(\w+).lock", calls.read_text())
        assert installed == (["wandb"] if chosen == "wandb" else ["wandb", "mlflow"])


def test_env_is_written_once_with_a_token_of_its_own_and_closed_to_others(machine: Machine) -> None:
    machine.make("up")
    path = machine.folder / ".env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-f]{32,}", machine.token)
    assert machine.settings["JUPYTER_MEMORY"] == "8192m"
    assert machine.settings["JUPYTER_CPUS"] == "3"
    assert machine.settings["COMPOSE_FILE"] == "docker-compose.yml"
    assert int(machine.settings["TRAINLAB_UID"]) > 0
    before = path.read_bytes()
    machine.make("up")
    assert path.read_bytes() == before


def test_of_an_env_that_exists_only_the_compose_files_change(machine: Machine) -> None:
    path = machine.folder / ".env"
    path.write_text("# mine\nCOMPOSE_FILE=docker-compose.yml:mine.yml\nJUPYTER_TOKEN='abc' # short\n\nODD=1")
    path.chmod(0o640)
    machine.with_gpu()
    machine.make("up")
    files = "COMPOSE_FILE=docker-compose.yml:mine.yml:docker-compose.gpu.yml"
    assert path.read_text() == f"# mine\n{files}\nJUPYTER_TOKEN='abc' # short\n\nODD=1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    machine.make("up", GPU="0")
    assert "COMPOSE_FILE=docker-compose.yml:mine.yml\n" in path.read_text()
    assert "token=abc\n" in machine.make("status").stdout


def test_a_nearly_full_disk_is_reported_before_anything_is_built(machine: Machine) -> None:
    machine.tool("df", "#!/bin/bash\nprintf 'Filesystem 1024-blocks Used Available\\nx 9 9 1048576\\n'\n")
    done = machine.make("up", check=False)
    assert done.returncode == 2
    assert re.search(r"about \d+ GiB in /, and 1 GiB are free", done.stdout)
    assert not machine.built()


@pytest.mark.parametrize("value", ["abc", "0", "65536", "-1", "88 88"])
def test_a_port_that_is_none_is_refused(machine: Machine, value: str) -> None:
    done = machine.make("up", check=False, JUPYTER_PORT=value)
    assert done.returncode == 2
    assert f"JUPYTER_PORT={value} is not a port" in done.stdout
    assert not machine.built()


def test_one_port_for_both_services_is_refused(machine: Machine) -> None:
    done = machine.make("up", check=False, TENSORBOARD_PORT=machine.environment["JUPYTER_PORT"])
    assert "each service needs its own port" in done.stdout


def test_a_taken_port_is_named_before_anything_is_built(machine: Machine) -> None:
    port = machine.environment["JUPYTER_PORT"]
    with socket.create_server(("127.0.0.1", int(port))):
        done = machine.make("up", check=False)
    assert done.returncode == 2
    assert f"port {port}" in done.stdout
    assert re.search(r"JUPYTER_PORT=\d+ make up", done.stdout)
    assert "compose up" not in machine.calls()
    assert not machine.built()


def test_a_missing_folder_is_reported_with_the_command_that_mends_it(machine: Machine) -> None:
    shutil.rmtree(machine.folder / "logs")
    done = machine.make("up", check=False)
    assert done.returncode == 2
    assert "mkdir logs" in done.stdout


def test_run_needs_a_notebook_and_starts_the_stack_first(machine: Machine) -> None:
    assert "which notebook" in machine.make("run", check=False).stdout
    machine.make("run", "ARGS=news title='two words'")
    calls = machine.calls().splitlines()
    (run,) = (call for call in calls if call.endswith("trainlab run news title=two words"))
    assert calls.index(run) > calls.index("compose up --detach --wait")


def users_files(machine: Machine) -> list[Path]:
    run = machine.folder / "logs/news/20260101-000000/run.json"
    data = machine.folder / "data/mind-small/news.tsv"
    for path in (run, data):
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    machine.make("up")
    return [run, data, machine.folder / ".env"]


def test_clean_deletes_nothing_where_nobody_can_be_asked(machine: Machine) -> None:
    files = users_files(machine)
    machine.make("clean")
    assert all(path.exists() for path in files)
    assert (machine.folder / ".stack").exists()
    assert "image rm" not in machine.calls()


def test_clean_keeps_what_is_the_users_when_told_no(machine: Machine) -> None:
    files = users_files(machine)
    said = in_a_terminal(machine, "make clean", typed="y\nn\n")
    assert "logs/news" in said
    assert all(path.exists() for path in files)
    assert not (machine.folder / ".stack").exists()


def test_clean_deletes_all_but_what_git_brought_when_told_yes(machine: Machine) -> None:
    files = users_files(machine)
    machine.make("clean", YES="1")
    assert not any(path.exists() for path in files)
    assert (machine.folder / "data/sample/news.tsv").exists()
    assert (machine.folder / "logs/.gitignore").exists()
    assert "image rm" in machine.calls()


def in_a_terminal(machine: Machine, command: str, typed: str) -> str:
    keyboard, terminal = pty.openpty()
    os.write(keyboard, typed.encode())
    environment = clean_environment() | machine.environment
    done = subprocess.run(
        command.split(), cwd=machine.folder, env=environment, stdin=terminal, capture_output=True, check=True
    )
    os.close(keyboard)
    os.close(terminal)
    return done.stdout.decode()


@pytest.fixture(scope="module")
def docker_project(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Project]:
    """Copy the checkout for the real engine; its volume and containers are gone at the end."""
    folder = copy_checkout(tmp_path_factory.mktemp("docker"))
    for wheel in (CHECKOUT / "jupyter/wheels").glob("*.whl"):
        os.link(wheel, folder / "jupyter/wheels" / wheel.name)
    ports = {"JUPYTER_PORT": str(free_port()), "TENSORBOARD_PORT": str(free_port())}
    yield Project(folder, {"ENGINE": "docker", "GPU": "0", **ports})
    subprocess.run(
        ["docker", "compose", "down", "--volumes", "--timeout", "3"],
        cwd=folder,
        env=clean_environment(),
        check=True,
    )


@pytest.mark.docker
@pytest.mark.slow
def test_demo_trains_prints_its_result_and_leaves_the_stack_up(docker_project: Project) -> None:
    said = docker_project.make("demo").stdout
    assert "finished" in said
    assert "`make down` stops both and frees everything." in said
    assert "open notebooks/START.ipynb" in said.rstrip().splitlines()[-1]
    (run,) = docker_project.runs()
    assert (run["experiment"], run["status"]) == ("news", "finished")
    assert docker_project.make("status").stdout.count("healthy") == 2


@pytest.mark.docker
@pytest.mark.slow
def test_the_real_engine_goes_up_and_down_as_often_as_told(docker_project: Project) -> None:
    docker_project.make("up")
    assert status_of(f"{docker_project.jupyter}/api/status?token={docker_project.token}") == 200
    assert status_of(f"{docker_project.tensorboard}/data/environment") == 200
    said = docker_project.make("status").stdout
    assert said.count("healthy") == 2
    assert docker_project.token in said
    assert "Created" not in docker_project.make("up").stdout
    shell = docker_project.make(
        "shell", "ARGS=-c 'command -v trainlab; id -u; echo token:$$JUPYTER_TOKEN:'"
    ).stdout
    assert "token::" in shell
    assert re.search(r"^[1-9]\d*$", shell, re.M)
    docker_project.make("down")
    assert status_of(f"{docker_project.jupyter}/api") == 0
    docker_project.make("down")
    assert "down" in docker_project.make("status").stdout
