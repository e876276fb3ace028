"""Shows a worker's log as it grows. Whoever watches may leave: the worker does not notice."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

PASSED_ON = (signal.SIGINT, signal.SIGTERM)
PAUSE = 0.1  # seconds between two looks at the log
# Escapes other than for colours, the end of a line and a line up; bells and the like; their forms in one byte
STEERING = re.compile(rb"\x1b(?!\[[0-9;]*[mKA])|[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]|\xc2[\x80-\x9f]")
STATE_EVERY = 10.0  # seconds between two states of one progress bar, where they can't overwrite each other


class Terminal:
    """Shows everything as it is; progress bars move."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out

    def write(self, data: bytes) -> None:
        """Show what is new."""
        if data:
            self.out.write(data)
            self.out.flush()

    def close(self) -> None:
        """Nothing is held back."""


class Lines(Terminal):
    """For a pipe or a file: whole lines, and of a moving progress bar a state now and then."""

    def __init__(self, out: BinaryIO) -> None:
        super().__init__(out)
        self.line = b""
        self.shown = time.monotonic()

    def write(self, data: bytes) -> None:
        """Show the lines that are complete."""
        *lines, self.line = (self.line + data).split(b"\n")
        super().write(b"".join(_last_state(line) + b"\n" for line in lines))
        if b"\r" in self.line:
            self.line = b"\r" + _last_state(self.line)
            if time.monotonic() - self.shown > STATE_EVERY and data:
                self.shown = time.monotonic()
                super().write(self.line[1:] + b"\n")

    def close(self) -> None:
        """Show an unfinished last line."""
        super().write(_last_state(self.line) + b"\n" if self.line else b"")


def tail_log(worker: subprocess.Popen[bytes], log: Path, seen: int = 0) -> int:
    """Show the log, less the bytes `seen`, until the worker ends; return its exit code as a shell counts it.

    Ctrl-C and SIGTERM go to the worker. Where nobody reads any more the viewer leaves, with SIGPIPE's code.
    """
    before = {each: signal.signal(each, lambda number, _: worker.send_signal(number)) for each in PASSED_ON}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    try:
        # not sys.stdout.buffer, which under PYTHONUNBUFFERED writes a part and forgets the rest
        with open(sys.stdout.fileno(), "wb", closefd=False) as out, log.open("rb") as growing:
            growing.seek(seen)
            code = _show(worker, growing, Terminal(out) if out.isatty() else Lines(out))
    except OSError:  # a broken pipe, or a terminal that is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own last flush
        return 128 + signal.SIGPIPE
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    return code if code >= 0 else 128 - code


def show(log: Path, at_work: Callable[[], bool]) -> None:
    """Show a log; in a terminal also what is added to it, for as long as somebody is at work on it."""
    with open(sys.stdout.fileno(), "wb", closefd=False) as out, log.open("rb") as growing:
        screen = Terminal(out) if out.isatty() else Lines(out)
        while True:
            more = out.isatty() and at_work()  # before reading: nothing comes after its end
            screen.write(_harmless(growing.read()))
            if not more:
                screen.close()
                return
            time.sleep(PAUSE)


def _show(worker: subprocess.Popen[bytes], growing: BinaryIO, screen: Terminal) -> int:
    while True:
        code = worker.poll()  # before reading: nothing comes after its end
        screen.write(growing.read())
        if code is not None:
            screen.close()
            return code
        time.sleep(PAUSE)


def _harmless(text: bytes) -> bytes:
    """Return a text, perhaps from elsewhere, less what steers a terminal; colours and bars stay."""
    return STEERING.sub(b"?", text)


def _last_state(line: bytes) -> bytes:
    """Return what a terminal shows of a line with carriage returns in it."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]
