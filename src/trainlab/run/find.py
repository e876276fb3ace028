"""Finds all runs under `logs/`, and the one that somebody means. No event file is read for it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from trainlab import paths, untrusted
from trainlab.errors import UserError, nearest
from trainlab.run import events, record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

T = TypeVar("T")
# hidden folders that hold no runs: of deleted runs, of W&B, of caches; any other one is a user's own
PASSED = (".trash", ".wandb", ".cache", ".ipynb_checkpoints", ".git", ".venv")
_MOST_NAMES = 5  # in an error message
_DAY = 86400.0  # seconds, by which clocks may differ


def find(
    reference: str | Path, logs: Path | None = None, experiment: str | None = None, having: str = ""
) -> Path:
    """Return a run's folder.

    Args:
        reference: Its name, a unique part of that, 'experiment/run', a path, or 'last', the newest.
        logs: The folder of runs; by default `logs/`.
        experiment: Only its runs are looked at, except by path.
        having: A file that 'last' must have in its folder.

    Raises:
        UserError: No run is meant, or more than one; the nearest names are told.
    """
    if is_run(Path(reference)):
        return Path(reference)
    logs = logs or paths.logs()
    found = known(logs)
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
        told = f"{reference!r} is {_some(others)}: of {whose}, not of {experiment}."
        raise UserError(told + _start(whose, others[0]))
    return pick(str(reference), own, logs)


def known(logs: Path) -> dict[str, Path]:
    """Return the folders of all runs by 'experiment/run'."""
    return {folder.relative_to(logs).as_posix(): folder for folder, _ in run_folders(logs)}


def run_folders(logs: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield every folder with a `run.json` or event files, and, with the reason, those that can't be listed.

    `logs` may be a link, and links in it may lead to other folders in it; one that leads out of it is not
    followed: somebody else's code may have made it. Raises UserError when `logs` is no folder.
    """
    if not logs.is_dir():
        raise UserError(f"{logs} is no folder. Runs are looked for there; name another with --logs DIR.")
    barred: list[tuple[Path, str]] = []
    seen: set[tuple[int, int]] = set()
    waiting, top = [logs], logs.resolve()
    while waiting:  # not by recursion, which a folder a thousand levels deep would end
        folder = waiting.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
                continue
            seen.add((status.st_dev, status.st_ino))
            below, names, leading_out = _looked_into(folder, top)
        except OSError as error:
            barred.append((folder, f"{folder}: {error.strerror}."))
            continue
        waiting += reversed(below)
        barred += leading_out
        if record.FILE in names or any(events.MARK in name for name in names):
            yield folder, None
    yield from barred


def _looked_into(folder: Path, top: Path) -> tuple[list[Path], list[str], list[tuple[Path, str]]]:
    """Return the folders in a folder, the names of all else, and links out of `top` with a sentence each."""
    below, names, leading_out = [], [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            path = folder / entry.name
            if not untrusted.is_folder(entry):
                names.append(entry.name)
            elif entry.name in PASSED:
                continue
            elif entry.is_symlink() and not (target := path.resolve()).is_relative_to(top):
                said = (
                    f"{path} is a link to {target}, out of the folder of runs: not followed. Name that "
                    "folder by --logs, make the folder of runs itself a link to it, or move its runs here."
                )
                leading_out.append((path, said))
            else:
                below.append(path)
    return below, names, leading_out


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


def _some(labels: list[str]) -> str:
    shown = sorted(labels, reverse=True)[:_MOST_NAMES]
    more = f" and {len(labels) - len(shown)} more" if len(labels) > len(shown) else ""
    return ", ".join(shown) + more if shown else "none"
