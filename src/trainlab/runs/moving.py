"""What must hold before a run's folder is moved, packed or removed, and event files that nobody may see."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trainlab.errors import UserError
from trainlab.run import lock, record
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
    """Keep a run from being gone on with meanwhile; raise UserError when it, or one inside it, is at work.

    A foreign run's writer shows no sign of life: nobody can tell.
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


def size(*folders: Path) -> int:
    """Return the bytes of all files in some folders; one that has several names counts once."""
    return size_of(
        Path(parent, name) for folder in folders for parent, _, names in os.walk(folder) for name in names
    )


def size_of(files: Iterable[Path]) -> int:
    """Return the bytes of files; one that has several names counts once."""
    found = (path.lstat() for path in files)
    return sum({(each.st_dev, each.st_ino): each.st_size for each in found}.values())


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
