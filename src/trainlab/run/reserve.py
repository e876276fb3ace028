"""Room on the disk that is kept for a run's last words: how it ended can be written on a full disk, too."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FILE = ".reserve"
SIZE = 1 << 16  # bytes: a new run.json of some thousand settings and metrics, while the old one is there


def keep(folder: Path) -> None:
    """Take the room, if it is to be had."""
    with suppress(OSError):
        release(folder)  # a link of this name would lead to somebody's file
        with (folder / FILE).open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, SIZE)


def release(folder: Path) -> None:
    """Give it back."""
    with suppress(OSError):
        (folder / FILE).unlink(missing_ok=True)
