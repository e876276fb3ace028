"""Holds TensorBoard's port and keeps TensorBoard going: keeper.py HOST:PORT LOGS.

In the place of HOST:PORT stands a path with a slash in it, of a Unix socket, where it has no port of its own.

The port is never free while this runs, whatever becomes of TensorBoard: nobody else can take its place.
TensorBoard's data server dies of a single record with an impossible length, or loses the thread that looks
for new runs, and TensorBoard goes on as if nothing had happened. So it is watched here: what broke it is
named and left out, and it is started again.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
LARGEST = 256 * MIB  # bytes of a record; the data server can hand on no larger one
LINE = 1024  # connections that may wait while TensorBoard starts
OPEN_FILES = 1 << 16  # the data server holds every event file open
SPARE_FILES = 256  # for all else that it opens, and for the runs that begin until they are counted again
LOOK, COUNT = 3, 60  # seconds between two looks at TensorBoard, and at the number of event files
LONGEST_PAUSE = 60  # seconds
SCAN = 120  # seconds for looking through all event files
PROC = Path("/proc")


def masked_crc(data: bytes) -> int:
    """Return the checksum that precedes and follows a record's data: CRC-32C, rotated, plus a constant.

    https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/lib/hash/crc32c.h
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def oversized_record(path: Path) -> str | None:
    """Return what is wrong with an event file that the data server would die of, or None."""
    offset = 0
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            length, crc = struct.unpack("<QI", head)
            if length > LARGEST:
                if crc != masked_crc(head[:8]):
                    return None  # the data server sees that itself, and stops there
                return f"at byte {offset} it announces a record of {length} bytes, more than {LARGEST}"
            offset += 12 + length + 4
            file.seek(offset)
    return None


def event_files(logs: Path) -> Iterator[Path]:
    """Yield the files that the data server reads: it follows links, but not into a folder that it is in."""
    folders: list[tuple[Path, tuple[tuple[int, int], ...]]] = [(logs, ())]
    while folders:
        folder, above = folders.pop()
        try:
            known = folder.stat()
            entries = list(folder.iterdir())
        except OSError:
            continue
        own = (known.st_dev, known.st_ino)
        for entry in entries:
            try:
                if entry.is_dir() and own not in above:
                    folders.append((entry, (*above, own)))
                elif "tfevents" in entry.name and entry.is_file():
                    yield entry
            except OSError:
                continue


class View:
    """The folder that TensorBoard is shown: logs/ itself, or links to all of it but what breaks it.

    Args:
        logs: The folder of all runs.
        most: How many event files the data server can hold open. Where there are more it shows none at all.
    """

    def __init__(self, logs: Path, most: int) -> None:
        self.logs = logs.absolute()
        self.most = most
        self.count = 0  # event files that are shown, when they were last counted
        self.left_out: set[Path] = set()  # files and folders
        self.links: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder to be served."""
        return self.links or self.logs

    def leave_out_what_is_too_much(self) -> str | None:
        """Of more event files than can be open leave out the oldest, with room for new ones, and say so."""
        files = self._shown()
        self.count = len(files)
        if len(files) <= self.most:
            return None
        newest: dict[Path, float] = {}
        for path in files:
            with suppress(OSError):
                newest[path.parent] = max(newest.get(path.parent, 0.0), path.stat().st_mtime)
        sizes = Counter(path.parent for path in files)
        kept, room = set(), 0.9 * self.most
        for folder in sorted(newest, key=lambda folder: newest[folder], reverse=True):
            room -= sizes[folder]
            if room < 0:
                break
            kept.add(folder)
        above = {parent for folder in kept for parent in folder.parents}
        too_much = [path for path in files if path.parent not in kept]
        self.left_out |= {path if path.parent in above else path.parent for path in too_much}
        self.count = len(files) - len(too_much)
        self._link()
        return (
            f"logs/ holds {len(files)} event files, and {self.most} may be open: the newest {self.count} are "
            "shown. Raise the limit (ulimit -n), or move old runs elsewhere; `trainlab runs` lists all."
        )

    def is_full(self) -> bool:
        """Say whether more event files are shown by now than can be open."""
        self.count = len(self._shown())
        return self.count > self.most

    def _shown(self) -> list[Path]:
        hidden = self.left_out
        return [
            path
            for path in event_files(self.logs)
            if path not in hidden and not any(parent in hidden for parent in path.parents)
        ]

    def _link(self) -> None:
        """Show links from now on."""
        self.links = self.links or Path(tempfile.mkdtemp(prefix="trainlab-board-"))
        self.update()

    def leave_out_what_breaks(self) -> list[str]:
        """Look through all event files; leave out those that break the data server, and return why, each."""
        found, end = [], time.monotonic() + SCAN
        for path in self._shown():
            try:
                wrong = oversized_record(path)
            except OSError:
                continue
            if wrong:
                self.left_out.add(path)
                name = ascii(str(path.relative_to(self.logs)))
                found.append(f"{name} in logs/ is not shown: {wrong}. Delete it; everything else is shown.")
            if time.monotonic() > end:
                break
        if found:
            self._link()
        return found

    def update(self) -> None:
        """Bring the links in step with logs/."""
        if self.links:
            self._update(self.logs, self.links, {parent for path in self.left_out for parent in path.parents})

    def _update(self, real: Path, links: Path, above: set[Path]) -> None:
        """Link to each entry of a folder but those left out; a folder above one of them is made instead."""
        try:
            wanted = {entry.name for entry in real.iterdir() if entry not in self.left_out}
        except OSError:
            wanted = set()
        for old in [path for path in links.iterdir() if path.name not in wanted]:
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        for name in wanted:
            source, link = real / name, links / name
            if source in above:
                if link.is_symlink():
                    link.unlink()
                link.mkdir(exist_ok=True)
                self._update(source, link, above)
            elif not link.is_symlink():
                link.symlink_to(source)

    def remove(self) -> None:
        """Remove the links."""
        if self.links:
            shutil.rmtree(self.links, ignore_errors=True)


class DataServer:
    """TensorBoard's data server, a process of its own, as seen from outside."""

    def __init__(self, board: int) -> None:
        self.board, self.pid = board, 0  # 0: not seen yet; on some processors there is none

    def trouble(self) -> str | None:
        """Return what has become of it, or None where all is well."""
        if not self.pid:
            self.pid = next((pid for pid in children(self.board) if "Reloader" in threads(pid)), 0)
        elif self.pid not in children(self.board) or not threads(self.pid):
            return "its data server has died"
        elif "Reloader" not in threads(self.pid):
            return "its data server no longer looks for new runs"
        return None


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found: list[int] = []
    for path in (PROC / str(pid) / "task").glob("*/children"):
        try:
            found += map(int, path.read_text().split())
        except OSError:
            continue  # the thread has ended
    return found


def threads(pid: int) -> list[str]:
    """Return the names of a process's threads; none for one that has ended."""
    names = []
    for path in (PROC / str(pid) / "task").glob("*/comm"):
        try:
            if not (path.parent / "stat").read_text().rpartition(")")[2].startswith(" Z"):
                names.append(path.read_text().strip())
        except OSError:
            continue
    return names


def say(sentence: str) -> None:
    """Print a sentence into the service's log."""
    print(f"trainlab: {sentence}", file=sys.stderr, flush=True)


def listening(address: str) -> socket.socket:
    """Return a socket that listens at an address; what an earlier one has left of a Unix socket goes."""
    if "/" not in address:
        host, _, port = address.rpartition(":")
        return socket.create_server((host, int(port)), backlog=LINE)
    path = Path(address)
    if path.is_socket():
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)  # nobody else's to ask, whatever the folder is open to
    try:
        listener.bind(address)
    finally:
        os.umask(mask)
    listener.listen(LINE)
    return listener


def limit_memory(setting: str) -> None:
    """Limit what each process may take, where no container does: `2g` as in .env, '' for no limit."""
    if not setting:
        return
    found = re.fullmatch(r"(\d+)([bkmg]?)b?", setting.lower())
    if not found:
        sys.exit(f"error: TENSORBOARD_MEMORY={setting} is no size such as 2g or 500m; see .env")
    size = int(found[1]) << 10 * "bkmg".index(found[2] or "b")
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def raise_open_files() -> int:
    """Raise the limit of open files as far as allowed; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def watch(board: subprocess.Popen[bytes], view: View) -> str:
    """Return what went wrong, as soon as something does."""
    server, counted = DataServer(board.pid), time.monotonic()
    while True:
        try:
            code = board.wait(LOOK)
        except subprocess.TimeoutExpired:
            view.update()
            if trouble := server.trouble():
                return trouble
            if 2 * view.count > view.most and time.monotonic() - counted > COUNT:
                if view.is_full():
                    return "logs/ holds more event files than may be open"
                counted = time.monotonic()
        else:
            killed = code == -signal.SIGKILL
            return "it was killed, mostly for memory" if killed else f"it ended with code {code}"


def keep(listener: socket.socket, view: View) -> None:
    """Start TensorBoard, again and again."""
    guard, pause = Path(__file__).with_name("guard.py"), 1
    while True:
        if sentence := view.leave_out_what_is_too_much():
            say(sentence)
        began = time.monotonic()
        command = [sys.executable, str(guard), str(listener.fileno()), str(view.folder)]
        board = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])
        try:
            trouble = watch(board, view)
        finally:
            end(board)
        found = view.leave_out_what_breaks()
        pause = 1 if found or time.monotonic() - began > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
        for sentence in found:
            say(sentence)
        if not found:
            trouble += "; if logs/ is large, raise TENSORBOARD_MEMORY in .env or move old runs elsewhere"
        say(f"TensorBoard starts again in {pause} s: {trouble}")
        time.sleep(pause)


def end(board: subprocess.Popen[bytes]) -> None:
    """End TensorBoard; its data server goes with it."""
    board.terminate()
    try:
        board.wait(3)
    except subprocess.TimeoutExpired:
        board.kill()
        board.wait()


def main() -> None:
    """Hold the port until somebody stops us."""
    address, logs = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        listener = listening(address)
    except OSError as error:
        sys.exit(
            f"error: {address} cannot be had ({error.strerror}). Choose another: TENSORBOARD_PORT in .env"
        )
    limit_memory(os.environ.get("TENSORBOARD_MEMORY", ""))
    view = View(Path(logs), raise_open_files() - SPARE_FILES)
    try:
        keep(listener, view)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:
        view.remove()


if __name__ == "__main__":
    main()
