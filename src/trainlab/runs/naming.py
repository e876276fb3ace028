"""Names of runs and their folders: `logs/<experiment>/<UTC time>[-<name>]`."""

from __future__ import annotations

import itertools
import re
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from trainlab.errors import UserError
from trainlab.runs import secrets

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LONGEST = 50  # characters, of up to four bytes each: with the time still a valid file name


def slug(text: str) -> str:
    """Return `text` as one harmless path component, maybe empty: 'a/../b c' becomes 'a-..-b-c'."""
    words = re.sub(r"[^\w.=+-]+", "-", unicodedata.normalize("NFC", text))
    return words.strip(".-")[:_LONGEST].rstrip(".-")


def of_changes(changes: Mapping[str, Any]) -> str:
    """Return a name that tells a run from one with default settings: {'margin': 5.0} becomes 'margin5'.

    Secrets are left out.
    """
    told = {key: value for key, value in changes.items() if not secrets.is_secret_name(key)}
    return slug(secrets.without_secrets("-".join(f"{key}{_short(value)}" for key, value in told.items())))


def new_folder(logs: Path, experiment: str, name: str | None = None) -> Path:
    """Make and return a run's folder that nobody else has, `logs/<experiment>/<time>[-<name>][-<n>]`.

    Raises UserError when the experiment's name is empty, or `logs` can't be written.
    """
    if not slug(experiment):
        raise UserError(
            f"{experiment!r} can't name an experiment. Expected letters or digits, such as 'news'."
        )
    parent = logs / slug(experiment)
    told = slug(secrets.without_secrets(name or ""))
    stem = "-".join(filter(None, [datetime.now(UTC).strftime("%Y%m%d-%H%M%S"), told]))
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = parent / (stem if number == 1 else f"{stem}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise UserError(
            f"{parent} can't be written: {error.strerror}. "
            f"Runs are kept there; check its owner and free space: ls -ld {logs}; df {logs}"
        ) from error
    raise AssertionError("unreachable")


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
