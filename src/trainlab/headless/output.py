"""The end of what a headless run has printed, as plain text: however long it is, only that is read."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from trainlab import cleaning, secrets, untrusted
from trainlab.headless.place import LOG

if TYPE_CHECKING:
    from pathlib import Path

TAIL = 1 << 16  # bytes that are shown,
MARGIN = 1 << 12  # and before them so many that are read: a secret may begin there
MOST = 8  # files: each host of several prints into its own
_COLOURS = re.compile(
    r"\x1b\[[0-9;?:]*[A-Za-z]|\x08"
)  # and moves of the cursor, which `cleaning.Output` keeps


def tails(folder: Path) -> list[tuple[str, str]]:
    """Return the files that a run's processes print into, each with the end of it; links are none."""
    stem, _, suffix = LOG.partition(".")
    found = []
    for path in sorted(folder.glob(f"{stem}*.{suffix}"))[:MOST]:
        with suppress(OSError):
            found.append((path.name, tail(path)))
    return found


def tail(path: Path) -> str:
    """Return the end of a file, less secrets and what steers a terminal; of a progress bar its last state.

    Raises OSError for what can't be read, or is no file.
    """
    with untrusted.opened(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL - MARGIN))
        content = file.read(TAIL + MARGIN)
    text = _plain(content)
    if size > len(content):  # from a line's start, if there is one, behind whatever began before
        text = text[len(_plain(content[:MARGIN])) :]
        text = text.partition("\n")[2] or text
    shown = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return cleaning.lines("\n".join(shown))


def _plain(content: bytes) -> str:
    text = cleaning.Output().feed(content.decode(errors="replace"))
    return secrets.without_secrets(_COLOURS.sub("", text))
