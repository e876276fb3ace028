"""A pseudo-terminal with a command in front, as a person has one."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CTRL_C = "\x03"


class Terminal:
    """A command with a terminal of its own: what it prints, and what is typed."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.keyboard, screen = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            cwd=folder,
            env=environment | {"TERM": "xterm"},
            stdin=screen,
            stdout=screen,
            stderr=screen,
        )
        os.close(screen)
        self.said = ""

    def type(self, keys: str) -> None:
        os.write(self.keyboard, keys.encode())

    def until(self, words: str, seconds: float = 60) -> str:
        """Wait until these words, or with "" the end of the command; return all that was printed."""
        deadline = time.monotonic() + seconds
        while not words or words not in self.said:
            left = deadline - time.monotonic()
            assert left > 0, f"not within {seconds:.0f} s: {words!r}\n{self.said}"
            if select.select([self.keyboard], [], [], left)[0]:
                try:
                    self.said += os.read(self.keyboard, 4096).decode(errors="replace")
                except OSError:  # Linux's word for: nobody has it open any more
                    break
        assert words in self.said, self.said
        return self.said


@contextmanager
def in_terminal(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[Terminal]:
    """Start a command in a terminal; close the terminal at the end, which ends what is still there."""
    terminal = Terminal(command, folder, environment)
    try:
        yield terminal
    finally:
        os.close(terminal.keyboard)
        terminal.process.wait(60)
