"""A run that is over without the states that a training goes on from: its best weights stay.

A state holds the weights, and of Adam twice as much besides; a note in its place says why the run can't be
resumed any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainlab import files
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.runs import trash

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NOTE = b"The states to resume from were deleted or left out: this run can't be resumed.\n"


@dataclass(frozen=True)
class Trim:
    """What goes and what stays of one run's checkpoints, and how many bytes are free afterwards."""

    folder: Path
    states: list[Path]
    kept: list[Path]
    frees: int


def plan(folder: Path) -> Trim:
    """Return what can go of a run that is over, which may be nothing.

    Raises UserError for a running run, and one that has no whole weights besides the states.
    """
    with trash.exclusive(folder):
        place = folder / checkpoint.FOLDER
        found = sorted(place.iterdir()) if place.is_dir() else []
        states = [path for path in found if checkpoint.is_state(path)]
        kept = [path for path in found if path not in states]
        if states:
            check(found)
            for path in kept:
                if path.suffix == ".ckpt":
                    checkpoint.check(path)
        inside = [path for path in place.rglob("*") if path.is_file()]
        stays = [path for path in inside if not checkpoint.is_state(path)]
        return Trim(folder, states, kept, trash.size(*inside) - trash.size(*stays))


def trim(wanted: Trim) -> None:
    """Delete the states; raise UserError for a run that is running by now, or where the disk refuses."""
    with trash.exclusive(wanted.folder), files.telling(wanted.folder):
        files.write(wanted.folder / checkpoint.FOLDER / checkpoint.WEIGHTS_ONLY, NOTE)
        for path in wanted.states:
            checkpoint.remove(path)


def check(paths: Sequence[Path]) -> None:
    """Raise UserError where the files of a run hold states, and no weights besides them."""
    weights = {path.parent for path in paths if path.suffix == ".ckpt" and not checkpoint.is_state(path)}
    for path in paths:
        place = next((each for each in path.parents if each.name == checkpoint.FOLDER), path.parent)
        if checkpoint.is_state(path) and place not in weights:
            raise UserError(
                f"{place} holds no best weights, only states to resume from. Keep the "
                f"run whole, or delete it: trainlab runs delete {place.parent.name}"
            )


def without_states(paths: Sequence[Path]) -> list[Path]:
    """Return the folders whose states are not among these files of a run."""
    places = {path.parent for path in paths if path.parent.name == checkpoint.FOLDER}
    left_out = {place: {path for path in place.rglob("*") if path.is_file()} - set(paths) for place in places}
    return sorted(place for place in places if any(map(checkpoint.is_state, left_out[place])))
