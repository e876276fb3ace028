"""Trainings in the real containers that are stopped, killed or run out of memory, and go on afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import websocket

import stoppable_notebook
from containers import SERVER, Stack, own, started
from project import status_of
from waiting import until

HOG = """
import trainlab
with trainlab.Run("hog", {"margin": 1.0}) as run:
    run.log({"train/loss": 1.0}, 0)
    hog = []
    while True:
        hog.append(bytearray(b"x" * 16_000_000))
"""
MEMORY = "600m"

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Stack]:
    """A fresh clone at work, with the notebooks of this file."""
    with started(tmp_path_factory.mktemp(f"faults{os.getpid()}-"), free_port, JUPYTER_TOKEN="given") as clone:
        notebooks = clone.folder / "notebooks"
        stoppable_notebook.write(notebooks)
        stoppable_notebook.write_notebook(notebooks / "hog.ipynb", HOG)
        own(notebooks)
        yield clone


def execute(stack: Stack, code: str) -> None:
    """Start a kernel as the browser does, and send it a cell."""
    kernel = stack.jupyter("POST", "/api/kernels", "given")["id"]
    address = stack.url("jupyter", f"/api/kernels/{kernel}/channels").replace("http", "ws", 1)
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": uuid.uuid4().hex}
    message = {
        "header": header | {"username": "", "version": "5.3", "date": ""},
        "parent_header": {},
        "metadata": {},
        "channel": "shell",
        "content": {"code": code, "silent": False},
    }
    channel = websocket.create_connection(address, header=["Authorization: token given"], timeout=60)
    channel.send(json.dumps(message))
    while json.loads(channel.recv())["msg_type"] != "execute_input":
        pass
    channel.close()


LIST = "trainlab runs --format json"


def runs(stack: Stack) -> dict[str, dict[str, Any]]:
    """Return what `trainlab runs` lists, by the run's label, the newest first."""
    return labelled(stack.inside("jupyter", LIST).stdout)


def labelled(listing: str) -> dict[str, dict[str, Any]]:
    return {f"{row['experiment']}/{row['run']}": row for row in json.loads(listing)}


def goes_on(stack: Stack, reference: str) -> Path:
    """Resume a run headless, to its end, with fewer checkpoints than before, and return its folder."""
    words = ("trainlab", "run", "slow", "--resume", reference, "checkpoint_every=5m")
    with stoppable_notebook.made_quick(stack.folder):
        done = stack.compose("exec", "-T", "jupyter", *words)
    return stack.folder / Path(done.stdout.splitlines()[0]).relative_to("/workspace")


@dataclass
class Stopped:
    """Three trainings that were at work when the stack was stopped."""

    foreground: Path
    detached: Path
    by_hand: Path
    code: int  # that `docker compose exec` returned for the one in the foreground
    seconds: float
    container_code: int


@pytest.fixture(scope="module")
def stopped(stack: Stack) -> Stopped:
    """Stop the stack while it trains headless, detached and in a kernel of the browser's."""
    run = ("docker", "compose", "exec", "-T", "jupyter", "trainlab", "run", "slow")
    foreground = subprocess.Popen(
        [*run, "--name", "foreground", *stoppable_notebook.SETTINGS],
        cwd=stack.folder,
        env=stack.whole_environment(),
    )
    stack.run(*run, "--name", "detached", *stoppable_notebook.SETTINGS, "--detach")
    execute(stack, f"margin, epochs, num_workers = 7.0, 1, 0\n{stoppable_notebook.CELL}")
    folders = [
        stoppable_notebook.at_work(stack.folder, name) for name in ("foreground", "detached", "margin7")
    ]
    began = time.monotonic()
    stack.compose("stop", "jupyter")
    seconds = time.monotonic() - began
    code = foreground.wait(20)
    return Stopped(*folders, code, seconds, stack.state("jupyter")["State"]["ExitCode"])


def test_a_stop_saves_what_each_training_has_within_its_grace_period(stopped):
    print(f"stopped after {stopped.seconds:.1f} s")
    assert stopped.container_code in (0, 143), "else the engine had to kill it"
    for folder in (stopped.foreground, stopped.detached, stopped.by_hand):
        known, steps = stoppable_notebook.record(folder), stoppable_notebook.curve(folder)
        assert known["status"] == "interrupted"
        assert steps[-1] < stoppable_notebook.STEPS - 1
        assert stoppable_notebook.newest_checkpoint(folder) == steps[-1] + 1, (
            "saved after the step at work, not before"
        )


def test_whoever_waits_for_a_headless_run_sees_143_and_the_record_says_sigterm(stopped):
    assert stopped.code == 143
    assert {
        stoppable_notebook.record(folder)["reason"] for folder in (stopped.foreground, stopped.detached)
    } == {"SIGTERM"}
    assert "interrupted after" in (stopped.detached / "output.log").read_text().splitlines()[-1]


def test_a_stopped_training_goes_on_after_up(stack, stopped):
    before = stoppable_notebook.curve(stopped.foreground)[-1] + 1
    stack.up()
    assert goes_on(stack, stopped.foreground.name) == stopped.foreground
    known = stoppable_notebook.record(stopped.foreground)
    assert known["status"] == "finished"
    assert known["resumes"][0]["step"] == before
    assert stoppable_notebook.curve(stopped.foreground) == list(range(stoppable_notebook.STEPS))


def test_a_training_goes_on_while_the_server_is_killed_and_started_again(stack):
    stack.up()
    stack.compose(
        "exec",
        "-T",
        "jupyter",
        "trainlab",
        "run",
        "slow",
        "--name=alone",
        *stoppable_notebook.SETTINGS,
        "--detach",
    )
    folder = stoppable_notebook.at_work(stack.folder, "alone")
    before = stack.state("jupyter")
    stack.inside("jupyter", f"{SERVER}; kill -KILL $server", check=False)
    steps = stoppable_notebook.curve(folder)[-1]
    until(lambda: status_of(stack.url("jupyter", "/api")) == 200, "the server is there again", 60)
    until(lambda: stoppable_notebook.curve(folder)[-1] > steps + 1, "the training goes on", 60)
    assert stoppable_notebook.record(folder)["status"] == "running"
    assert stack.state("jupyter")["State"]["StartedAt"] == before["State"]["StartedAt"]
    stack.compose("stop", "jupyter")
    assert stoppable_notebook.record(folder)["status"] == "interrupted"


def test_a_killed_training_is_found_dead_and_goes_on_in_a_new_container(stack):
    stack.up()
    stack.compose(
        "exec",
        "-T",
        "jupyter",
        "trainlab",
        "run",
        "slow",
        "--name=killed",
        *stoppable_notebook.SETTINGS,
        "--detach",
    )
    folder = stoppable_notebook.at_work(stack.folder, "killed")
    host = stoppable_notebook.record(folder)["host"]
    stack.compose("kill", "jupyter")
    stack.compose("down")
    stack.up()
    row = runs(stack)[f"slow/{folder.name}"]
    assert row["status"] == "interrupted", row
    assert "killed" in row["reason"]
    assert stoppable_notebook.newest_checkpoint(folder) >= 20
    assert goes_on(stack, "last") == folder
    assert stoppable_notebook.record(folder)["status"] == "finished"
    assert stoppable_notebook.record(folder)["host"] != host
    assert stoppable_notebook.curve(folder) == list(range(stoppable_notebook.STEPS))


@pytest.fixture(scope="module")
def small(stack: Stack) -> Stack:
    """The same stack with little memory."""
    stack.up(JUPYTER_MEMORY=MEMORY)
    return stack


def test_a_headless_run_out_of_memory_says_so_with_the_limit_and_the_server_stays_up(small):
    before = small.state("jupyter")
    done = small.compose("exec", "-T", "jupyter", "trainlab", "run", "hog", check=False)
    assert done.returncode == 1
    row = next(iter(runs(small).values()))
    assert (row["experiment"], row["status"]) == ("hog", "failed")
    assert "out of memory" in row["reason"]
    assert "600 MiB" in row["reason"]
    assert_untouched(small, before)


def test_a_kernel_of_the_browser_s_out_of_memory_is_listed_as_such(small):
    before, known = small.state("jupyter"), runs(small)
    execute(small, HOG)

    def new_row() -> dict[str, Any] | None:
        listing = small.inside("jupyter", LIST, check=False)
        if listing.returncode == 128 + signal.SIGKILL:
            return None  # the listing shares the limit, and may be what the machine's kernel chooses
        rows = [row for label, row in labelled(listing.stdout).items() if label not in known]
        return rows[0] if rows and rows[0]["status"] != "running" else None

    row = until(new_row, "the end of the kernel", 60)
    assert row["status"] == "interrupted", row
    assert "out of memory" in row["reason"]
    assert_untouched(small, before)


def assert_untouched(stack: Stack, before: dict[str, Any]) -> None:
    """Check that the server that was there is still there, and healthy."""
    after = stack.state("jupyter")
    assert (after["Id"], after["RestartCount"]) == (before["Id"], before["RestartCount"])
    assert after["State"]["StartedAt"] == before["State"]["StartedAt"]
    assert after["State"]["Health"]["Status"] == "healthy"
    assert "version" in stack.jupyter("GET", "/api", "given")
