"""What the processes of tests/training/test_team.py do; they import it from here."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

FOREVER = 60


def describe(rank: int) -> bytes:
    print(f"here is {rank}")
    assert int(os.environ["MASTER_PORT"])
    return f"{os.environ['LOCAL_RANK']} {os.environ['MASTER_ADDR']}".encode()


def fail(rank: int) -> None:
    if rank == 1:
        raise ValueError("no such luck")
    time.sleep(FOREVER)


class OddError(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def fail_oddly(rank: int) -> None:
    raise OddError(1, 2)


def die(rank: int) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    raise RuntimeError("connection closed by peer")


class Wait:
    """Waits, and tells of its process and of the signals that it gets."""

    def __init__(self, folder: Path, save: bool = True) -> None:
        self.folder, self.save = folder, save

    def __call__(self, rank: int) -> None:
        if self.save:
            signal.signal(signal.SIGTERM, self._save)
            signal.signal(signal.SIGINT, self._save)
        (self.folder / f"process-{rank}").write_text(str(os.getpid()))
        time.sleep(FOREVER)

    def _save(self, number: int, _: object) -> None:
        (self.folder / "saved").write_text(f"{os.environ['LOCAL_RANK']} {signal.Signals(number).name}")
        sys.exit(128 + number)


class WaitDeaf(Wait):
    def _save(self, number: int, _: object) -> None:
        (self.folder / "heard").touch()


class WaitSaving(Wait):
    """Is in the midst of a save when the second signal comes."""

    def _save(self, number: int, _: object) -> None:
        unfinished = self.folder / "checkpoints/.whole.0123abcd.tmp"
        unfinished.parent.mkdir()
        unfinished.touch()
        (self.folder / "heard").touch()
        time.sleep(1)
        unfinished.rename(unfinished.with_name("whole"))
