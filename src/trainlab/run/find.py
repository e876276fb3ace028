"""Finds the run that somebody means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from trainlab import paths
from trainlab.errors import UserError, nearest
from trainlab.run import events, record
from trainlab.runs.listing import rows, run_folders

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")
_MOST_NAMES = 5  # in an error message


def find(
    reference: str | Path, logs: Path | None = None, experiment: str | None = None, having: str = ""
) -> Path:
    """Return a run's folder, given its name, a unique part of that, 'experiment/run', a path, or 'last'.

    With an `experiment`, only its runs are looked at, except by path; 'last' is the newest `having` a file
    of that name, if one is given. Raises UserError with the nearest
    names when no run is meant, or more than one.
    """
    if is_run(Path(reference)):
        return Path(reference)
    logs = logs or paths.logs()
    if str(reference) == "last":
        return _last(logs, experiment, having)
    found = known(logs)
    if experiment is not None:
        own = {label: folder for label, folder in found.items() if label.rpartition("/")[0] == experiment}
        if not _matches(str(reference), own) and (others := _matches(str(reference), found)):
            whose = others[0].rpartition("/")[0]
            told = f"{reference!r} is {_some(others)}: of {whose}, not of {experiment}."
            raise UserError(told + _start(whose, others[0]))
        found = own
    return pick(str(reference), found, logs)


def known(logs: Path) -> dict[str, Path]:
    """Return the folders of all runs by 'experiment/run'."""
    return {folder.relative_to(logs).as_posix(): folder for folder, _ in run_folders(logs)}


def pick(reference: str, found: Mapping[str, T], place: Path) -> T:
    """Return what is meant by 'experiment/run', the run's name, or a unique part of either.

    Raises UserError with the nearest names when nothing in `place` is meant, or more than one.
    """
    wanted = reference.strip("/")
    matches = _matches(wanted, found)
    if len(matches) == 1:
        return found[matches[0]]
    if matches:
        raise UserError(f"{wanted!r} means {len(matches)} runs: {_some(matches)}. Write more of the name.")
    names = [name for label in found for name in (label, label.rpartition("/")[2])]
    raise UserError(f"No run {wanted!r} in {place}.{nearest(wanted, names)} There: {_some(list(found))}.")


def _matches(reference: str, found: Iterable[str]) -> list[str]:
    wanted, labels = reference.strip("/"), list(found)
    exact = [label for label in labels if wanted in (label, label.rpartition("/")[2])]
    return exact or [label for label in labels if wanted in label]


def is_run(folder: Path) -> bool:
    """Tell whether a folder holds a run, ours or a foreign one."""
    try:
        return folder.is_dir() and ((folder / record.FILE).exists() or bool(events.files(folder)))
    except OSError:
        return False


def _last(logs: Path, experiment: str | None, having: str) -> Path:
    candidates = (row for row in rows(logs) if experiment in (None, row.experiment))
    newest = next((row.folder for row in candidates if row.started and (row.folder / having).exists()), None)
    if newest is None:
        of = f" of {experiment}" * bool(experiment) + f" with {having}" * bool(having)
        raise UserError(f"No run{of} in {logs} yet.{_start(experiment or 'news')}")
    return newest


def _start(experiment: str, resumed: str = "") -> str:
    """Return the command that starts a run, or resumes one; '' where no notebook has that name."""
    if not (paths.notebooks() / f"{experiment}.ipynb").is_file():
        return ""
    if resumed:
        return f" Go on with it: trainlab run {experiment} --resume {resumed.rpartition('/')[2]}"
    return f" Start one: trainlab run {experiment}"


def _some(labels: list[str]) -> str:
    shown = sorted(labels, reverse=True)[:_MOST_NAMES]
    more = f" and {len(labels) - len(shown)} more" if len(labels) > len(shown) else ""
    return ", ".join(shown) + more if shown else "none"
