"""Storage that can do less than a Linux disk, as network drives and memory cards do, mounted for a test.

The kernel asks this program, by /dev/fuse, for each file below a mount: it keeps them in another folder, and
refuses hard links, symbolic links, locks and fsync, and names that Windows refuses; the case of a name's
letters makes no other name. Only the kernel and root's right to mount are needed, no package.

    python bare_storage.py MOUNT KEPT
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICE = "/dev/fuse"
REFUSED_NAMES = re.compile(r'[<>:"\\|?*\x00-\x1f]|[. ]$')
LIBC = ctypes.CDLL(None, use_errno=True)
NOSUID_NODEV, DETACH = 2 | 4, 2  # of mount(2) and umount(2)

# From here on: linux/fuse.h
REQUEST, ANSWER = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
POSIX_LOCKS, FLOCK_LOCKS, BIG_WRITES = (
    1 << 1,
    1 << 10,
    1 << 5,
)  # without two, the kernel locks
LARGEST_WRITE = 1 << 17  # bytes
WITHOUT_ANSWER = {2, 36, 42}  # forget, interrupt, batch_forget
READ = "<QQI"  # open file, offset, size
HAS_SIZE, HAS_TIME, TIME_IS_NOW = 8, 32, 256  # of setattr


class Server:
    """Answers the kernel; a node's number is the place of its path in `paths`."""

    def __init__(self, device: int, kept: Path) -> None:
        self.device, self.kept = device, kept
        self.paths: list[Path] = [kept, kept]  # the root is number 1
        self.answers: dict[int, Any] = {
            **{1: self.lookup, 3: self.getattr, 4: self.setattr, 9: self.mkdir, 10: self.unlink},
            **{11: self.rmdir, 12: self.rename, 45: self.rename2, 14: self.open, 15: self.read},
            **{16: self.write, 17: self.statfs, 18: self.release, 25: self.nothing, 26: self.init},
            **{27: self.nothing_open, 28: self.readdir, 29: self.nothing, 35: self.create},
        }
        refused = {
            errno.EPERM: (6, 13),  # symlink, link
            errno.EINVAL: (20, 30),  # fsync, fsyncdir
            errno.ENOLCK: (31, 32, 33),  # getlk, setlk, setlkw
        }
        self.refused = {code: number for number, codes in refused.items() for code in codes}

    def serve(self) -> None:
        """Answer until the file system is unmounted."""
        while True:
            try:
                request = os.read(self.device, LARGEST_WRITE + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                raise
            _, code, unique, node, *_ = REQUEST.unpack_from(request)
            if code in WITHOUT_ANSWER:
                continue
            failure, content = self.refused.get(code, 0 if code in self.answers else errno.ENOSYS), b""
            if not failure:
                try:
                    content = self.answers[code](node, request[REQUEST.size :])
                except OSError as error:
                    failure = error.errno or errno.EIO
            os.write(self.device, ANSWER.pack(ANSWER.size + len(content), -failure, unique) + content)

    def place(self, node: int, name: bytes) -> Path:
        """Return where a name in a folder is kept: under whatever case it was made."""
        folder, text = self.paths[node], name.rstrip(b"\0").decode()
        alike = (each for each in folder.iterdir() if each.name.casefold() == text.casefold())
        return next(alike, folder / text)

    def new_place(self, node: int, name: bytes) -> Path:
        path = self.place(node, name)
        if REFUSED_NAMES.search(path.name):
            raise OSError(errno.EINVAL, "a name that Windows refuses")
        return path

    def number(self, path: Path) -> int:
        if path not in self.paths:
            self.paths.append(path)
        return self.paths.index(path)

    @staticmethod
    def attributes(status: os.stat_result, number: int) -> bytes:
        times = [int(each) for each in (status.st_atime, status.st_mtime, status.st_ctime)]
        parts = [each % 10**9 for each in (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)]
        owner = (status.st_mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)
        return struct.pack("<6Q10I", number, status.st_size, status.st_blocks, *times, *parts, *owner)

    def entry(self, path: Path) -> bytes:
        status, number = path.lstat(), self.number(path)
        return struct.pack("<QQQQII", number, 0, 0, 0, 0, 0) + self.attributes(status, number)

    def init(self, *_: Any) -> bytes:
        flags = POSIX_LOCKS | FLOCK_LOCKS | BIG_WRITES
        return struct.pack("<IIIIHHIIHHI7I", 7, 31, LARGEST_WRITE, flags, 8, 8, LARGEST_WRITE, 1, *[0] * 10)

    def nothing(self, *_: Any) -> bytes:
        return b""

    def nothing_open(self, *_: Any) -> bytes:
        return struct.pack("<QII", 0, 0, 0)

    def lookup(self, node: int, rest: bytes) -> bytes:
        return self.entry(self.place(node, rest))

    def getattr(self, node: int, rest: bytes) -> bytes:
        by_file, _, file = struct.unpack_from("<IIQ", rest)
        status = os.fstat(file) if by_file else self.paths[node].lstat()
        return struct.pack("<QII", 0, 0, 0) + self.attributes(status, node)

    def setattr(self, node: int, rest: bytes) -> bytes:
        valid, _, _, size, _, _, time, _, _, part = struct.unpack_from("<IIQQQQQQII", rest)
        if valid & HAS_SIZE:
            os.truncate(self.paths[node], size)
        if valid & TIME_IS_NOW:
            os.utime(self.paths[node])
        elif valid & HAS_TIME:
            os.utime(self.paths[node], ns=(time * 10**9 + part,) * 2)
        return self.getattr(node, bytes(16))

    def mkdir(self, node: int, rest: bytes) -> bytes:
        path = self.new_place(node, rest[8:])
        path.mkdir()
        return self.entry(path)

    def unlink(self, node: int, rest: bytes) -> bytes:
        self.place(node, rest).unlink()
        return b""

    def rmdir(self, node: int, rest: bytes) -> bytes:
        self.place(node, rest).rmdir()
        return b""

    def rename(self, node: int, rest: bytes, start: int = 8) -> bytes:
        old, new = rest[start:].rstrip(b"\0").split(b"\0")
        source, target = self.place(node, old), self.new_place(struct.unpack_from("<Q", rest)[0], new)
        source.replace(target)
        gone = self.kept / ".no longer there"
        self.paths = [gone if each == target or target in each.parents else each for each in self.paths]
        for number, path in enumerate(self.paths):
            if path == source or source in path.parents:
                self.paths[number] = target / path.relative_to(source)
        return b""

    def rename2(self, node: int, rest: bytes) -> bytes:
        return self.rename(node, rest, 16)

    def open(self, node: int, rest: bytes) -> bytes:
        (flags,) = struct.unpack_from("<I", rest)
        file = os.open(self.paths[node], flags & (os.O_ACCMODE | os.O_TRUNC))
        return struct.pack("<QII", file, 0, 0)

    def create(self, node: int, rest: bytes) -> bytes:
        flags, mode = struct.unpack_from("<II", rest)
        path = self.new_place(node, rest[16:])
        file = os.open(path, flags & (os.O_ACCMODE | os.O_TRUNC | os.O_EXCL) | os.O_CREAT, mode)
        return self.entry(path) + struct.pack("<QII", file, 0, 0)

    def read(self, _: int, rest: bytes) -> bytes:
        file, offset, size = struct.unpack_from(READ, rest)
        return os.pread(file, size, offset)

    def write(self, _: int, rest: bytes) -> bytes:
        file, offset, size = struct.unpack_from(READ, rest)
        return struct.pack("<II", os.pwrite(file, rest[40 : 40 + size], offset), 0)

    def release(self, _: int, rest: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", rest)[0])
        return b""

    def statfs(self, *_: Any) -> bytes:
        found = os.statvfs(self.kept)
        counts = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)
        return struct.pack("<5Q10I", *counts, found.f_bsize, 255, found.f_frsize, *[0] * 7)

    def readdir(self, node: int, rest: bytes) -> bytes:
        _, offset, size = struct.unpack_from(READ, rest)
        found = b""
        for number, path in enumerate(sorted(self.paths[node].iterdir())[offset:], offset + 1):
            encoded = path.name.encode()
            one = struct.pack("<QQII", 1, number, len(encoded), 0) + encoded + bytes(-len(encoded) % 8)
            if len(found) + len(one) > size:
                break
            found += one
        return found


def serve(mount: str, kept: str) -> None:
    """Mount, and answer until it is unmounted."""
    device = os.open(DEVICE, os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other"
    if LIBC.mount(b"bare", mount.encode(), b"fuse.bare", NOSUID_NODEV, options.encode()):
        sys.exit(os.strerror(ctypes.get_errno()))
    Server(device, Path(kept)).serve()


@contextmanager
def bare(folder: Path) -> Iterator[Path]:
    """Mount such storage in a folder, and yield the place; RuntimeError says why it can't be."""
    place, kept = folder / "drive", folder / "kept"
    place.mkdir()
    kept.mkdir()
    with (folder / "errors").open("w+") as errors:
        server = subprocess.Popen([sys.executable, __file__, place, kept], stderr=errors)
        try:
            until(lambda: place.is_mount() or server.poll() is not None, "the file system")
            if not place.is_mount():
                errors.seek(0)
                raise RuntimeError(f"{DEVICE} can't be mounted: {errors.read().strip().splitlines()[-1]}")
            yield place
        finally:
            LIBC.umount2(str(place).encode(), DETACH)
            server.wait(30)


@contextmanager
def exfat(folder: Path) -> Iterator[Path]:
    """Mount a new exFAT file system, of Debian's exfat-fuse and exfatprogs, and yield the place."""
    image, place = folder / "image", folder / "card"
    place.mkdir()
    image.touch()
    os.truncate(image, 1 << 28)
    with ExitStack() as left:
        try:
            call("mkfs.exfat", image)
            loop = call("losetup", "--find", "--show", image)
            left.callback(call, "losetup", "--detach", loop)
            call("mount.exfat-fuse", loop, place)
            left.callback(call, "umount", "--lazy", place)
        except (OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError(f"exFAT can't be mounted: {getattr(error, 'stderr', '') or error}") from None
        yield place


def call(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    serve(*sys.argv[1:])
