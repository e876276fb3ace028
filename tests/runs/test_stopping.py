"""`trainlab stop`, `trainlab logs`, and what is said of a run that was stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from headless import COMMAND, Lab, until
from trainlab.errors import UserError
from trainlab.runs import checkpoint, lock, record, stopping, viewer
from trainlab.runs.run import Run

TRAINLAB = COMMAND[:-1]
WAITING = """
import sys, time, trainlab
from pathlib import Path
from trainlab.runs import checkpoint
with trainlab.Run("plain", logs=Path(sys.argv[1]), monitor=False) as run:
    checkpoint.save({"step": 240}, run.checkpoints / "step-00000240.ckpt")
    print(run.folder, flush=True)
    time.sleep(600)
"""
LONG = """
import time
for second in range(6000):
    print("second", second, flush=True)
    time.sleep(0.1)
"""


class Script:
    """A script that logs to a run."""

    def __init__(self, logs: Path, *words: str) -> None:
        command = [sys.executable, "-c", textwrap.dedent(WAITING), logs, *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.folder = Path(self.process.stdout.readline().strip())


@pytest.fixture
def script(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Script]:
    """It ends with the test."""
    started = Script(tmp_path, *getattr(request, "param", ()))
    yield started
    started.process.kill()
    started.process.communicate()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that nobody is to stop."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_run_is_stopped_and_it_is_said_what_was_saved(script: Script) -> None:
    assert list(stopping.holders(script.folder)) == [script.process.pid]
    name = script.folder.name
    assert stopping.stop(script.folder) == (
        f'{name}: interrupted, saved at step 240. Go on with resume="{name}"'
    )
    assert script.process.wait(60) == 143
    assert record.read(script.folder).status == "interrupted"
    with pytest.raises(UserError, match="is not at work"):
        stopping.stop(script.folder)


def test_a_process_that_has_a_dead_run_s_number_or_reads_its_lock_is_left_alone(
    script: Script, bystander: subprocess.Popen[bytes]
) -> None:
    record.update(script.folder, pid=bystander.pid)
    with (script.folder / lock.RUN).open():
        assert list(stopping.holders(script.folder)) == [script.process.pid], "and not this process"
        assert not stopping.signalled(script.folder, bystander.pid, signal.SIGKILL)
        assert not stopping.signalled(script.folder, os.getpid(), signal.SIGKILL)
        stopping.stop(script.folder)
    assert bystander.poll() is None


def test_a_run_that_is_at_work_elsewhere_is_named_with_its_place(
    script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record.update(script.folder, host="other-machine")
    monkeypatch.setattr(stopping, "PROC", tmp_path / "no-proc")
    with pytest.raises(UserError, match=rf"process {script.process.pid} on other-machine"):
        stopping.stop(script.folder)
    assert script.process.poll() is None


@pytest.mark.parametrize("script", [["ipykernel_launcher"]], indirect=True)
def test_a_notebook_s_kernel_is_interrupted_and_not_ended(script: Script) -> None:
    stopping.stop(script.folder)
    assert script.process.wait(60) == -signal.SIGINT
    assert record.read(script.folder).reason == "KeyboardInterrupt"


def test_a_run_that_does_not_end_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "PATIENCE", -stopping.MARGIN)
    monkeypatch.setattr(stopping.signal, "pidfd_send_signal", lambda *_: None)
    run = Run("deaf", logs=tmp_path, monitor=False)
    with pytest.raises(UserError, match=f"does not end. Without saving anything: kill -9 {os.getpid()}"):
        stopping.stop(run.folder)
    run.finish()


@pytest.mark.parametrize(("make", "told"), [("", "trainlab run mine --resume"), ("1", 'make run ARGS="mine')])
def test_how_to_go_on_is_said_for_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: str, told: str
) -> None:
    monkeypatch.setenv("TRAINLAB_NOTEBOOKS", str(tmp_path))
    monkeypatch.delenv(stopping.MAKE, raising=False)
    if make:
        monkeypatch.setenv(stopping.MAKE, make)
    with Run("mine", logs=tmp_path, monitor=False) as run:
        checkpoint.save({"step": 7}, run.checkpoints / "step-00000007.ckpt")
        run.update(notebook=str(tmp_path.resolve() / "mine.ipynb"))
    said = stopping.outcome(run.folder)
    assert said.startswith("saved at step 7. Go on: ")
    assert told in said
    assert run.name in said


def command(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TRAINLAB, *words], env=lab.environment, capture_output=True, text=True, check=False
    )


def test_a_detached_run_is_shown_followed_and_stopped_by_the_commands_that_it_prints(lab: Lab) -> None:
    lab.notebook("long", LONG)
    folder, follow, stop = lab.run("long", "--detach").stdout.splitlines()
    name = Path(folder).name
    assert (follow, stop) == (f"follow: trainlab logs {name}", f"stop: trainlab stop {name}")
    until(lambda: "second 3" in lab.log(), "the cell")
    assert "second 3\n" in command(lab, "logs", name).stdout
    shown = command(lab, "runs", "show", name).stdout
    assert f"to stop it: trainlab stop {name}" in shown
    (worker,) = stopping.holders(lab.folder())
    assert f"{worker} on " in shown
    done = command(lab, "stop", name)
    assert (done.returncode, done.stdout) == (0, f"{name}: interrupted, no checkpoint was saved.\n"), done
    assert lab.record()["reason"] == "SIGTERM"
    last = lab.log().splitlines()[-1]
    assert last.startswith("interrupted after")
    assert last.endswith("by SIGTERM: no checkpoint was saved.")
    assert "Traceback" not in lab.log()
    again = command(lab, "stop", name)
    assert (again.returncode, again.stdout) == (2, "")
    assert "is not at work" in again.stderr


def test_the_log_of_a_run_that_has_none_is_explained(lab: Lab) -> None:
    with Run("plain", logs=lab.root / "logs", monitor=False):
        pass
    done = command(lab, "logs", "last")
    assert done.returncode == 2
    assert "was not started by `trainlab run`" in done.stderr


def test_a_log_from_elsewhere_does_not_steer_the_terminal() -> None:
    hostile = b"\x1b]0;title\x07\x1b[2J\xc2\x9b2J\x1bc\x08 \x1b"
    assert viewer._harmless(hostile) == b"?]0;title??[2J?2J?c\x08 ?"
    kept = b"\x1b[31mred\x1b[0m\r 10%\x1b[K\x1b[A\n\t\xc3\xa9\n"
    assert viewer._harmless(kept) == kept
