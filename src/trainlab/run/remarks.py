"""What people say about a run: tags and a note.

Those of a run of ours stand in its `run.json`. A foreign run has none, and gets none: it would make the run
ours. There they lie in a file of their own beside the event files, which TensorBoard doesn't look at.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from trainlab import files, untrusted
from trainlab.errors import UserError, nearest, unwritable
from trainlab.run import lock, record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FILE = ".trainlab.json"  # of a foreign run
LONGEST_TAG = 40  # characters: several fit into a line of the table
LONGEST_NOTE = 10_000  # characters: with it `run.json` still fits into the room kept for a run's last words
_LARGEST = 1 << 20  # bytes of the file
_TAG = re.compile(rf"[\w.+:/@-]{{1,{LONGEST_TAG}}}")


class Remarks(BaseModel):
    """Tags in the order they were given, and a note; '' is none."""

    tags: list[str] = Field(default_factory=list)
    note: str = ""


class ChangedError(UserError):
    """Somebody else has said something meanwhile; `now` is the mark of what stands there."""

    def __init__(self, present: Remarks) -> None:
        tags, note = " ".join(present.tags) or "none", present.note or "none"
        super().__init__(f"Somebody else has changed this meanwhile. Now there: tags: {tags}; note: {note}")
        self.now = mark(present.tags, present.note)


def mark(tags: Sequence[str], note: str) -> str:
    """Return what tells remarks from others: a form holds it of those that it shows."""
    return hashlib.sha256(repr(([*tags], note)).encode()).hexdigest()[:16]


def read(folder: Path) -> Remarks:
    """Return the remarks on a run; raise UserError when the file that holds them can't be read."""
    if (folder / record.FILE).exists():
        return Remarks.model_validate(record.read(folder).model_dump(include={"tags", "note"}))
    path = folder / FILE
    try:
        return Remarks.model_validate(untrusted.parsed(untrusted.content(path, _LARGEST)))
    except FileNotFoundError:
        return Remarks()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from None
    except ValueError:  # pydantic's ValidationError is one
        raise UserError(f"{path} is damaged: expected the tags and the note of a run. Remove it.") from None


def tag(folder: Path, names: Sequence[str]) -> Remarks:
    """Give a run tags; one that it has already stays where it is. Returns all remarks.

    Raises UserError for a tag that can't be one, or when the run's folder can't be written.
    """
    _check_tags(names)
    return _change(folder, lambda known: {"tags": list(dict.fromkeys([*known.tags, *names]))})


def untag(folder: Path, names: Sequence[str]) -> Remarks:
    """Take tags from a run, and return what is left; raise UserError for one that it doesn't have."""

    def less(known: Remarks) -> dict[str, list[str]]:
        for name in names:
            if name not in known.tags:
                there = ", ".join(known.tags) or "none"
                raise UserError(
                    f"{folder.name} has no tag {name!r}.{nearest(name, known.tags)} There: {there}."
                )
        return {"tags": [each for each in known.tags if each not in names]}

    return _change(folder, less)


def note(folder: Path, text: str) -> Remarks:
    """Replace a run's note; '' removes it. Raises UserError when it is too long or can't be written."""
    _check_note(text)
    return _change(folder, lambda _: {"note": text.strip()})


def replace(folder: Path, new: Remarks, shown: str) -> Remarks:
    """Replace tags and note at once, where they still are what somebody has seen who says something else.

    Args:
        folder: The run's.
        new: What is said.
        shown: The `mark` of what was shown.

    Returns:
        What stands there.

    Raises:
        ChangedError: They aren't, and aren't what is said either; nothing is changed.
        UserError: A tag can't be one, the note is too long, or the run's folder can't be written.
    """
    _check_tags(new.tags)
    _check_note(new.note)
    wanted = Remarks(tags=list(dict.fromkeys(new.tags)), note=new.note.strip())

    def replaced(known: Remarks) -> dict[str, Any]:
        if known != wanted and mark(known.tags, known.note) != shown:
            raise ChangedError(known)
        return wanted.model_dump()

    return _change(folder, replaced)


def _check_tags(names: Sequence[str]) -> None:
    for name in names:
        if not _TAG.fullmatch(name) or name.startswith("-") or name.lower() == "none":
            raise UserError(
                f"{name!r} can't be a tag. Expected up to {LONGEST_TAG} letters, digits and . _ - + : / @, "
                "no blanks or commas, such as baseline; 'none' is what filters call no tag."
            )


def _check_note(text: str) -> None:
    if len(text) > LONGEST_NOTE:
        raise UserError(f"The note has {len(text):,} characters. Expected at most {LONGEST_NOTE:,}.")


def _change(folder: Path, change: Callable[[Remarks], dict[str, Any]]) -> Remarks:
    """Write what `change` makes of the remarks, and return them; a running process may write there, too."""
    try:
        with lock.exclusive(folder):
            present = read(folder)
            fields = change(present)
            new = present.model_copy(update=fields)
            if (folder / record.FILE).exists():
                record.write(folder, record.changed(record.read(folder), **fields))
            elif new == Remarks():
                (folder / FILE).unlink(missing_ok=True)
            else:
                files.write(folder / FILE, new.model_dump_json(indent=2).encode() + b"\n")
            return new
    except OSError as error:
        raise UserError(unwritable(folder, error)) from None
