"""Proof that all hosts of a sweep see one `logs/`: a random text in the sweep's folder, and in its study.

Addresses prove nothing: a path is the same on hosts that share no disk, and a database has many names.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from trainlab import extras, files, untrusted
from trainlab.cleaning import printable
from trainlab.errors import UserError, some, unwritable
from trainlab.sweeps import database
from trainlab.sweeps.definition import SWEEPS

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "storage"  # in a sweep's folder
_MARK = re.compile(rb"[0-9a-f]{32}\n?")
_LARGEST = 64  # bytes


def mark(folder: Path) -> str:
    """Return the text that tells a sweep's folder from all others, written there where none is.

    Raises:
        UserError: It can't be written.
    """
    if not (found := read(folder)):
        found = secrets.token_hex(16)
        try:
            files.write(folder / FILE, f"{found}\n".encode())
        except OSError as error:
            raise UserError(unwritable(folder / FILE, error)) from error
    return found


def read(folder: Path) -> str:
    """Return the text of a sweep's folder, '' where there is none, or something else."""
    try:
        found = untrusted.content(folder / FILE, _LARGEST)
    except OSError:
        return ""
    return found.decode().strip() if _MARK.fullmatch(found) else ""


def check(folder: Path, expected: str, where: str) -> None:
    """Hold a sweep's folder against what its study says; a study that says nothing proves nothing.

    Args:
        folder: Of the sweep, as it is seen here.
        expected: What its study says.
        where: The database, for people.

    Raises:
        UserError: It is another one.
    """
    if expected and read(folder) != expected:
        raise UserError(
            f"{folder} is not the folder of the sweep that {where} keeps: this machine sees another logs/. "
            "Mount the logs/ of the machine that began the sweep in its place, and begin again."
        )


def kept(at: str) -> dict[str, str]:
    """Return the sweeps that a head keeps, and what each of their studies says of its folder.

    Raises:
        UserError: The database does not answer.
    """
    extras.need("optuna", "A sweep")
    from trainlab.sweeps import study

    try:
        found = study.Study(database.server_options(at))
        try:
            return found.notes()
        finally:
            found.close()
    except UserError:
        raise
    except Exception as error:  # the server's, or SQLAlchemy's
        said, _ = database.fault(error)
        raise UserError(
            f"{database.shown(at)} can't be asked for its sweeps: {printable(said)[:300]}. Is the head up, "
            f"and its password in the environment, {database.PASSWORDS[0]}?"
        ) from None


def seen(sweeps: Mapping[str, str], logs: Path) -> list[str]:
    """Return those of the sweeps of `kept` whose own folders lie in a folder of runs."""
    return [name for name, said in sweeps.items() if said and read(logs / SWEEPS / name) == said]


def check_shared(at: str, logs: Path) -> None:
    """Hold a folder of runs against the database of a head, before a worker waits for trials that never come.

    Raises:
        UserError: The head keeps sweeps, and none of their folders is here.
    """
    sweeps = {name: said for name, said in kept(at).items() if said}
    if sweeps and not seen(sweeps, logs):
        raise UserError(
            f"{database.shown(at)} keeps {some(sorted(sweeps))}, and {logs} holds none of them: this machine "
            "sees another logs/. Mount the logs/ of the machine that began them there, and begin again."
        )
