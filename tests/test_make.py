"""What `make` chooses, writes, refuses and deletes, in front of engines that only seem to be there."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from project import CHECKOUT, Project, clean_environment, copy_checkout, status_of
from terminal import CTRL_C, in_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TARGETS = "help up down status logs shell run runs stop demo article bench build test lint clean"
ENGINE_INFO = {
    "ServerVersion": "26.1.5+dfsg1",
    "Runtimes": {"runc": {}, "io.containerd.runc.v2": {}},
    "MemTotal": 10 * 2**30,
    "NCPU": 3,
    "DockerRootDir": "/",
}
# notes each call; answers `info` and `compose version`; `ps --filter` tells ports while it is up; the files
# `containers`, `running` and `down` name a project and its folder a line, services, and one that is down
FAKE_DOCKER = """#!/bin/bash
published() { # published NAME: its port, as the shell or .env has it
  local port=${!1:-$(sed -n "s/.*$1[^0-9]*\\([0-9]*\\).*/\\1/p" .env)}
  echo "127.0.0.1:$port->$port/tcp, 10000/tcp"
}
down=$(cat "$FAKE/down" 2>/dev/null)
echo "$*" >>"$FAKE/calls"
[[ $1 != compose ]] || echo "$COMPOSE_PROJECT_NAME" >"$FAKE/project"
case "$*" in
  "ps --all"*working_dir=*) while read -r name folder; do
      if [[ "$*" == *"working_dir=$folder "* ]]; then echo "$name"; fi; done <"$FAKE/containers" ;;
  "ps --all"*) while read -r name folder; do
      if [[ "$*" == *"project=$name "* ]]; then printf '%s\\0\\n' "$folder"; fi; done <"$FAKE/containers" ;;
  "volume inspect"*) [[ -e $FAKE/$3 ]] ;;
  info*) cat "$FAKE/info"; [[ -s $FAKE/info ]] ;;
  "compose version"*) cat "$FAKE/compose" ;;
  "compose up"*) mkdir "$FAKE/starting" || exit 1; touch "$FAKE/up"; sleep 0.2; rmdir "$FAKE/starting"
    [[ ! -e $FAKE/unhealthy ]] ;;
  *pass_on*) touch "$FAKE/stopped" ;;
  "compose exec"*" trainlab run"*) [[ ! -t 0 || ! -t 1 ]] || touch "$FAKE/terminal"
    [[ -e $FAKE/long ]] || exit 0
    echo at work
    while [[ ! -e $FAKE/stopped ]]; do sleep 0.05; done
    echo a checkpoint was saved; exit 130 ;;
  "compose exec"*) [[ ! -t 0 || ! -t 1 ]] || touch "$FAKE/terminal" ;;
  "compose rm"*) ;;
  "compose ps --services"*) cat "$FAKE/running" ;;
  "compose down"*) rm -f "$FAKE/up" ;;
  "ps --filter"*"service=${down:-none}"*) ;;
  "ps --filter"*service=jupyter*) [[ ! -e $FAKE/up ]] || published JUPYTER_PORT ;;
  "ps --filter"*service=tensorboard*) [[ ! -e $FAKE/up ]] || published TENSORBOARD_PORT ;;
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
        (self.tools / "containers").touch()
        (self.tools / "running").touch()
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
        path = self.tools / "calls"
        return path.read_text() if path.exists() else ""

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


def test_a_run_is_stopped_and_followed_where_it_is_at_work(machine: Machine) -> None:
    (machine.tools / "up").touch()
    for verb in ("stop", "logs"):
        machine.make(verb, "RUN=news/a b")
        assert machine.calls().splitlines()[-1].endswith(f"TRAINLAB_MAKE=1 trainlab {verb} news/a b")
    done = machine.make("stop", check=False)
    assert done.returncode == 2
    assert "which run? For example: make stop RUN=last" in done.stdout
    machine.make("logs", "ARGS=tensorboard")
    assert machine.calls().splitlines()[-1] == "compose logs --tail 100 tensorboard"


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


def environment_of(folder: Path, pip_calls: Path) -> None:
    """Make .venv as `local/install` leaves it, without packages; its pip only notes how it is called."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    (packages,) = (folder / ".venv/lib").glob("python*/site-packages")
    (packages / "trainlab.pth").write_text(f"{folder}/src\n")
    (folder / ".venv/.installed-engine").write_text("of another lock file")
    note = f"import sys; open({str(pip_calls)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')"
    for name, code in (("pip", note), ("trainlab", "import trainlab.cli")):
        python = folder / ".venv/bin/python3.11"
        first = f"#!{python}\n"
        if " " in str(python) or len(first) > 127:  # as pip writes it
            first = f"#!/bin/sh\n'''exec' {json.dumps(str(python))} \"$0\" \"$@\"\n' '''\n"
        (folder / ".venv/bin" / name).write_text(first + code)
        (folder / ".venv/bin" / name).chmod(0o755)


MAKE_ENVIRONMENT = """#!/bin/bash
[[ "$*" != "-m venv .venv" ]] || { mkdir -p .venv/bin && cp /bin/true .venv/bin/pip; }
"""


@pytest.mark.parametrize("name", ["plain", "a b/lab", "x" * 150])
@pytest.mark.parametrize("change", ["none", "moved", "copied"])
def test_an_environment_that_was_moved_or_copied_is_made_anew(
    machine: Machine, tmp_path: Path, name: str, change: str
) -> None:
    made_in = tmp_path / name
    made_in.parent.mkdir(exist_ok=True)
    machine.folder = machine.folder.rename(made_in)
    environment_of(machine.folder, machine.tools / "pip")
    (machine.folder / "src/trainlab/__init__.py").write_text("a mistake of today's\n")
    elsewhere = made_in.parent / "elsewhere"
    if change == "moved":
        machine.folder = machine.folder.rename(elsewhere)
    if change == "copied":
        machine.folder = shutil.copytree(made_in, elsewhere, symlinks=True)
    machine.tool("python3.11", MAKE_ENVIRONMENT)
    said = machine.make("build", ENGINE="local", GPU="0").stdout
    assert ("making .venv anew" in said) is (change != "none"), said
    assert (machine.folder / ".venv/bin/trainlab").exists() is (change == "none")


def test_an_environment_that_is_a_link_to_another_clone_s_is_left_alone(
    machine: Machine, tmp_path: Path
) -> None:
    other = copy_checkout(tmp_path / "other")
    environment_of(other, machine.tools / "pip")
    (machine.folder / ".venv").symlink_to(other / ".venv")
    machine.tool("python3.11", MAKE_ENVIRONMENT)
    assert "anew" not in machine.make("build", ENGINE="local", GPU="0").stdout
    assert (machine.folder / ".venv").is_symlink()


def test_a_python_that_is_not_used_is_named(machine: Machine) -> None:
    machine.tool("python3.11", MAKE_ENVIRONMENT)
    machine.tool("old", "#!/bin/bash\n[[ $1 != --version ]] || echo Python 3.9.2\nexit 1\n")
    said = machine.make("build", ENGINE="local", GPU="0", PYTHON="old").stdout
    assert "PYTHON=old is no Python 3.11 (Python 3.9.2): looking for another" in said
    shutil.rmtree(machine.folder / ".venv")
    environment_of(machine.folder, machine.tools / "pip")
    said = machine.make("build", ENGINE="local", GPU="0", PYTHON=str(machine.tools / "old")).stdout
    assert re.search(r"PYTHON=\S+/old is not used: .venv is there already", said)
    assert "PYTHON" not in machine.make("build", ENGINE="local", GPU="0", PYTHON=sys.executable).stdout


def test_lock_without_uv_says_what_is_missing(machine: Machine, tmp_path: Path) -> None:
    leave_out(machine, tmp_path / "bin", "uv")
    done = machine.make("lock", check=False)
    assert done.returncode == 2
    assert "error: uv is not installed" in done.stdout


@pytest.mark.parametrize(("engine", "built"), [("local", 0), ("docker", 1)])
def test_tests_of_the_local_engine_build_no_image(machine: Machine, engine: str, built: int) -> None:
    for name in ("stack/lint", ".venv/bin/pytest"):
        path = machine.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/bash\necho "{name} $ENGINE $*"\n')
        path.chmod(0o755)
    said = machine.make("test", f"ENGINE={engine}", "ARGS=-k one").stdout
    assert f".venv/bin/pytest {engine} -k one\n" in said
    assert machine.built() == built


def test_docker_tests_are_skipped_with_the_engine_s_name_as_the_reason() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/test_compose.py", "-k", "two_services"],
        cwd=CHECKOUT,
        env=clean_environment() | {"ENGINE": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "docker   skipped: ENGINE=local\n" in done.stdout
    assert "1 skipped" in done.stdout


def test_without_docker_each_chosen_tracker_is_installed_once(machine: Machine) -> None:
    calls = machine.tools / "pip"
    environment_of(machine.folder, calls)
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


def test_of_an_env_that_exists_only_the_compose_files_change_and_the_project_s_name_is_added(
    machine: Machine,
) -> None:
    path = machine.folder / ".env"
    path.write_text("# mine\nCOMPOSE_FILE=docker-compose.yml:mine.yml\nJUPYTER_TOKEN='abc' # short\n\nODD=1")
    path.chmod(0o640)
    machine.with_gpu()
    machine.make("up")
    files = "COMPOSE_FILE=docker-compose.yml:mine.yml:docker-compose.gpu.yml"
    before, _, added = path.read_text().partition("ODD=1\n")
    assert before == f"# mine\n{files}\nJUPYTER_TOKEN='abc' # short\n\n"
    assert re.fullmatch(rf"# .* {machine.folder}\nCOMPOSE_PROJECT_NAME=project-\w+\n", added)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    machine.make("up", GPU="0")
    assert "COMPOSE_FILE=docker-compose.yml:mine.yml\n" in path.read_text()
    assert "token=abc\n" in machine.make("status").stdout


def names(machine: Machine) -> tuple[str, str]:
    """Return the project's name as .env says it, and as the last `docker compose` was told."""
    return machine.settings["COMPOSE_PROJECT_NAME"], (machine.tools / "project").read_text().strip()


@pytest.mark.parametrize(
    ("folder", "readable"),
    [
        ("lab", "lab"),
        ("My Lab.2", "mylab2"),
        ("深度学习", "trainlab"),
        ("_", "trainlab"),
        ("x" * 90, "x" * 24),
    ],
)
def test_a_folder_s_project_name_comes_from_its_whole_path_and_is_written_once(
    tmp_path: Path, machine: Machine, folder: str, readable: str
) -> None:
    machine.folder = machine.folder.rename(tmp_path / folder)
    machine.make("up")
    written, used = names(machine)
    assert used == written
    assert re.fullmatch(rf"{readable}-[0-9a-f]{{8}}", written)
    (tmp_path / "elsewhere").mkdir()
    again = shutil.copytree(machine.folder, tmp_path / "elsewhere" / folder)
    machine.make("up")
    assert names(machine) == (written, written)
    (again / ".env").unlink()
    machine.folder = again
    machine.make("up")
    assert names(machine)[0].startswith(f"{readable}-")
    assert written not in names(machine), "the last name alone is not the identity"


def test_a_clone_that_has_containers_already_keeps_the_name_that_they_have(machine: Machine) -> None:
    (machine.tools / "containers").write_text(f"project {machine.folder}\n")
    (machine.folder / ".env").write_text("JUPYTER_TOKEN=abc")
    machine.make("up")
    assert names(machine) == ("project", "project")
    assert machine.token == "abc"


def test_a_clone_that_was_used_keeps_the_volume_of_its_folder_s_name(machine: Machine) -> None:
    (machine.tools / "project_home").touch()
    machine.make("status")
    assert names_in_use(machine) != "project", "a fresh clone has nothing to keep"
    (machine.folder / "logs/news").mkdir()
    machine.make("up")
    assert names(machine) == ("project", "project")


def test_the_volume_of_another_folder_s_containers_is_not_taken(machine: Machine, tmp_path: Path) -> None:
    (machine.tools / "project_home").touch()
    (machine.tools / "containers").write_text(f"project {tmp_path}\n")
    (machine.folder / "logs/news").mkdir()
    machine.make("up")
    assert "project" not in names(machine)


def names_in_use(machine: Machine) -> str:
    return (machine.tools / "project").read_text().strip()


@pytest.mark.parametrize("verb", ["up", "down", "run ARGS=news", "clean YES=1", "status", "build"])
def test_another_folder_s_project_is_refused_before_anything_is_stopped(
    machine: Machine, tmp_path: Path, verb: str
) -> None:
    other = tmp_path / "two\nlines"
    other.mkdir()
    (machine.tools / "containers").write_text(f"lab {tmp_path / 'gone'}\nlab {tmp_path}\n")
    (machine.folder / ".env").write_text("COMPOSE_PROJECT_NAME=lab\n")
    done = machine.make(*verb.split(), check=False)
    assert done.returncode == 2
    assert f"the project name lab belongs to containers of {tmp_path}, which" in done.stdout
    assert re.search(r"COMPOSE_PROJECT_NAME=project-[0-9a-f]{8} in .env", done.stdout)
    assert not re.search("^compose (?!version)", machine.calls(), re.M), "nothing was asked of Compose"


def test_a_moved_folder_keeps_its_name_and_a_copy_gets_one_of_its_own(
    machine: Machine, tmp_path: Path
) -> None:
    machine.make("up")
    first, _ = names(machine)
    (machine.tools / "containers").write_text(f"{first} {machine.folder}\n")
    machine.folder = machine.folder.rename(tmp_path / "moved")
    machine.make("down")
    assert names_in_use(machine) == first
    machine.make("up")
    assert names(machine) == (first, first)

    machine.folder = shutil.copytree(machine.folder, tmp_path / "copy")
    said = machine.make("up").stdout
    assert "set COMPOSE_PROJECT_NAME=copy-" in said
    written, used = names(machine)
    assert written == used != first
    assert (machine.folder / ".env").read_text().count("COMPOSE_PROJECT_NAME=") == 1


def test_a_name_that_the_shell_gives_is_for_this_time_alone(machine: Machine) -> None:
    machine.make("up")
    written, _ = names(machine)
    machine.make("up", COMPOSE_PROJECT_NAME="mine")
    assert names(machine) == (written, "mine")
    machine.make("up", COMPOSE_PROJECT_NAME="")
    assert names(machine) == (written, written)


def test_clean_removes_the_images_of_this_folder_alone(machine: Machine) -> None:
    machine.make("up")
    name, _ = names(machine)
    machine.make("clean", YES="1")
    (removal,) = re.findall("^image rm --force (.*)$", machine.calls(), re.M)
    images = ["jupyter:{}-cpu", "jupyter:{}-cuda", "tensorboard:{}"]
    assert removal.split() == [f"trainlab-{image.format(name)}" for image in images]


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


@pytest.mark.parametrize(("command", "flock"), [("up", True), ("run ARGS=news", True), ("up", False)])
def test_four_at_once_on_a_stopped_stack_wait_for_each_other(
    machine: Machine, tmp_path: Path, command: str, flock: bool
) -> None:
    if not flock:
        leave_out(machine, tmp_path / "bin", "flock")
        (machine.folder / ".stack").mkdir()
        (machine.folder / ".stack/up.lock.pid").symlink_to("4194999")  # of a process that was killed
    environment = clean_environment() | machine.environment
    makes = [
        subprocess.Popen(
            ["make", *command.split()],
            cwd=machine.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(4)
    ]
    said = [each.communicate()[0] for each in makes]
    assert [each.returncode for each in makes] == [0] * 4, said
    assert machine.built() == 1
    assert "is at work in this folder: waiting for it" in "".join(said)
    assert not list((machine.folder / ".stack").glob("*.pid*"))


def leave_out(machine: Machine, tools: Path, missing: str) -> None:
    """Leave the machine all of the system's commands but one."""
    tools.mkdir()
    for folder in ("/usr/bin", "/bin"):
        for path in Path(folder).iterdir():
            if path.name != missing and not (tools / path.name).is_symlink():
                (tools / path.name).symlink_to(path)
    machine.environment["PATH"] = f"{machine.tools}:{tools}"


def test_a_failed_start_ends_only_what_it_has_started(machine: Machine) -> None:
    (machine.tools / "unhealthy").touch()
    (machine.tools / "running").write_text("jupyter\n")
    done = machine.make("up", check=False)
    assert done.returncode == 2
    assert "left running: jupyter." in done.stdout
    assert "compose rm --stop --force tensorboard" in machine.calls()
    assert "compose down" not in machine.calls()
    assert "force jupyter" not in machine.calls()

    (machine.tools / "running").write_text("")
    assert "left running: nothing" in machine.make("up", check=False).stdout
    assert "compose down" in machine.calls()


LOCAL_START = """
set -euo pipefail
source stack/turns.sh
source local/local.sh
fail() { echo "error: $1"; exit 2; }
check_ports() { :; }
unprivileged_ports() { :; }
engine_build() { :; }
start_services() { sleep 60 & echo $! >.stack/supervisord.pid; }
service_healthy() { false; }
engine_running() { kill -0 "$(cat .stack/supervisord.pid)"; }
patience=1
mkdir .stack
"""


@pytest.mark.parametrize("ran_before", [True, False])
def test_without_docker_a_failed_start_ends_only_what_it_has_started(
    machine: Machine, ran_before: bool
) -> None:
    start = "start_services\n" if ran_before else ""
    end = "\nkill -0 $(cat .stack/supervisord.pid) && echo alive; kill $(cat .stack/supervisord.pid)"
    done = subprocess.run(
        ["bash", "-c", f"{LOCAL_START}{start}(engine_up) || true{end} || true"],
        cwd=machine.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("alive" in done.stdout) is ran_before, done.stderr
    assert ("were left alone" in done.stdout) is ran_before
    assert ("Both were stopped" in done.stdout) is not ran_before


def test_settings_are_read_as_compose_reads_them_and_printed_for_a_browser(machine: Machine) -> None:
    ports = [machine.environment.pop(name) for name in ("JUPYTER_PORT", "TENSORBOARD_PORT")]
    (machine.folder / ".env").write_text(
        f"\ufeffJUPYTER_PORT = {ports[0]} # mine\nexport TENSORBOARD_PORT: '{ports[1]}'\n"
        "A=1\nJUPYTER_TOKEN=\"a b&c+d#e%f${A}é/?\"\nCOMPOSE_FILE = 'docker-compose.yml' # one\nTRACKERS="
    )
    said = machine.make("up").stdout
    address = f"http://127.0.0.1:{ports[0]}/lab?token=a%20b%26c%2bd%23e%25f1%c3%a9%2f%3f\n"
    assert address in said
    assert f"http://127.0.0.1:{ports[1]}/\n" in said
    assert address in machine.make("status").stdout
    assert "COMPOSE_FILE = 'docker-compose.yml' # one\nTRACKERS=\n" in (machine.folder / ".env").read_text()
    machine.with_gpu()
    machine.make("up")
    assert (
        "\nCOMPOSE_FILE=docker-compose.yml:docker-compose.gpu.yml\n" in (machine.folder / ".env").read_text()
    )


@pytest.mark.parametrize("engine", ["docker", "local"])
def test_a_line_that_cannot_be_read_is_named_before_anything_happens(machine: Machine, engine: str) -> None:
    (machine.folder / ".env").write_text("A=1\nJUPYTER_PORT=${A:?x}\n")
    done = machine.make("up", check=False, ENGINE=engine)
    assert done.returncode == 2
    assert "error: line 2 of .env has a form of ${...} that is not read here" in done.stdout
    assert not machine.calls()


def test_what_the_shell_gives_at_first_stands_in_env_and_later_it_is_said_that_it_does_not(
    machine: Machine, free_port: Callable[[], int]
) -> None:
    machine.make("up", JUPYTER_TOKEN="it's mine", JUPYTER_MEMORY="3g")
    assert machine.settings["JUPYTER_PORT"] == machine.environment["JUPYTER_PORT"]
    assert machine.settings["JUPYTER_MEMORY"] == "3g"
    assert machine.settings["JUPYTER_TOKEN"] == r"'it\'s mine'"
    assert "token=it%27s%20mine\n" in machine.make("status").stdout
    other = str(free_port())
    said = machine.make("up", JUPYTER_PORT=other).stdout
    assert f"JUPYTER_PORT={other} is the shell's, for this start; .env has JUPYTER_PORT=" in said
    assert f"http://127.0.0.1:{other}/lab" in said


def test_status_names_a_service_without_a_port_as_down(machine: Machine) -> None:
    machine.make("up")
    (machine.tools / "down").write_text("tensorboard")
    assert "TensorBoard  does not run\n" in machine.make("status").stdout


@pytest.mark.parametrize("name", ["docker-compose.override.yml", "compose.override.yaml"])
def test_the_user_s_override_stays_among_the_compose_files(machine: Machine, name: str) -> None:
    (machine.folder / name).write_text("services: {}\n")
    assert f"COMPOSE_FILE in .env has docker-compose.yml:{name}\n" in machine.make("up").stdout
    assert machine.settings["COMPOSE_FILE"] == f"docker-compose.yml:{name}"
    machine.with_gpu()
    machine.make("up")
    assert machine.settings["COMPOSE_FILE"] == f"docker-compose.yml:{name}:docker-compose.gpu.yml"
    (machine.folder / name).unlink()
    said = machine.make("up", GPU="0").stdout
    assert "set COMPOSE_FILE=docker-compose.yml in .env" in said


@pytest.mark.parametrize(
    ("target", "called"),
    [
        ("run ARGS=news", "trainlab run news"),
        ("demo", "trainlab run news"),
        ("article", "trainlab run article"),
        ("runs", "trainlab runs"),
        ("shell", "bash"),
    ],
)
def test_a_command_in_the_container_has_a_terminal_where_make_has_one(
    machine: Machine, target: str, called: str
) -> None:
    machine.make("up")
    environment = clean_environment() | machine.environment
    with in_terminal(["make", *target.split()], machine.folder, environment) as terminal:
        terminal.until("")
    assert terminal.process.returncode == 0
    (call,) = (line for line in machine.calls().splitlines() if line.endswith(called))
    assert "exec --interactive" in call
    assert (machine.tools / "terminal").exists()
    machine.make(*target.split())
    assert machine.calls().splitlines()[-1].startswith("compose exec --no-TTY") or target in (
        "demo",
        "article",
    )


WAIT_FOR_CTRL_C = """
import sys, time
try:
    print("in a terminal" if sys.stdout.isatty() and sys.stdin.isatty() else "in a pipe", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    print("saved", flush=True)
    sys.exit(130)
"""


def test_without_docker_a_ctrl_c_reaches_the_run_and_its_last_words_are_shown(machine: Machine) -> None:
    environment_of(machine.folder, machine.tools / "pip")
    command = machine.folder / ".venv/bin/trainlab"
    command.write_text(command.read_text().splitlines()[0] + WAIT_FOR_CTRL_C)
    (machine.folder / ".stack").mkdir()
    supervisor = subprocess.Popen(["sleep", "300"], env={"TRAINLAB_STACK": f"{machine.folder}/.stack"})
    (machine.folder / ".stack/supervisord.pid").write_text(str(supervisor.pid))
    environment = clean_environment() | machine.environment
    with in_terminal(["make", "run", "ENGINE=local", "ARGS=news"], machine.folder, environment) as terminal:
        terminal.until("in a terminal")
        terminal.type(CTRL_C)
        assert "saved\r\n" in terminal.until("")
    supervisor.kill()
    supervisor.wait()


def test_logs_go_on_in_a_terminal(machine: Machine) -> None:
    environment = clean_environment() | machine.environment
    with in_terminal(["make", "logs"], machine.folder, environment) as terminal:
        terminal.until("")
    assert "compose logs --tail 100 --follow" in machine.calls()
    machine.make("logs")
    assert machine.calls().splitlines()[-1] == "compose logs --tail 100"


@pytest.mark.parametrize(("sent", "name"), [(signal.SIGINT, "INT"), (signal.SIGTERM, "TERM")])
def test_a_signal_reaches_the_run_where_make_has_no_terminal(
    machine: Machine, sent: signal.Signals, name: str
) -> None:
    machine.make("up")
    (machine.tools / "long").touch()
    make = subprocess.Popen(
        ["make", "run", "ARGS=news"],
        cwd=machine.folder,
        env=clean_environment() | machine.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert make.stdout
    while "at work" not in make.stdout.readline():
        assert make.poll() is None
    os.killpg(make.pid, sent)
    assert "a checkpoint was saved" in make.communicate(timeout=60)[0]
    assert make.returncode != 0
    (call,) = (line for line in machine.calls().splitlines() if f"pass_on {name} " in line)
    assert call.split()[-1] in machine.calls().split("trainlab run")[0], "the mark of the run's process"


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


def test_clean_deletes_a_run_whose_name_has_a_line_break_and_nothing_else(machine: Machine) -> None:
    files = users_files(machine)
    shutil.rmtree(machine.folder / "data/mind-small")
    (machine.folder / ".git").mkdir()
    for name in ("odd\n.git\nsrc\nREADME.md", "-rf", " a  b ", "tab\tand\x1b[31m"):
        (machine.folder / "logs" / name).mkdir()
    said = machine.make("clean", YES="1").stdout
    assert "logs/odd?.git?src?README.md\n" in said
    assert "\x1b" not in said
    assert [path.name for path in (machine.folder / "logs").iterdir()] == [".gitignore"]
    for name in (".git", "src/trainlab/cli.py", "README.md"):
        assert (machine.folder / name).exists(), name
    assert not files[-1].exists()


def test_a_folder_whose_path_has_a_line_break_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.folder = machine.folder.rename(tmp_path / "two\nlines")
    assert "has a line break in it" in machine.make("down", check=False, ENGINE="local").stdout


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
    yield Project(folder, {"ENGINE": "docker", "GPU": "0", "JUPYTER_TOKEN": "a&b+c #d%e", **ports})
    subprocess.run(
        ["docker", "compose", "down", "--volumes", "--rmi=all", "--timeout", "3"],
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


SMALL_STACK = """
services:
  jupyter:
    {image: "debian:bookworm-slim", pull_policy: never, init: true, command: sleep 900,
     volumes: ["./trainlab:/usr/local/bin/trainlab"]}
  tensorboard: {image: "debian:bookworm-slim", pull_policy: never, init: true, command: sleep 900}
"""
LONG_RUN = """#!/bin/bash
trap 'echo saved on INT; exit 130' INT
trap 'echo saved on TERM; exit 143' TERM
if [[ -t 0 && -t 1 ]]; then echo in a terminal; fi
echo at work
for _ in {1..600}; do sleep 0.1; done
"""


@pytest.fixture
def small_stack(tmp_path: Path) -> Iterator[Project]:
    """A stack for the real engine that needs no image of ours, in which `trainlab` waits for a signal."""
    project = Project(copy_checkout(tmp_path / "small"), {"ENGINE": "docker", "GPU": "0"})
    (project.folder / "docker-compose.yml").write_text(SMALL_STACK)
    (project.folder / "trainlab").write_text(LONG_RUN)
    (project.folder / "trainlab").chmod(0o755)
    (project.folder / ".env").write_text(f"COMPOSE_PROJECT_NAME=small{os.getpid()}\n")
    compose = ["docker", "compose"]
    where = {"cwd": project.folder, "env": clean_environment(), "capture_output": True}
    subprocess.run([*compose, "up", "--detach"], check=True, **where)
    yield project
    subprocess.run([*compose, "down", "--timeout", "1"], check=True, **where)


@pytest.mark.docker
def test_a_signal_reaches_the_process_in_a_real_container_with_a_terminal_and_without(
    small_stack: Project,
) -> None:
    environment = clean_environment() | small_stack.environment
    command = ["make", "run", "ARGS=news"]
    with in_terminal(command, small_stack.folder, environment) as terminal:
        terminal.until("in a terminal")
        terminal.until("at work")
        terminal.type(CTRL_C)
        terminal.until("saved on INT")
    for sent, name in ((signal.SIGINT, "INT"), (signal.SIGTERM, "TERM")):
        piped = subprocess.Popen(
            command,
            cwd=small_stack.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert piped.stdout
        while "at work" not in piped.stdout.readline():
            assert piped.poll() is None
        os.killpg(piped.pid, sent)
        assert f"saved on {name}" in piped.communicate(timeout=60)[0]
    with in_terminal(["make", "shell"], small_stack.folder, environment) as terminal:
        terminal.until(":/# ")
        terminal.type("echo $((6 * 7)); exit\n")
        terminal.until("42\r\n")


@pytest.mark.docker
def test_another_clone_s_containers_are_refused_on_the_real_engine(
    small_stack: Project, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    ports = {"JUPYTER_PORT": str(free_port()), "TENSORBOARD_PORT": str(free_port())}
    second = Project(copy_checkout(tmp_path / "second"), small_stack.environment | ports)
    shutil.copy(small_stack.folder / ".env", second.folder)
    for verb in ("up", "down"):
        assert f"belongs to containers of {small_stack.folder}" in second.make(verb, check=False).stdout
    compose = ["docker", "compose", "ps", "--quiet", "--status", "running"]
    running = subprocess.check_output(compose, cwd=small_stack.folder, env=clean_environment())
    assert len(running.split()) == 2


@pytest.mark.docker
@pytest.mark.slow
def test_the_real_engine_goes_up_and_down_as_often_as_told(docker_project: Project) -> None:
    (token,) = re.findall(r"/lab\?token=(\S+)", docker_project.make("up").stdout)
    assert status_of(f"{docker_project.jupyter}/api/status?token={token}") == 200
    assert status_of(f"{docker_project.tensorboard}/data/environment") == 200
    said = docker_project.make("status").stdout
    assert said.count("healthy") == 2
    assert token in said
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
