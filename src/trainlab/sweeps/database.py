"""Where a sweep's study lies: a file beside the sweep, or the PostgreSQL of a head for many hosts."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import psutil

from trainlab import extras
from trainlab.errors import UserError

if TYPE_CHECKING:
    import psycopg

FILE = "study.db"
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
_ASKED = "sslmode", "sslrootcert"  # what an address may say besides
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse")


def check_place(folder: Path) -> None:
    """Raise UserError for a network drive, where SQLite's locks may not hold."""
    place = folder.resolve()
    mounts = [each for each in psutil.disk_partitions(all=True) if place.is_relative_to(each.mountpoint)]
    kind = (
        max(reversed(mounts), key=lambda each: len(each.mountpoint)).fstype if mounts else ""
    )  # the last one
    if kind.split(".")[0] in _REMOTE:
        raise UserError(
            f"{folder} is on {kind}, where SQLite can lose what several processes write. Keep the sweep in "
            "the database of a head: make head, then trainlab sweep ... --at HEAD"
        )


def file_options(path: Path) -> dict[str, Any]:
    """Return how SQLAlchemy opens an SQLite file; its schema may not call functions: it may be an enemy's."""
    import sqlalchemy

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=PATIENCE, check_same_thread=False)
        connection.execute("PRAGMA trusted_schema=OFF")
        return connection

    return {"url": "sqlite://", "creator": connect, "poolclass": sqlalchemy.QueuePool}


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

        # An address may be an enemy's: its server must not ask for the password itself, or a weak digest
        return psycopg.connect(
            **_LIVELY, **known, password=password, require_auth="scram-sha-256,none", client_encoding="UTF8"
        )

    return {"url": "postgresql+psycopg://", "creator": connect, "pool_pre_ping": True}


def shown(at: str) -> str:
    """Return a head's address for people."""
    known = _address(at)
    return f"the database at {known['host']}:{known['port']}"


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
