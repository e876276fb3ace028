"""Finds all runs under `logs/`, and the one that somebody means. No event file is read for it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from trainlab import paths, untrusted
from trainlab.errors import UserError, nearest, some
from trainlab.run import events, naming, record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

T = TypeVar("T")
# hidden folders that hold no runs: of deleted ones, sweeps, the board, caches; any other one is a user's own
PASSED = (".trash", ".sweeps", ".board", ".wandb", ".cache", ".ipynb_checkpoints", ".git", ".venv")
_DAY = 86400.0  # seconds, by which clocks may differ


def find(
    reference: str | Path, logs: str | Path | None = None, experiment: str | None = None, having: str = ""
) -> Path:
    """Return a run's folder.

    Args:
        reference: Its name, a unique part of that, 'experiment/run', a path, or 'last', the newest.
        logs: The folder of runs; by default `logs/`.
        experiment: Only its runs are looked at, except by path.
        having: A file that 'last' must have in its folder.

    Raises:
        UserError: No run is meant, or more than one; the nearest names are given.
    """
    if is_run(Path(reference)):
        return Path(reference)
    logs = Path(logs).expanduser() if logs else paths.logs()
    found = known(logs)
    experiment = experiment and naming.as_spelled(logs / experiment).relative_to(logs).as_posix()
    own = {label: folder for label, folder in found.items() if experiment in (None, label.rpartition("/")[0])}
    if str(reference) == "last":
        starts = {folder: _started(folder) for folder in own.values() if (folder / having).exists()}
        placed = {folder: at for folder, at in starts.items() if _DAY <= at <= time.time() + _DAY}
        if placed:
            return max(placed, key=lambda folder: placed[folder])
        of = f" of {experiment}" * bool(experiment) + f" with {having}" * bool(having)
        raise UserError(f"No run{of} in {logs} yet.{_start(experiment or 'news')}")
    if not _matches(str(reference), own) and (others := _matches(str(reference), found)):
        whose = others[0].rpartition("/")[0]
        found_there = (
            f"{reference!r} is {some(sorted(others, reverse=True))}: of {whose}, not of {experiment}."
        )
        raise UserError(found_there + _start(whose, others[0]))
    return pick(str(reference), own, logs)


def known(logs: Path) -> dict[str, Path]:
    """Return the folders of all runs by 'experiment/run'."""
    return {folder.relative_to(logs).as_posix(): folder for folder, _ in run_folders(logs)}


def run_folders(logs: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield every folder with a `run.json` or event files, and, with the reason, those that can't be listed.

    `logs` may be a link, and links in it may lead to other folders in it; one that leads out of it is not
    followed: somebody else's code may have made it. Raises UserError when `logs` is no folder.
    """
    if not os.path.lexists(logs):
        raise UserError(f"{logs} is not there yet: the first run makes it. Runs elsewhere: --logs DIR")
    if not logs.is_dir():
        raise UserError(f"{logs} is no folder. Runs are looked for there; name another with --logs DIR.")
    barred: list[tuple[Path, str]] = []
    top = logs.resolve()
    seen: set[Path] = set()
    waiting = [(logs, top)]  # each with where it really is: not every file system gives its folders numbers
    while waiting:  # not by recursion, which a folder a thousand levels deep would end
        folder, place = waiting.pop()
        if place in seen:  # a link that leads back up
            continue
        seen.add(place)
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda each: each.name)
        except OSError as error:
            barred.append((folder, f"{folder}: {error.strerror}."))
            continue
        below = [each for each in found if untrusted.is_folder(each)]
        names = {each.name for each in found} - {each.name for each in below}
        if record.FILE in names or any(events.MARK in name for name in names):
            yield folder, None
        inside: list[tuple[Path, Path]] = []
        for entry in below:
            path = folder / entry.name
            target = path.resolve() if entry.is_symlink() else place / entry.name
            if entry.name in PASSED:
                continue
            if target.is_relative_to(top):
                inside.append((path, target))
            else:
                sentence = (
                    f"{path} is a link to {target}, out of the folder of runs: not followed. Name that "
                    "folder by --logs, make the folder of runs itself a link to it, or move its runs here."
                )
                barred.append((path, sentence))
        waiting += reversed(inside)
    yield from barred


def pick(reference: str, found: Mapping[str, T], place: Path) -> T:
    """Return what is meant by 'experiment/run', the run's name, or a unique part of either.

    Raises UserError with the nearest names when nothing in `place` is meant, or more than one.
    """
    wanted = reference.strip("/")
    matches = sorted(_matches(wanted, found), reverse=True)
    if len(matches) == 1:
        return found[matches[0]]
    if matches:
        raise UserError(f"{wanted!r} means {len(matches)} runs: {some(matches)}. Write more of the name.")
    names = [name for label in found for name in (label, label.rpartition("/")[2])]
    there = some(sorted(found, reverse=True))
    raise UserError(f"No run {wanted!r} in {place}.{nearest(wanted, names)} There: {there}.")


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


def _started(folder: Path) -> float:
    """Return when a run began, in seconds since 1970; 0 where nothing tells.

    A foreign run began when its first event file says so in its name, or else was last written.
    """
    try:
        if (folder / record.FILE).exists():
            return record.read(folder).started.timestamp()
        first = events.files(folder)[0]
        return events.written_at(first) or first.stat().st_mtime
    except (UserError, OSError, IndexError):
        return 0.0


def _start(experiment: str, resumed: str = "") -> str:
    """Return the command that starts a run, or resumes one; '' where no notebook has that name."""
    if not (paths.notebooks() / f"{experiment}.ipynb").is_file():
        return ""
    if resumed:
        return f" Go on with it: trainlab run {experiment} --resume {resumed.rpartition('/')[2]}"
    return f" Start one: trainlab run {experiment}"
