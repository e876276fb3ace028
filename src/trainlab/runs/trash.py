"""Deleted runs, until they come back or are removed permanently.

    logs/.trash/<run>[-<n>]/trashed.json   which run this was, and when it was deleted
    logs/.trash/<run>[-<n>]/run/           its folder, whole, with its event files under hidden names

The table passes hidden folders; TensorBoard does not, hence the names. A process that dies half-way leaves an
entry from which `restore` brings everything back.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ValidationError

from trainlab import files, untrusted
from trainlab.errors import UserError
from trainlab.files import telling
from trainlab.run import naming
from trainlab.runs import moving

FOLDER = ".trash"
UNPACKING = ".unpacking-"  # what the names of folders start with that archives are unpacked into
_ABOUT = "trashed.json"
_LARGEST = 1 << 16  # bytes of it


class _About(BaseModel):
    label: str
    deleted: AwareDatetime


@dataclass(frozen=True)
class Entry:
    """A deleted run: where it lies, its 'experiment/run', and when it was deleted."""

    place: Path
    label: str
    deleted: datetime

    @property
    def folder(self) -> Path:
        """The run's folder in the trash."""
        return self.place / "run"

    @property
    def home(self) -> Path:
        """Where the run was, and comes back to."""
        return self.place.parents[1] / self.label


def delete(folder: Path, logs: Path) -> Entry:
    """Move a run's folder, with all that is in it, to the trash; TensorBoard and the table lose sight of it.

    Raises UserError for a run that is at work, or where the disk refuses; the run is then as it was.
    """
    label = moving.run_id(folder, logs)
    with telling(logs), moving.exclusive(folder):
        entry = new_entry(logs, label)
        try:
            moving.hide_from_tensorboard(folder)
            folder.replace(entry.folder)
        except BaseException:
            with suppress(OSError):
                moving.hide_from_tensorboard(folder, back=True)
                _forget(entry)
            raise
    return entry


def restore(entry: Entry) -> Path:
    """Bring a run back to where it was, and return its folder.

    Raises UserError when another run is there by now, or where the disk refuses.
    """
    home = entry.home
    with telling(home.parent):
        if entry.folder.exists():
            home.parent.mkdir(parents=True, exist_ok=True)
            try:
                home.mkdir()  # a name that nobody has, and that nobody can take in between
            except FileExistsError:
                raise UserError(f"{home} is there already. Rename or delete that one first.") from None
            try:
                entry.folder.replace(home)  # a folder may take the place of an empty one
            except OSError:
                home.rmdir()
                raise
        elif not home.exists():
            raise UserError(
                f"{entry.place} is empty: its run is gone. Remove what is left: rm -r {entry.place}"
            )
        moving.hide_from_tensorboard(home, back=True)
        _forget(entry)
    return home


def purge(entry: Entry) -> None:
    """Remove a deleted run permanently; raise UserError where the disk refuses."""
    with telling(entry.place):
        if not entry.folder.exists():  # its deletion died half-way: the run itself is still there
            moving.hide_from_tensorboard(entry.home, back=True)
        shutil.rmtree(entry.place)


def sweep(logs: Path) -> None:
    """Remove what a process has left that died while it unpacked an archive."""
    with telling(logs):
        for place in (logs / FOLDER).glob(f"{UNPACKING}*"):
            shutil.rmtree(place)


def entries(logs: Path) -> dict[str, Entry]:
    """Return the deleted runs by 'experiment/run', with '@...' where one was deleted twice; newest first."""
    found = []
    for path in (logs / FOLDER).glob(f"*/{_ABOUT}"):
        with suppress(ValidationError, OSError):  # somebody else's
            about = _About.model_validate_json(untrusted.content(path, _LARGEST))
            if moving.is_plain(about.label):  # else it would come back to a place outside of logs
                found.append(Entry(path.parent, about.label, about.deleted))
    found.sort(key=lambda each: each.deleted, reverse=True)
    times = Counter(each.label for each in found)
    return {
        each.label if times[each.label] == 1 else f"{each.label}@{each.place.name}": each for each in found
    }


def new_entry(logs: Path, label: str) -> Entry:
    """Make an empty place in the trash for a run. Raises OSError where the disk refuses."""
    trash = logs / FOLDER
    trash.mkdir(exist_ok=True)
    stem = naming.slug(Path(label).name) or "run"
    for number in itertools.count(1):
        place = trash / (stem if number == 1 else f"{stem}-{number}")
        with suppress(FileExistsError):
            place.mkdir()
            break
    about = _About(label=label, deleted=datetime.now(UTC))
    try:
        files.write(place / _ABOUT, about.model_dump_json().encode() + b"\n")
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return Entry(place, label, about.deleted)


def _forget(entry: Entry) -> None:
    """Remove an entry whose run is not, or no more, in it."""
    if not entry.folder.exists():
        (entry.place / _ABOUT).unlink()
        entry.place.rmdir()
