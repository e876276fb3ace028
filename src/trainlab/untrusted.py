"""Files in `logs/` as an enemy may have made them: regular ones alone are read, no links, never without end.

A pipe would block whoever opens it, a device may have no end, and a link may lead anywhere.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

DEEPEST = 50  # lists and objects inside each other: more would end somebody's recursion
_LONGEST_NUMBER = 300  # digits: what has more is no float, and takes long to print
_MIB = 1 << 20


def opened(path: Path) -> IO[bytes]:
    """Open a regular file to read; raise OSError for anything else, without waiting for it."""
    _check(path, os.lstat(path).st_mode)
    return _open(path, os.O_RDONLY, "rb")


def appended(path: Path) -> IO[bytes]:
    """Open a regular file to write behind its end, made if need be; raise OSError for anything else."""
    return _open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, "ab")


def _open(path: Path, flags: int, mode: Literal["rb", "ab"]) -> IO[bytes]:
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        _check(path, os.fstat(descriptor).st_mode)  # it may be another one by now
        return os.fdopen(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise


def content(path: Path, most: int) -> bytes:
    """Return what a regular file holds; raise OSError for anything else, or for more than `most` bytes."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        found = b"" if size > most else file.read(most + 1)
    if max(size, len(found)) > most:
        fault = f"larger than {most / _MIB:g} MiB, which is the most that is read"
        raise OSError(errno.EFBIG, fault, str(path))
    return found


def parsed(text: bytes) -> Any:
    """Return JSON as it is parsed; NaN and infinity become text, and so do numbers that no float can be.

    Raises ValueError where it is no JSON, or lies too deep inside itself.
    """

    def integer(digits: str) -> int | str:
        return int(digits) if len(digits) <= _LONGEST_NUMBER else f"{digits[:10]}… ({len(digits)} digits)"

    try:
        found = json.loads(text, parse_constant=str, parse_int=integer)
    except RecursionError:
        raise ValueError(f"more than {DEEPEST} lists and objects inside each other") from None
    _check_depth(found, DEEPEST)
    return found


def is_odd(entry: os.DirEntry[str]) -> bool:
    """Tell whether a name in a folder is neither a file nor a folder: a link to a file, a pipe, a device."""
    return not entry.is_file(follow_symlinks=False) and not is_folder(entry)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether a name in a folder is a folder, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _check(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder"}.get(stat.S_IFMT(mode), "a pipe or a device")
        raise OSError(errno.EINVAL, f"{kind}, and only files are read", str(path))


def _check_depth(value: Any, left: int) -> None:
    if not isinstance(value, dict | list):
        return
    if not left:
        raise ValueError(f"more than {DEEPEST} lists and objects inside each other")
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, dict | list):
            _check_depth(each, left - 1)
