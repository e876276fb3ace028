"""Files that are either the old ones or the new ones, whole, whatever dies in between."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; on leaving, sync it to disk and rename it to `path`.

    An exception, inside or while syncing, removes the temporary file and leaves `path` as it was.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write(path: Path, content: bytes) -> None:
    """Replace the content of `path` atomically."""
    with replacing(path) as file:
        file.write(content)


def link(path: Path, target: Path) -> None:
    """Replace `target` atomically by a hard link to `path`, or by a copy where there are no links."""
    temporary = _temporary(target)
    try:
        os.link(path, temporary)
    except OSError:
        with path.open("rb") as source, replacing(target) as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        return
    try:
        temporary.replace(target)
        _sync_folder(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()  # it is still there where both names meant one file already, too


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut; some network file systems can't, and say EINVAL."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
