"""The pictures of a run: those logged to its event files, the newest of each tag, and those in its folder.

Whoever wrote them, they are only ever handed on: nothing here decodes a picture.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from trainlab import untrusted
from trainlab.run import events, tfrecords
from trainlab.run.gathering import LONGEST_TAG
from trainlab.run.messages import Event

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

MOST = 100  # pictures of a run
LARGEST = 1 << 24  # bytes of one
KINDS = {  # what a picture's bytes begin with, and what that is called
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
}
SVG = "image/svg+xml"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".svg")
_EVENT = 1 << 25  # bytes of an event that is looked at


class Image(NamedTuple):
    """Where a picture lies: a file, and of an event file which bytes of it."""

    name: str  # its tag, or its path in the run's folder
    step: int | None  # None for a file of its own
    path: Path
    start: int = 0
    size: int = 0


def found(folder: Path) -> list[Image]:
    """Return a run's pictures by name: the newest of each tag, and image files in its folder or one below.

    What can't be read has none; of more than `MOST` the first are returned.
    """
    newest: dict[str, Image] = {}
    for path in events.files(folder):
        with suppress(OSError, tfrecords.GarbageError), untrusted.opened(path) as file:
            for place, block in tfrecords.blocks(file):
                start = place + tfrecords.HEADER.size
                for event in block:
                    if len(event) <= _EVENT and any(mark in event for mark in KINDS):
                        for tag, step, _ in _pictures(event):
                            if tag in newest or len(newest) < MOST:
                                newest[tag] = Image(tag, step, path, start, len(event))
                    start += len(event) + tfrecords.FRAME
    inside = [folder, *(each for each in _entries(folder) if each.is_dir() and not each.is_symlink())]
    files = [each for place in inside for each in _entries(place) if each.suffix.lower() in _SUFFIXES]
    own = (Image(each.relative_to(folder).as_posix(), None, each) for each in files if _is_file(each))
    return [*sorted(newest.values()), *own][:MOST]


def content(image: Image) -> tuple[bytes, str]:
    """Return a picture's bytes and what kind it is, such as 'image/png'.

    Raises OSError where it can't be read, is no picture any more, or too large.
    """
    if image.step is None:
        data = untrusted.content(image.path, LARGEST)
        if image.path.suffix.lower() == ".svg":
            return data, SVG
    else:
        with untrusted.opened(image.path) as file:
            file.seek(image.start)
            event = file.read(image.size)
        data = next((data for tag, _, data in _pictures(event) if tag == image.name), b"")
    kind = next((kind for mark, kind in KINDS.items() if data.startswith(mark)), None)
    if kind is None:
        raise OSError(0, "it is no picture", str(image.path))
    return data, kind


def _pictures(event: bytes) -> list[tuple[str, int, bytes]]:
    """Return an event's pictures: tag, step, bytes; of several that TensorFlow has put together the first."""
    try:
        parsed: Any = Event.FromString(event)
    except DecodeError:
        return []
    pictures = []
    for value in parsed.summary.value:
        data = value.image.encoded_image_string
        if len(value.tensor.string_val) > 2:
            data = value.tensor.string_val[2]  # behind its width and its height
        if data.startswith(tuple(KINDS)) and len(value.tag) <= LONGEST_TAG:
            pictures.append((value.tag, parsed.step, data))
    return pictures


def _entries(folder: Path) -> list[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(folder / each.name for each in entries)
    return []


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
