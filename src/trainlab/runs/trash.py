"""What must hold before a run's folder is moved, packed or removed, and event files that nobody may see."""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from stat import S_ISDIR
from typing import TYPE_CHECKING

from pydantic import AwareDatetime, BaseModel, ValidationError

from trainlab import files, untrusted
from trainlab.errors import UserError
from trainlab.files import telling
from trainlab.run import lock, naming, record
from trainlab.run.find import PASSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_SHOWN, _HIDDEN = "tfevents", "tf~events"  # what TensorBoard knows event files by, and what it doesn't


def run_id(folder: Path, logs: Path) -> str:
    """Return 'experiment/run' of a run's folder; raise UserError for one that can't be moved as a whole."""
    folder, logs = Path(os.path.abspath(folder)), Path(os.path.abspath(logs))  # noqa: PTH100  # keeps links
    if not folder.is_relative_to(logs):
        folder, logs = folder.resolve(), logs.resolve()
    if not folder.is_relative_to(logs):
        raise UserError(f"{folder} is not in {logs}. Name the folder that it is in: --logs DIR.")
    if folder == logs:
        raise UserError(f"{logs} itself holds these event files, and all other runs. Move them to a folder.")
    hidden = [part for part in folder.relative_to(logs).parts if part.startswith(".")]
    if set(hidden) & set(PASSED):
        raise UserError(f"{folder} is not in the table. For a deleted run use restore, or delete --purge.")
    if hidden:
        raise UserError(
            f"{folder} lies in a hidden folder. Rename {hidden[0]} without the dot, then try again."
        )
    if folder.is_symlink():
        raise UserError(f"{folder} is a link to {folder.readlink()}. Name the run that it leads to.")
    return folder.relative_to(logs).as_posix()


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep a run from being gone on with meanwhile; raise UserError when it, or one inside it, is running.

    A foreign run's writer shows no sign of life: that is not known.
    """
    held = None
    busy = [Path(parent) for parent, _, names in os.walk(folder) if {lock.RUN, lock.RUNNER} & {*names}]
    busy = [place for place in busy if lock.alive(place)]
    if not busy and (folder / record.FILE).exists() and (held := lock.hold(folder)) is None:
        busy = [folder]
    if busy:
        raise record.still_running(busy[0])
    try:
        yield
    finally:
        if held:
            held.release()


def outermost(folders: Iterable[Path]) -> list[Path]:
    """Return the folders, each once, without those that lie in another one: they go with it."""
    known = {folder.resolve(): folder for folder in folders}
    return [folder for place, folder in known.items() if not known.keys() & set(place.parents)]


def movable(folders: Iterable[Path], logs: Path) -> list[Path]:
    """Return the folders, each once; raise UserError before anything happens when one can't be moved."""
    chosen = outermost(folders)
    for folder in chosen:
        run_id(folder, logs)
        with exclusive(folder):
            pass
    return chosen


def size(*paths: Path) -> int:
    """Return the bytes of files and of all files in folders; one that has several names counts once."""
    found = {}
    for path in paths:
        for each in [path] if path.is_file() else path.rglob("*"):
            if not S_ISDIR((status := each.lstat()).st_mode):
                found[status.st_dev, status.st_ino] = status.st_size
    return sum(found.values())


def is_plain(label: str) -> bool:
    """Tell whether 'experiment/run' leads to a place below `logs` where runs are seen."""
    parts = PurePosixPath(label).parts
    seen = bool(parts) and not any(part.startswith(".") for part in parts)
    return seen and label == "/".join(parts) and "\\" not in label and label.isprintable()


def hide_from_tensorboard(folder: Path, back: bool = False) -> None:
    """Rename the event files in a folder so that TensorBoard passes them: it looks into hidden folders.

    `back` gives them their names back.
    """
    old, new = (_HIDDEN, _SHOWN) if back else (_SHOWN, _HIDDEN)
    for parent, _, names in os.walk(folder):
        for name in names:
            if old in name:
                Path(parent, name).rename(Path(parent, name.replace(old, new)))


def hidden(path: PurePosixPath) -> PurePosixPath:
    """Return the path that `hide_from_tensorboard` would give a file."""
    return path.with_name(path.name.replace(_SHOWN, _HIDDEN))


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

    Raises UserError for a running run, or where the disk refuses; the run is then as it was.
    """
    label = run_id(folder, logs)
    with telling(logs), exclusive(folder):
        entry = new_entry(logs, label)
        try:
            hide_from_tensorboard(folder)
            folder.replace(entry.folder)
        except BaseException:
            with suppress(OSError):
                hide_from_tensorboard(folder, back=True)
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
        hide_from_tensorboard(home, back=True)
        _forget(entry)
    return home


def purge(entry: Entry) -> None:
    """Remove a deleted run permanently; raise UserError where the disk refuses."""
    with telling(entry.place):
        if not entry.folder.exists():  # its deletion died half-way: the run itself is still there
            hide_from_tensorboard(entry.home, back=True)
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
            if is_plain(about.label):  # else it would come back to a place outside of logs
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
