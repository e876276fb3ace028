"""What watches a worker: readable in a pipe, faithful in a terminal, and free to leave."""

from __future__ import annotations

import io
import signal
import subprocess
import sys

import pytest

from trainlab.headless import launcher

FOLLOW = """
import subprocess, sys
from pathlib import Path
from trainlab.headless.launcher import tail_log
worker = subprocess.Popen(["sh", "-c", sys.argv[2]], stderr=subprocess.DEVNULL, start_new_session=True)
print(worker.pid, file=sys.stderr, flush=True)
sys.exit(tail_log(worker, Path(sys.argv[1])))
"""


def test_a_pipe_gets_whole_lines_and_the_last_state_of_a_progress_bar():
    out = io.BytesIO()
    lines = launcher.Screen(out)
    for piece in (b"one\nt", b"wo\n", b"\r 10%", b"\r 20%", b"\r100%\n", b"end"):
        lines.write(piece)
    assert out.getvalue() == b"one\ntwo\n100%\n"
    lines.close()
    assert out.getvalue() == b"one\ntwo\n100%\nend\n"


def test_a_pipe_gets_a_state_of_a_long_progress_bar_now_and_then(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(launcher.time, "monotonic", lambda: clock[0])
    out = io.BytesIO()
    lines = launcher.Screen(out)
    for second in range(100):
        clock[0] = second
        lines.write(b"\r%d%%" % second)
    assert out.getvalue().split() == [b"11%", b"22%", b"33%", b"44%", b"55%", b"66%", b"77%", b"88%", b"99%"]


def test_a_terminal_gets_everything_as_it_is():
    out = io.BytesIO()
    out.isatty = lambda: True
    terminal = launcher.Screen(out)
    for piece in (b"\r10%", b"\r20%", b"\n"):
        terminal.write(piece)
    assert out.getvalue() == b"\r10%\r20%\n"


@pytest.mark.parametrize(("worker", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("exit 0", 0)])
def test_the_worker_s_end_becomes_the_exit_code(tmp_path, worker, code):
    log = tmp_path / "output.log"
    log.write_text("printed before the end\n")
    command = [sys.executable, "-c", FOLLOW, log, worker]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout == "printed before the end\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_broken_pipe_ends_the_viewer_quietly_and_not_the_worker(tmp_path, monkeypatch, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    log = tmp_path / "output.log"
    log.write_text("line\n" * 100_000)
    pipe = subprocess.PIPE
    following = subprocess.Popen(
        [sys.executable, "-c", FOLLOW, log, "read x"], stdin=pipe, stdout=pipe, stderr=pipe
    )
    following.stdout.read(10)
    following.stdout.close()
    assert following.wait(20) == 128 + signal.SIGPIPE
    pid, *errors = following.stderr.read().decode().splitlines()
    assert errors == []
    assert subprocess.run(["kill", "-0", pid], check=False).returncode == 0  # it still waits for its input
    following.stdin.close()
    following.stderr.close()
