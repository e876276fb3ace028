"""The two services without Docker, driven with `make`."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

import stoppable_notebook
import trainlab
from message_server import serving
from project import Project, clean_environment, status_of
from terminal import CTRL_C, in_terminal
from waiting import until

if TYPE_CHECKING:
    from fake_machine import Machine

pytestmark = pytest.mark.slow

DEADLINE = 30.0  # seconds; a busy machine needs some of them


@pytest.fixture(scope="module")
def up(local_project: Project) -> Project:
    local_project.make("up")
    return local_project


def processes(project: Project, *words: str) -> list[int]:
    """Processes that the stack of this project started, with these words on their command line."""
    mark = f"TRAINLAB_STACK={project.folder}/.stack\0".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes():
                line = (entry / "cmdline").read_bytes().decode().replace("\0", " ")
                found += [int(entry.name)] if all(word in line for word in words) else []
        except OSError:
            continue  # it ended meanwhile
    return found


def test_up_prints_both_addresses_and_the_token(up: Project) -> None:
    said = up.make("up").stdout
    assert f"{up.jupyter}/lab?token={up.token}" in said
    assert f"{up.tensorboard}/" in said
    assert "make down" in said


def test_the_services_listen_on_loopback_alone(up: Project) -> None:
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    for name in ("JUPYTER_PORT", "TENSORBOARD_PORT"):
        port = int(up.environment[name])
        assert re.findall(rf"\d+: (\w+):{port:04X} 0+:0000 0A", listening) == ["0100007F"]


def test_jupyter_asks_for_the_token(up: Project) -> None:
    assert status_of(f"{up.jupyter}/api/status") == 403
    assert status_of(f"{up.jupyter}/api/status?token=wrong") == 403
    assert status_of(f"{up.jupyter}/api/status?token={up.token}") == 200


def test_a_foreign_host_name_is_refused(up: Project) -> None:
    assert status_of(f"{up.jupyter}/api/status?token={up.token}", Host="evil.example") == 403
    assert status_of(f"{up.tensorboard}/data/runs", Host="evil.example") == 403
    assert status_of(f"{up.tensorboard}/data/runs", Origin="http://evil.example") == 403


def test_a_notebook_of_50_mb_is_saved_with_the_token_and_nothing_is_read_without(up: Project) -> None:
    body = json.dumps({"type": "file", "format": "text", "content": "x" * 50_000_000}).encode()
    address = f"{up.jupyter}/api/contents/notebooks/large.txt"
    for token, status in (("wrong", 403), (up.token, 201)):
        headers = {"Authorization": f"token {token}"}
        done = http.client.HTTPConnection(urlsplit(address).netloc, timeout=DEADLINE)
        try:
            done.request("PUT", urlsplit(address).path, body, headers)
        except OSError:
            assert status == 403, "the server hung up"
            continue
        assert done.getresponse().status == status
        done.close()
    saved = up.folder / "notebooks/large.txt"
    assert saved.stat().st_size == 50_000_000
    saved.unlink()


def test_cookies_of_jupyterlab_go_to_no_other_path_of_the_address(up: Project) -> None:
    jar = CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    with opener.open(f"{up.jupyter}/lab?token={up.token}", timeout=DEADLINE) as page:
        path = urlsplit(page.url).path.removesuffix("lab")
    assert len(path) >= 32
    assert {cookie.path for cookie in jar} == {path}


def test_the_token_is_in_no_log_and_on_no_command_line(up: Project) -> None:
    logs = [path.read_text() for path in (up.folder / ".stack").glob("*.log")]
    assert logs
    assert up.token not in "".join(logs)
    assert not processes(up, up.token)


def test_the_state_folder_is_closed_to_others(up: Project) -> None:
    assert stat.S_IMODE((up.folder / ".stack").stat().st_mode) == 0o700


def test_status_says_healthy(up: Project) -> None:
    said = up.make("status").stdout
    assert re.search(r"jupyter +healthy", said)
    assert re.search(r"tensorboard +healthy", said)


def test_logs_shows_what_both_services_said(up: Project) -> None:
    assert "Jupyter Server" in up.make("logs").stdout
    assert "Jupyter Server" not in up.make("logs", "ARGS=tensorboard").stdout


def test_the_shell_knows_trainlab_and_not_the_token(up: Project) -> None:
    said = up.make(
        "shell", "ARGS=-c 'command -v trainlab; echo token:$$JUPYTER_TOKEN:'", SHELL="/bin/bash"
    ).stdout
    assert f"{up.folder}/.venv/bin/trainlab" in said
    assert "token::" in said


def test_the_key_of_a_tracker_goes_from_env_to_what_is_started(up: Project) -> None:
    settings = up.folder / ".env"
    before = settings.read_text()
    settings.write_text(f"{before}WANDB_API_KEY=a-given-key\nMLFLOW_TRACKING_URI=\n")
    line = "ARGS=-c 'echo key:$$WANDB_API_KEY:; echo address:$${MLFLOW_TRACKING_URI-none}:'"
    said = up.make("shell", line, SHELL="/bin/bash").stdout
    settings.write_text(before)
    assert "key:a-given-key:" in said
    assert "address:none:" in said, "an empty one is none"


def test_runs_as_json_has_nothing_before_it(up: Project) -> None:
    assert isinstance(up.runs(), list)


def test_a_second_up_leaves_the_services_alone(up: Project) -> None:
    before = processes(up)
    up.make("up")
    assert processes(up) == before


def test_a_killed_service_comes_back(up: Project) -> None:
    for words, url in (
        ("-m jupyterlab", f"{up.jupyter}/api"),
        ("keeper.py", f"{up.tensorboard}/data/environment"),
    ):
        (old,) = processes(up, words)
        os.kill(old, signal.SIGKILL)
        until(lambda w=words, o=old: processes(up, w) not in ([], [o]), f"a new {words}")
        until(lambda u=url: status_of(u) == 200, f"{words} answers again")


def test_ctrl_c_in_a_terminal_saves_a_checkpoint(up: Project) -> None:
    stoppable_notebook.write(up.folder / "notebooks")
    command = ["make", "run", f"ARGS=slow --name typed {' '.join(stoppable_notebook.SETTINGS)}"]
    with in_terminal(command, up.folder, clean_environment() | up.environment) as terminal:
        training = stoppable_notebook.at_work(up.folder, "typed")
        terminal.type(CTRL_C)
        terminal.until("")
    assert stoppable_notebook.record(training)["status"] == "interrupted"
    assert stoppable_notebook.newest_checkpoint(training) == stoppable_notebook.curve(training)[-1] + 1


def test_down_leaves_no_process_behind_and_may_be_repeated(up: Project) -> None:
    """Nor a kernel in a session of its own, nor a run that outlived its terminal and ignores SIGTERM."""
    stubborn = subprocess.Popen(
        ["bash", "-c", "trap '' TERM; while :; do sleep 1; done"],
        env={"TRAINLAB_RUN": f"{up.folder}/logs/news/20260101-000000", "PATH": os.environ["PATH"]},
        start_new_session=True,
    )
    up.make("down")
    assert processes(up) == []
    assert stubborn.wait(timeout=DEADLINE) == -signal.SIGKILL
    assert "down" in up.make("status").stdout
    up.make("down")


def test_down_lets_a_training_save_a_checkpoint_and_it_goes_on_after_up(local_project: Project) -> None:
    folder = local_project.folder
    stoppable_notebook.write(folder / "notebooks")
    local_project.make("up")
    run = f"ARGS=slow --name stopped {' '.join(stoppable_notebook.SETTINGS)}"
    waiting = local_project.start("run", run)
    training = stoppable_notebook.at_work(folder, "stopped")
    local_project.make("down")
    assert "Error 143" in waiting.communicate(timeout=DEADLINE)[0]
    known, steps = stoppable_notebook.record(training), stoppable_notebook.curve(training)
    assert (known["status"], known["reason"]) == ("interrupted", "SIGTERM")
    assert stoppable_notebook.newest_checkpoint(training) == steps[-1] + 1 < stoppable_notebook.STEPS

    assert "nothing limits their memory" in local_project.make("up").stdout
    with stoppable_notebook.made_quick(folder):
        local_project.make("run", "ARGS=slow --resume last")
    assert stoppable_notebook.record(training)["status"] == "finished"
    assert stoppable_notebook.curve(training) == list(range(stoppable_notebook.STEPS))


def test_a_taken_port_is_named_and_nothing_is_started(local_project: Project) -> None:
    local_project.make("down")
    with socket.create_server(("127.0.0.1", int(local_project.environment["TENSORBOARD_PORT"]))):
        done = local_project.make("up", check=False)
    assert done.returncode == 2
    assert f"port {local_project.environment['TENSORBOARD_PORT']}" in done.stdout
    assert re.search(r"TENSORBOARD_PORT=\d+ make up", done.stdout)
    assert processes(local_project) == []


def test_whom_env_names_is_told_of_a_run_and_no_other_process_knows_of_it(up: Project) -> None:
    pytest.importorskip("apprise")
    settings = up.folder / ".env"
    before = settings.read_text()
    with serving() as server:
        settings.write_text(f"{before}NOTIFY='{server.address('T0pSecret99')}'\n")
        try:
            up.make("down")
            up.make("up")
            until((up.folder / "logs/.notify.json").exists, "it has looked")
            with trainlab.Run("news", name="told", logs=up.folder / "logs", monitor=False):
                pass
            until(lambda: server.messages, "told")
            knowing = [
                (Path("/proc") / str(pid) / "cmdline").read_text().replace("\0", " ")
                for pid in processes(up)
                if b"T0pSecret99" in (Path("/proc") / str(pid) / "environ").read_bytes()
            ]
            (watcher,) = processes(up, "bin/trainlab notify")
            os.kill(watcher, signal.SIGKILL)
            until(lambda: processes(up, "bin/trainlab notify") not in ([], [watcher]), "it is started again")
            said = "".join(path.read_text() for path in (up.folder / ".stack").glob("*.log"))
        finally:
            settings.write_text(before)
            up.make("down")
        assert not processes(up)
        up.make("up")
    assert "-told: finished" in server.messages[0]["message"]
    assert len(knowing) == 2, knowing  # supervisord and the watcher
    assert "T0pSecret99" not in said
    assert not processes(up, "bin/trainlab notify"), "nobody to tell, nobody who watches"


SERVICES_START = """
set -euo pipefail
source stack/settings.sh
source stack/checks.sh
source stack/share.sh
source local/local.sh
in_stack() { env | grep -E '^(JUPYTER_TOKEN|NOTIFY|NOTIFIES)=' | sort >told; }
start_services
"""


@pytest.mark.parametrize(
    ("shell", "told"),
    [
        ({}, ["JUPYTER_TOKEN=of-the-file", "NOTIFIES=true", "NOTIFY=ntfy://of-the-file"]),
        ({"JUPYTER_TOKEN": "mine", "NOTIFY": ""}, ["JUPYTER_TOKEN=mine", "NOTIFIES=false", "NOTIFY="]),
    ],
)
def test_without_docker_the_services_are_given_the_shell_s_settings_before_those_of_env(
    machine: Machine, shell: dict[str, str], told: list[str]
) -> None:
    (machine.folder / ".env").write_text("JUPYTER_TOKEN=of-the-file\nNOTIFY=ntfy://of-the-file\n")
    environment = clean_environment() | shell
    subprocess.run(["bash", "-c", SERVICES_START], cwd=machine.folder, env=environment, check=True)
    assert (machine.folder / "told").read_text().splitlines() == told
