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

from lab import COMMAND, Lab
from trainlab.errors import UserError
from trainlab.headless import launcher
from trainlab.headless.place import LOG
from trainlab.run import checkpoint, lock, record, stopping
from trainlab.run.run import Run
from trainlab.runs import listing
from waiting import until

TRAINLAB = COMMAND[:-1]
WAITING = """
import sys, time, trainlab
from pathlib import Path
from trainlab.run import checkpoint
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


def start(body, logs):
    """Start a script whose `logs` is a folder."""
    script = "from pathlib import Path\nimport sys, time, trainlab\nlogs = Path(sys.argv[1])\n"
    command = [sys.executable, "-c", script + textwrap.dedent(body), str(logs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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
    assert [*lock.holders(script.folder)] == [script.process.pid]
    name = script.folder.name
    assert stopping.stop(script.folder) == (
        f'{name}: interrupted, saved at step 240. Resume it with resume="{name}"'
    )
    assert script.process.wait(60) == 143
    assert record.read(script.folder).status == "interrupted"
    with pytest.raises(UserError, match="is not running"):
        stopping.stop(script.folder)


def test_a_process_that_has_a_dead_run_s_number_or_reads_its_lock_is_left_alone(
    script: Script, bystander: subprocess.Popen[bytes]
) -> None:
    record.update(script.folder, pid=bystander.pid)
    with (script.folder / lock.RUN).open():
        assert [*lock.holders(script.folder)] == [script.process.pid], "and not this process"
        assert not stopping.signalled(script.folder, bystander.pid, signal.SIGKILL)
        assert not stopping.signalled(script.folder, os.getpid(), signal.SIGKILL)
        stopping.stop(script.folder)
    assert bystander.poll() is None


def test_a_run_that_is_at_work_elsewhere_is_named_with_its_place(
    script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record.update(script.folder, host="other-machine")
    monkeypatch.setattr(lock, "holders", lambda _: iter(()))
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
    monkeypatch.setattr(stopping.psutil.Process, "send_signal", lambda *_: None)
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
    assert said.startswith("saved at step 7. Resume it: ")
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
    (worker,) = lock.holders(lab.folder())
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
    assert "is not running" in again.stderr


def test_the_log_of_a_run_that_has_none_is_explained(lab: Lab) -> None:
    with Run("plain", logs=lab.root / "logs", monitor=False):
        pass
    done = command(lab, "logs", "last")
    assert done.returncode == 2
    assert "was not started by `trainlab run`" in done.stderr


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"\x1b]0;title\x07\x1b[2J\xc2\x9b2J\x1bc\x08 \x1b\n", b"?]0;title??[2J?2J?c\x08 ?\n"),
        (b"\x1b[31mred\x1b[0m\x1b[K\x1b[A\n\t\xc3\xa9\n", b"\x1b[31mred\x1b[0m\x1b[K\x1b[A\n\t\xc3\xa9\n"),
    ],
    ids=["what steers a terminal", "colours and bars"],
)
def test_a_log_from_elsewhere_does_not_steer_the_terminal(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], printed: bytes, shown: bytes
) -> None:
    log = tmp_path / LOG
    log.write_bytes(printed)
    launcher.show_log(log, lambda: False)
    assert capfdbinary.readouterr().out == shown


SAVING = """
    from trainlab.run import checkpoint
    with trainlab.Run("plain", logs=logs, monitor=False) as run:
        checkpoint.save({"step": 240}, run.checkpoints / "step-00000240.ckpt")
        print(run.folder, flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "code", "by"), [(signal.SIGINT, -signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_script_that_is_stopped_says_what_was_saved_and_how_to_go_on(tmp_path, number, code, by):
    script = start(SAVING, tmp_path)
    folder = Path(script.stdout.readline().strip())
    script.send_signal(number)
    out, errors = script.communicate(timeout=60)
    assert script.returncode == code
    assert out == f'interrupted by {by}: saved at step 240. Resume it with resume="{folder.name}"\n'
    assert errors == ""


def test_a_second_ctrl_c_while_the_end_is_written_adds_no_traceback(tmp_path):
    body = """
        import os, signal
        from trainlab.run import record
        written = record.write_end
        def end(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGINT)
            return written(*args, **kwargs)
        record.write_end = end
        with trainlab.Run("plain", logs=logs, monitor=False) as run:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
    """
    script = start(body, tmp_path)
    out, errors = script.communicate(timeout=60)
    assert (script.returncode, errors) == (-signal.SIGINT, "")
    assert out == "interrupted by Ctrl-C: no checkpoint was saved.\n"
    assert listing.rows(tmp_path)[0].status == "interrupted"


def test_what_a_script_did_not_expect_keeps_its_traceback(tmp_path):
    script = start(
        """
        try:
            with trainlab.Run("plain", logs=logs, monitor=False) as run:
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        with trainlab.Run("plain", logs=logs, monitor=False) as run:
            raise ValueError("loss is NaN")
        """,
        tmp_path,
    )
    errors = script.communicate(timeout=60)[1]
    assert "Traceback" in errors
    assert errors.endswith("ValueError: loss is NaN\n")


def test_an_interruption_stays_one_where_nobody_can_read_what_was_saved(tmp_path, monkeypatch):
    closed = (tmp_path / "closed").open("w")
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), Run("news", logs=tmp_path, monitor=False):
        raise KeyboardInterrupt
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_notebook_s_cell_that_is_interrupted_shows_no_traceback(tmp_path):
    from IPython.core.interactiveshell import InteractiveShell

    with pytest.raises(KeyboardInterrupt) as caught, Run("news", logs=tmp_path, monitor=False):
        raise KeyboardInterrupt
    shell, shown = InteractiveShell(), []
    shell._showtraceback = lambda kind, value, lines: shown.extend(lines)
    shell.showtraceback((caught.type, caught.value, caught.tb))
    assert shown == ["KeyboardInterrupt"]


def test_a_tensorboard_without_a_port_is_shown_behind_the_login(monkeypatch):
    monkeypatch.setenv("TENSORBOARD_PORT", "off")
    monkeypatch.setenv("JUPYTER_PORT", "9001")
    assert stopping.page("news/one").startswith("http://127.0.0.1:9001/tensorboard/?runFilter=news/one")


@pytest.mark.parametrize(("port", "shown"), [("443", ""), ("", ""), ("8443", ":8443")])
def test_in_a_shared_stack_tensorboard_is_shown_at_the_one_address(monkeypatch, port, shown):
    monkeypatch.setenv("TENSORBOARD_PORT", "6006")
    monkeypatch.setenv("SHARE", "lab.example.org")
    monkeypatch.setenv("SHARE_PORT", port)
    wanted = f"https://lab.example.org{shown}/tensorboard/?runFilter=news/a.b#timeseries"
    assert stopping.page("news/a+b") == wanted


def test_a_port_that_only_another_user_may_read_stops_no_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINLAB_ROOT", str(tmp_path))
    monkeypatch.delenv("TENSORBOARD_PORT", raising=False)

    def closed(self, *_arguments, **_options):
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / ".stack").mkdir()
    (tmp_path / ".stack/tensorboard.port").write_text("7007\n")
    assert ":7007/" in stopping.page("news/one")
    for name in ("stat", "open"):
        monkeypatch.setattr(Path, name, closed)
    assert ":6006/" in stopping.page("news/one")
