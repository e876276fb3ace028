"""Names of runs and their folders: `logs/<experiment>/<UTC time>[-<name>]`."""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
import sys
import unicodedata
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from trainlab import paths, secrets
from trainlab.errors import UserError, unwritable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_LONGEST = 50  # characters, of up to four bytes each: with the time still a valid file name
_LONGEST_WORD = 30  # characters of one setting, where not all fit
_MARK = 4  # characters


def slug(text: str) -> str:
    """Return `text` as one harmless path component, maybe empty: 'a/../b c' becomes 'a-..-b-c'."""
    return _harmless(text)[:_LONGEST].rstrip(".-")


def of_changes(changes: Mapping[str, Any]) -> str:
    """Return a name that tells a run from one with default settings: {'margin': 5.0} becomes 'margin5'.

    Of too many, the seed and the last ones stay: a series of runs mostly differs in these. Four signs at the
    end then tell apart what looks alike. Secrets are left out.
    """
    words = {}
    for key, value in changes.items():
        if not secrets.is_secret_name(key):
            short = isinstance(value, float) and float(f"{value:g}") == value
            words[key] = secrets.without_secrets(f"{key}{value:g}" if short else f"{key}{value}")
    return _fitting(words, [*(key for key in words if key == "seed"), *reversed(words)])


def _fitting(words: Mapping[str, str], order: Iterable[str]) -> str:
    """Return as many words as fit into a name, those that come first in `order`, each where it was."""
    whole = _harmless("-".join(words.values()))
    if len(whole) <= _LONGEST:
        return whole
    mark = hashlib.sha256("\n".join(words.values()).encode(errors="replace")).hexdigest()[:_MARK]
    room = _LONGEST - _MARK
    kept: dict[str, str] = {}
    for key in order:
        word = _harmless(re.sub(r"/.*/", "", words[key]))[:_LONGEST_WORD]  # of a path the last part
        if word and key not in kept and len(word) < room:
            kept[key] = word
            room -= len(word) + 1
    return "-".join([*(kept[key] for key in words if key in kept), mark])


def _harmless(text: str) -> str:
    words = re.sub(r"[^\w.=+-]+", "-", unicodedata.normalize("NFC", text))
    return words.strip(".-")


def new_folder(logs: Path, experiment: str, name: str | None = None) -> Path:
    """Make and return a run's folder that nobody else has, `logs/<experiment>/<time>[-<name>][-<n>]`.

    Raises UserError when the experiment's name is empty, `logs` can't be written, or is Python's own.
    """
    if not slug(experiment):
        raise UserError(
            f"{experiment!r} can't name an experiment. Expected letters or digits, such as 'news'."
        )
    paths.not_of_python(logs)
    parent = as_spelled(logs / slug(experiment))
    given = _harmless(secrets.without_secrets(name or ""))
    words = {str(place): word for place, word in enumerate(given.split("-"))}
    fitted = _fitting(words, reversed(words))
    stem = "-".join(filter(None, [datetime.now(UTC).strftime("%Y%m%d-%H%M%S"), fitted]))
    try:
        made = not logs.is_dir()
        parent.mkdir(parents=True, exist_ok=True)
        if made:
            with suppress(OSError, ValueError):  # nobody may be there to read it
                shown = f"tensorboard --logdir {shlex.quote(str(logs))}"
                print(f"made {logs} for runs; their curves: {shown}", file=sys.stderr)
        folder = parent / stem
        for number in itertools.count(2):
            with suppress(FileExistsError):
                folder.mkdir()
                break
            folder = parent / f"{stem}-{number}"
    except OSError as error:
        raise UserError(unwritable(parent, error)) from error
    return folder


def as_spelled(folder: Path) -> Path:
    """Return a folder by the name that it has: where case makes no difference, 'news' may be 'News'."""
    if not folder.exists():
        return folder
    there = list(folder.parent.iterdir())
    alike = (each for each in there if each.name.casefold() == folder.name.casefold())
    return folder if folder in there else next(alike, folder)
