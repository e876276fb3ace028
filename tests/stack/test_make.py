"""What `make` chooses, writes and refuses, in front of engines that only seem to be there."""

from __future__ import annotations

import json
import re
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fake_machine import ENGINE_INFO, Machine
from project import CHECKOUT, clean_environment

if TYPE_CHECKING:
    from collections.abc import Callable


TARGETS = "help up down status logs shell run runs stop demo head unhead serve unserve article bench build "
TARGETS += "test lint clean"


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


def test_the_demo_is_what_the_table_of_trainlab_says_and_no_other(machine: Machine) -> None:
    settings = machine.folder / "pyproject.toml"
    settings.write_text(
        "[tool.mine]\ndemo = 'no'\n[tool.trainlab]\n  demo = 'mine'  # not \"first\"\n[tool.other]\n"
        'demo = "no"\nlook = "no"\n'
    )
    said = machine.make("demo").stdout
    assert "trainlab run mine\n" in machine.calls()
    assert "Now:" not in said, "look is of another tool"


def test_an_unknown_benchmark_is_refused_before_anything_is_installed(machine: Machine) -> None:
    done = machine.make("bench", check=False, ARGS="growth nonsense")
    assert done.returncode == 2
    assert "benchmarks/ has no 'nonsense'; there are: board clicks command_line" in done.stdout
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


@pytest.mark.parametrize(("name", "value"), [("ENGINE", "nomad"), ("GPU", "yes")])
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


def test_lock_without_uv_says_what_is_missing(machine: Machine, tmp_path: Path) -> None:
    leave_out(machine, tmp_path / "bin", "uv")
    done = machine.make("lock", check=False)
    assert done.returncode == 2
    assert "error: uv is not installed" in done.stdout


def stand_in(machine: Machine, name: str, code: int = 0) -> None:
    path = machine.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/bash\necho "{name} $ENGINE $*"\nexit {code}\n')
    path.chmod(0o755)


def test_chosen_tests_come_without_lint_and_no_image_is_built_before_pytest(machine: Machine) -> None:
    for name in ("develop/lint", "develop/install-tests", ".venv/bin/pytest"):
        stand_in(machine, name)
    said = machine.make("test", "ENGINE=local", "ARGS=-k one").stdout
    assert ".venv/bin/pytest local -k one\n" in said
    assert "develop/install-tests" in said and "develop/lint" not in said
    assert not machine.built()


@pytest.mark.parametrize(("lint", "tests", "code"), [(0, 0, 0), (1, 0, 1), (0, 3, 3), (1, 3, 1)])
def test_all_tests_run_two_at_once_and_what_lint_finds_beside_them_comes_last(
    machine: Machine, lint: int, tests: int, code: int
) -> None:
    stand_in(machine, "develop/install-tests")
    stand_in(machine, "develop/lint", lint)
    stand_in(machine, ".venv/bin/pytest", tests)
    done = machine.make("test", "ENGINE=local", check=False)
    assert done.returncode == (2 if code else 0)  # make's own
    assert f"Error {code}" in done.stdout or not code
    lines = done.stdout.splitlines()
    assert lines.index(".venv/bin/pytest local --numprocesses 2") < lines.index("develop/lint local ")
    assert ("lint found something" in done.stdout) == bool(lint)


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


def test_sweep_needs_a_notebook_and_starts_the_stack_for_a_sweep_alone(machine: Machine) -> None:
    assert "of what" in machine.make("sweep", check=False).stdout
    machine.make("sweep", "ARGS=list")
    assert "compose up" not in machine.calls()
    machine.make("sweep", "ARGS=news 'sizes=(3\\,4),(5\\,6)' rate=1e-5..1e-3:log --goal val/loss")
    calls = machine.calls().splitlines()
    (sweep,) = (call for call in calls if call.endswith("rate=1e-5..1e-3:log --goal val/loss"))
    assert r"trainlab sweep news sizes=(3\,4),(5\,6) rate" in sweep
    assert calls.index(sweep) > calls.index("compose up --detach --wait")


@pytest.mark.parametrize(("command", "flock"), [("up", True), ("run ARGS=news", True), ("up", False)])
def test_four_at_once_on_a_stopped_stack_wait_for_each_other(
    machine: Machine, tmp_path: Path, command: str, flock: bool
) -> None:
    if not flock:
        leave_out(machine, tmp_path / "bin", "flock")
        (machine.folder / ".stack").mkdir()
        (machine.folder / ".stack/up.lock.pid").symlink_to("4194999")  # of a process that was killed
    makes = [machine.start(*command.split()) for _ in range(4)]
    said = [each.communicate()[0] for each in makes]
    assert [each.returncode for each in makes] == [0] * 4, said
    assert machine.built() == 1
    assert "is running in this folder: waiting for it" in "".join(said)
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


def test_a_dev_container_finds_settings_and_images_that_make_has_prepared(machine: Machine) -> None:
    text = (CHECKOUT / ".devcontainer/devcontainer.json").read_text()
    container = json.loads(re.sub(r"^ *//.*$|  // .*$", "", text, flags=re.M))
    assert container["dockerComposeFile"] == [], "then it takes COMPOSE_FILE of .env, GPU and Podman included"
    assert container["overrideCommand"] is False, "the image's own server, and no second one"
    subprocess.run(
        container["initializeCommand"].split(),
        cwd=machine.folder,
        env=clean_environment() | machine.environment,
        check=True,
    )
    assert machine.settings["COMPOSE_FILE"] == "docker-compose.yml"
    assert machine.built() == 1
    assert "compose up" not in machine.calls()
