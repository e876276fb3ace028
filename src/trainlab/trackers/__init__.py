"""Where a run can be followed beside TensorBoard: `tracker=wandb`, `mlflow`, `csv`, or several of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from trainlab.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ALWAYS = "tensorboard"
_PACKAGES = {"csv": (), "mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",)}
NAMES = (ALWAYS, *_PACKAGES)


class Point(NamedTuple):
    """One number that was logged; `time` in seconds since 1970."""

    step: int
    time: float
    tag: str
    value: float


@dataclass(frozen=True)
class Subject:
    """A run in `logs` that is followed; `known` is what a tracker called it before, '' for nothing."""

    logs: Path
    folder: Path
    experiment: str
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    known: str = ""


class Tracker:
    """Follows one run. Whatever a method raises ends the tracker, and nothing else."""

    def start(self, subject: Subject) -> str:
        """Begin, or go on with what is `known`; return the tracker's own name for the run, '' for none."""
        raise NotImplementedError

    def log(self, points: Sequence[Point]) -> None:
        """Take in points, in the order in which they were logged."""
        raise NotImplementedError

    def rewind(self, step: int) -> None:
        """Forget the points at `step` and later, where that can be: a resumed run logs them again."""

    def finish(self, status: str, reason: str | None) -> None:
        """End with the run's own status."""
        raise NotImplementedError


def parse(text: str) -> list[str]:
    """Return the trackers that a setting such as 'wandb,csv' names, beside TensorBoard.

    Raises ValueError for a name that there is not.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in NAMES:
            raise ValueError(f"no tracker {name!r}.{nearest(name, NAMES)} Expected one of {', '.join(NAMES)}")
    return [name for name in dict.fromkeys(names) if name != ALWAYS]


def chosen(setting: str) -> list[str]:
    """Return the trackers that a setting names; raise UserError where one is unknown or not installed."""
    try:
        names = parse(setting or ALWAYS)
    except ValueError as error:
        raise UserError(f"tracker={setting}: {error}") from None
    require(names)
    return names


def require(names: Sequence[str]) -> None:
    """Raise UserError where a tracker's package is not installed."""
    for name in names:
        missing = [package for package in _PACKAGES[name] if find_spec(package) is None]
        if missing:
            raise UserError(
                f"tracker={name}: {', '.join(missing)} is not installed. It is optional: set TRACKERS={name} "
                f"in .env and call `make build`; elsewhere: pip install 'trainlab[{name}]'"
            )


def make(name: str) -> Tracker:
    """Return the tracker of this name; imports nothing of its package yet."""
    module = import_module(f"trainlab.trackers.{name}")
    tracker: Tracker = module.TRACKER()
    return tracker
