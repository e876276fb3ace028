"""Signs of life: a process holds a lock in a run's folder for as long as it lives; and a little room.

The kernel drops a flock with the process, however it ends, and shows it to every container that mounts the
folder, read-only too. A run that claims to be running while nobody holds a lock has died without a word.

Some network drives have no locks. There whoever keeps the lock's file open for writing holds it, as far as
this machine can see: what runs on another one is out of sight.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import re
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trainlab import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RUN = ".lock"  # held by the process that logs
RUNNER = ".runner.lock"  # held by the headless runner, whose notebook may use no Run at all
RESERVE = ".reserve"
RESERVE_SIZE = 1 << 16  # bytes: a new run.json of some thousand settings and metrics, beside the old one
_PATIENCE = 0.5  # seconds; a reader that looks at a lock holds it shared for some microseconds
_ATTENDS_EVERY = 0.5  # seconds
_NO_LOCKS = files.UNSUPPORTED | {errno.ENOLCK}
_PLAIN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # not by way of a link, and no waiting for a pipe

_held: set[int] = set()


class Lock:
    """An exclusive lock that this process holds until `release`, or until it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        _held.add(descriptor)

    def fileno(self) -> int:
        """Return the descriptor; a child process that inherits it holds the lock too."""
        return self._descriptor

    def release(self) -> None:
        """Let go; a second call, or one in a forked child, does nothing."""
        if self._descriptor in _held:
            _held.remove(self._descriptor)
            os.close(self._descriptor)


def hold(folder: Path, name: str = RUN, seconds: float = _PATIENCE) -> Lock | None:
    """Take the lock `name` in `folder` and return it, or None where another holder lives so many seconds."""
    _drop_in_forked_children()
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | _PLAIN, 0o666)
    deadline = time.monotonic() + seconds
    try:
        while not (locked := _locked(descriptor, fcntl.LOCK_EX)):
            if locked is None and [pid for pid, _ in _opened_by(folder / name)] == [os.getpid()]:
                _warn_of_no_locks()
                break
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(0.01)
    except BaseException:
        os.close(descriptor)
        raise
    return Lock(descriptor)


def attend(folder: Path) -> None:
    """Hold the runner's lock from when it is free until this process ends; others may have it before.

    Until then the open file says to `holders` that this process is one of a run's runners.
    """
    descriptor = os.open(folder / RUNNER, os.O_RDWR | os.O_CREAT | _PLAIN, 0o666)

    def wait() -> None:
        while _locked(descriptor, fcntl.LOCK_EX) is False:
            time.sleep(_ATTENDS_EVERY)

    threading.Thread(target=wait, daemon=True).start()


def alive(folder: Path) -> bool:
    """Tell whether some process holds one of the locks in `folder`; it may lie on a read-only mount."""
    return any(taken(folder, name) for name in (RUN, RUNNER))


def taken(folder: Path, name: str) -> bool:
    """Tell whether some process holds the lock `name` in `folder`."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | _PLAIN)
    except OSError:
        return False
    try:
        locked = _locked(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
    return any(_opened_by(folder / name)) if locked is None else not locked


def holders(folder: Path, names: Sequence[str] = (RUNNER, RUN)) -> Iterator[int]:
    """Yield the processes in reach that hold a run's locks: the headless runner first, then whoever logs."""
    for name in names:
        if taken(folder, name):
            found = [*_opened_by(folder / name)]
            # without the kernel's word for it, on network drives, whoever has the file open
            yield from [pid for pid, locked in found if locked] or [pid for pid, _ in found]


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes and threads out while `run.json` is read, changed and written."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks for folders: the write itself is atomic anyway
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def keep_reserve(folder: Path) -> None:
    """Take room on the disk, if it is to be had: how a run ended can be written on a full disk, too."""
    with suppress(OSError):
        release_reserve(folder)  # a link of this name would lead to somebody's file
        with (folder / RESERVE).open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_SIZE)


def release_reserve(folder: Path) -> None:
    """Give the room back."""
    with suppress(OSError):
        (folder / RESERVE).unlink(missing_ok=True)


def _locked(descriptor: int, kind: int) -> bool | None:
    """Try to take a lock, and tell whether it was to be had; None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # SMB says the latter
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _opened_by(path: Path) -> Iterator[tuple[int, bool]]:
    """Yield the processes that we may look at and that have a file open for writing, and whether locked."""
    known = path.stat()
    for each in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if each.readlink().name.endswith(path.name) and os.path.samestat(each.stat(), known):
                facts = Path(each.parents[1], "fdinfo", each.name).read_text()
                if re.search(r"^flags:\s*\d*2$", facts, re.MULTILINE):
                    yield int(each.parts[2]), "FLOCK" in facts


@functools.cache
def _warn_of_no_locks() -> None:
    print(
        "warning: the runs lie on storage without locks: two processes on different machines could write to "
        "one run unnoticed. Train each run in one place at a time.",
        file=sys.stderr,
    )


@functools.cache
def _drop_in_forked_children() -> None:
    """Close what forked children inherit: a data loader's worker must not keep a dead run alive."""

    def forget() -> None:
        while _held:
            os.close(_held.pop())

    os.register_at_fork(after_in_child=forget)
