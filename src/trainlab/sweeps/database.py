"""Where a sweep's study lies: a file beside the sweep, or the PostgreSQL of a head for many hosts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import psutil

from trainlab import extras
from trainlab.errors import UserError

if TYPE_CHECKING:
    import psycopg

FILE = "study.db"
LOCK = "study.lock"
PASSWORDS = ("TRAINLAB_HEAD_PASSWORD", "PGPASSWORD")  # of the environment, the first one that is there
PORT, USER, DATABASE = 5432, "trainlab", "trainlab"  # of `make head`
PATIENCE = 60.0  # seconds that a process waits for another one's writing to SQLite
# A host that is gone must not hold anybody: no answer to a connection or a packet within these seconds is an
# error, and idle connections show that they live before a router forgets them
_LIVELY: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
}
# The server, too, must not keep a dead client's transaction, which would hold others up
_OF_SERVER = {
    "idle_in_transaction_session_timeout": "30s",
    "lock_timeout": "20s",
    "statement_timeout": "60s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_REFUSED = ("authentication", "password", "pg_hba", "does not exist", "certificate", "not support SSL")
_ASKED = "sslmode", "sslrootcert"  # what an address may say besides
_LOCAL = ("ext4", "ext3", "ext2", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay")
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse")


def check_place(folder: Path) -> None:
    """Raise UserError for a network drive, where SQLite's locks may not hold."""
    kind = _file_system(folder)
    if kind.partition(".")[0] in _REMOTE:
        raise UserError(
            f"{folder} is on {kind}, where SQLite can lose what several processes write. Keep the sweep in "
            "the database of a head: make head, then trainlab sweep ... --at HEAD"
        )


def _file_system(folder: Path) -> str:
    """Return the type of the file system that a folder is on, '' where nothing says."""
    place = folder.resolve()
    mounts = [each for each in psutil.disk_partitions(all=True) if place.is_relative_to(each.mountpoint)]
    return max(reversed(mounts), key=lambda each: len(each.mountpoint)).fstype if mounts else ""


class File:
    """A file as it is when this object is made: another one of its name is not it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = self._now()

    def is_there(self) -> bool:
        """Tell whether it still stands in its place."""
        return self._known is not None and self._known == self._now()

    def _now(self) -> tuple[int, int] | None:
        try:
            found = self.path.lstat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def check_file(path: Path) -> None:
    """Raise ValueError for a link, a pipe or a device in a database's place."""
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError("it is a link, a folder, a pipe or a device, and no file")


def move(path: Path, target: Path | None) -> None:
    """Rename an SQLite database, with what lies beside it, or delete it where there is no `target`."""
    for suffix in ("-wal", "-shm", "-journal", ""):
        one = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            if target is None:
                one.unlink()
            else:
                one.rename(target.with_name(target.name + suffix))


def file_options(path: Path) -> dict[str, Any]:
    """Return how SQLAlchemy opens an SQLite file.

    Its schema may call no functions: it may be an enemy's. On a disk of this machine a write-ahead log makes
    a commit some times faster; elsewhere, as on a Mac's folder in a container, it is not safe.
    """
    import sqlalchemy

    journal = "WAL" if _file_system(path.parent) in _LOCAL else "DELETE"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=PATIENCE, check_same_thread=False)
        try:
            for pragma in ("trusted_schema=OFF", f"journal_mode={journal}", "synchronous=FULL"):
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    return {"url": "sqlite://", "creator": connect, "poolclass": sqlalchemy.QueuePool}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock beside an SQLite database; raise TimeoutError where another process does, and goes on.

    SQLite alone lets two processes read before one of them writes.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process has held {path} for {PATIENCE:.0f} s") from None
                time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)


def server_options(at: str) -> dict[str, Any]:
    """Return how SQLAlchemy reaches a head, HOST[:PORT] or postgresql://...; the password stays in here.

    Raises:
        UserError: The address can't be read.
    """
    extras.need("psycopg", "A sweep of many hosts")
    known = _address(at)
    password = next((os.environ[name] for name in PASSWORDS if os.environ.get(name)), None)

    def connect() -> psycopg.Connection[Any]:
        import psycopg

        connection = psycopg.connect(
            **_LIVELY,
            **known,
            options=" ".join(f"-c {name}={value}" for name, value in _OF_SERVER.items()),
            password=password,
            # The address may be an enemy's: nobody is told the password itself, or a weak digest of it
            require_auth="scram-sha-256,none",
            client_encoding="UTF8",
        )
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            connection.close()
            raise UserError(
                f"{shown(at)} has the encoding {encoding}, which can't keep every text. Expected UTF8: make "
                f"it anew by initdb -E UTF8, or CREATE DATABASE {known['dbname']} ENCODING 'UTF8' TEMPLATE "
                "template0"
            )
        return connection

    return {"url": "postgresql+psycopg://", "creator": connect, "pool_pre_ping": True}


def shown(at: str) -> str:
    """Return a head's address for people."""
    known = _address(at)
    return f"the database at {known['host']}:{known['port']}"


def fault(error: BaseException) -> tuple[str, str]:
    """Return what a database's error says, and its kind: 'passing', 'refused', 'deleted' or 'damaged'.

    One that is passing is worth asking again: the database is gone or busy, or its disk full.
    """
    seen: BaseException | None = error
    while seen is not None and not type(seen).__module__.startswith(("sqlite3", "psycopg")):
        if isinstance(seen, OSError):  # of the lock's file, or a timeout
            break
        seen = getattr(seen, "orig", None) or seen.__cause__ or seen.__context__
    said = " ".join(str(seen or error).split()).rstrip(".") or type(error).__name__
    if isinstance(seen, FileNotFoundError):
        return "it was deleted, or made anew meanwhile", "deleted"
    if isinstance(seen, sqlite3.Error):
        code = str(getattr(seen, "sqlite_errorname", ""))
        passing = code.startswith(("SQLITE_BUSY", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN"))
    elif seen is None or isinstance(seen, OSError):  # "TimeoutError": SQLAlchemy's, of its pool
        passing = seen is not None or type(error).__name__ == "TimeoutError"
    elif not isinstance(seen, _of_psycopg("ProgrammingError", "DataError")):
        passing = True
        if any(word in said for word in _REFUSED):
            return said, "refused"
    else:
        passing = False
    return said, "passing" if passing else "damaged"


def server_errors() -> tuple[type[BaseException], ...]:
    """Return what a server's own errors are, where one was asked at all."""
    return _of_psycopg("Error") if "psycopg" in sys.modules else ()


def _of_psycopg(*names: str) -> tuple[type[BaseException], ...]:
    import psycopg

    return tuple(getattr(psycopg, name) for name in names)


def _address(at: str) -> Mapping[str, Any]:
    try:
        parts = urlsplit(at if "://" in at else f"postgresql://{at}")
        port = parts.port or PORT
        asked = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise UserError(_expected(at)) from None
    if parts.password is not None or "password" in asked:
        raise UserError(
            "--at: leave the password out of the address, where others can read it, and put it into the "
            f"environment: {PASSWORDS[0]}"
        )
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname or asked.keys() - set(_ASKED):
        raise UserError(_expected(at))
    named = {"host": parts.hostname, "port": port, "user": unquote(parts.username or USER)}
    return named | {"dbname": unquote(parts.path.strip("/")) or DATABASE} | asked


def _expected(at: str) -> str:
    return (
        f"--at {at!r} is no address of a head. Expected HOST, HOST:PORT, or "
        f"postgresql://USER@HOST:PORT/DATABASE, which may end with ?sslmode=verify-full&sslrootcert=FILE"
    )
