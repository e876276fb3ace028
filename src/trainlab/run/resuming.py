"""Going on with a run: which run is meant, whether it may go on like that, and from which checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import secrets
from trainlab.errors import UserError
from trainlab.run import checkpoint, find, lock, naming, record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainlab.config import Config
    from trainlab.run.lock import Lock

SUFFIX = ".ckpt"
_UNFINISHED = re.compile(r"\.(run\.json|.+\.ckpt(\.sha256)?)\.[0-9a-f]{8}\.tmp")  # see `atomic.replacing`
# Settings that say how long to train, where no class names them; the first that is there counts
LENGTHS = ("epochs", "max_epochs", "num_train_epochs", "num_epochs", "max_steps", "steps")
HANDED_ON_WITHIN = 60.0  # seconds for the process that recorded a run of several hosts before to end
_ABSENT = "nothing"  # in an error message, for a setting that only one side has


def check_same(config_class: type[Config] | None, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a run may go on with the settings `now`, having started with those `before`.

    They are compared under today's names, a missing one by its default; those of the class's `MAY_CHANGE`
    may differ, and so may secrets, which the record hides; those that the class no longer has are not
    compared. Without a class all must be equal but those that say how long to train.
    Raises UserError with each key that differs and both its values.
    """
    first, second = _comparable(config_class, before), _comparable(config_class, now)
    free = getattr(config_class, "MAY_CHANGE", frozenset[str]()) if config_class else frozenset(LENGTHS)
    differing = [
        f"{key}: the run has {first.get(key, _ABSENT)!r}, given is {second.get(key, _ABSENT)!r}."
        for key in dict.fromkeys([*first, *second])
        if key not in free
        and secrets.HIDDEN not in (first.get(key), second.get(key))
        and first.get(key, _ABSENT) != second.get(key, _ABSENT)
    ]
    if differing:
        allowed = f" It may be given anew: {', '.join(sorted(free))}." if config_class and free else ""
        raise UserError(
            "\n".join(differing) + f"\nA resumed run keeps its settings.{allowed} "
            "Leave out what differs, or start a new run (without resume)."
        )


def check_same_data(folder: Path, before: Any, now: Any) -> None:
    """Check that a run goes on with the data that it began with, where both say so by a digest.

    Raises UserError with the digests (`sha256`, `..._sha256`) that differ.
    """
    first, second = (
        {key: value for key, value in facts.items() if key.endswith(record.DIGEST)}
        if isinstance(facts, dict)
        else {}
        for facts in (before, now)
    )
    keys, cut = dict.fromkeys([*first, *second]), slice(record.DIGITS)
    differing = [key for key in keys if first.get(key) != second.get(key)]
    if first and second and differing:
        found = "; ".join(
            f"{key} {str(first.get(key, _ABSENT))[cut]} then, {str(second.get(key, _ABSENT))[cut]} now"
            for key in differing
        )
        raise UserError(
            f"The run {folder.name} learned from other data: {found}. Give it the data it began with, or "
            "start a new run (without resume)."
        )


def check_experiment(folder: Path, experiments: Sequence[str], config_class: type[Config] | None) -> None:
    """Check that a run found by its path is not another experiment's: its settings would be nobody's.

    A notebook's first run lies under the notebook's name when it is executed headless, and that is fine.
    Raises UserError with the settings that the class lacks.
    """
    known = record.read(folder)
    names = {naming.slug(each) for each in experiments}
    if config_class is None or not names.isdisjoint((known.experiment, folder.parent.name)):
        return
    others = config_class.named(known.config).keys() - config_class.model_fields.keys()
    if others:
        raise UserError(
            f"The run {folder.name} is of {known.experiment}, not of {experiments[0]}: its settings "
            f"{', '.join(sorted(others))} have no meaning there. Resume it by its own experiment."
        )


def referenced(reference: str | Path, experiment: str, logs: Path | None = None) -> tuple[Path, Path | None]:
    """Return the folder of the run to go on with, and the checkpoint where the reference names one.

    `reference` is a name, a unique part of it, 'experiment/run', a path, the path of a checkpoint in a run,
    or 'last': the newest run of this experiment. Raises UserError where that is no run that we recorded.
    """
    file = chosen(reference)
    whose = None if "/" in str(reference) else naming.slug(experiment)
    folder = file.parent if file else find.find(reference, logs, whose)
    folder = folder.parent if folder.name == checkpoint.FOLDER else folder
    if not (folder / record.FILE).exists():
        raise UserError(f"{folder} has no {record.FILE}: only a run that trainlab recorded can go on.")
    return folder, file


def chosen(reference: str | Path) -> Path | None:
    """Return the checkpoint that a reference names, None where it names a run.

    Raises UserError for one that is missing, or is none that a training can go on from.
    """
    path = Path(reference).absolute()
    if path.is_dir() and checkpoint.step_of(path) is not None:
        return path
    if path.suffix != SUFFIX:
        return None
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint.")
    if path.name != checkpoint.LAST and not path.name.startswith(checkpoint.STEP):
        raise UserError(
            f"{path} is not what a training can go on from: those are {checkpoint.STEP}*{SUFFIX} "
            f"and {checkpoint.LAST}; others hold weights alone."
        )
    return path


def take(folder: Path) -> Lock:
    """Return the lock of a run that has ended or died.

    Raises UserError with the process and the host of a run that is still running.
    """
    held = lock.hold(folder)
    if held is None or lock.taken(folder, lock.RUNNER):
        if held is not None:
            held.release()
        raise record.still_running(folder)
    return held


def handed_on(folder: Path) -> tuple[Lock, bool]:
    """Return the lock of a run that several hosts train, and whether another process has recorded it before.

    Raises UserError where that process does not end.
    """
    held = lock.hold(folder, seconds=HANDED_ON_WITHIN)
    if held is None:
        raise record.still_running(folder)
    return held, record.read(folder).pid is not None


def starting_point(folder: Path, file: Path | None = None) -> Path | None:
    """Return the checkpoint to go on from: `file`, or the newest that is whole; None without any.

    Raises UserError when `file`, or each one that there is, is damaged.
    """
    if file is not None:
        checkpoint.check(file)
        return file
    if (folder / checkpoint.FOLDER / checkpoint.WEIGHTS_ONLY).exists():
        raise UserError(
            f"The run {folder.name} holds its best weights alone, and no state of its training: it can't be "
            "resumed. Start a new run."
        )
    found = checkpoint.newest(folder)
    known = checkpoint.full_states(folder)
    if found is None and known:
        names = ", ".join(path.name for path in known)
        raise UserError(
            f"No checkpoint of the run {folder.name} can be used: {names} in {known[0].parent} are damaged. "
            "Start a new run."
        )
    if found is None:
        print(f"warning: the run {folder.name} has no checkpoint: the training starts again.", flush=True)
    return found


def sweep(folder: Path) -> None:
    """Delete what a process that was killed while it saved has left in a run's folder."""
    for place in (folder, folder / checkpoint.FOLDER):
        for path in place.glob(".*.tmp"):
            if _UNFINISHED.fullmatch(path.name):
                path.unlink(missing_ok=True)
    for path in (folder / checkpoint.FOLDER).glob(f"*{SUFFIX}.sha256"):
        if not path.with_suffix("").exists():
            path.unlink(missing_ok=True)


def _comparable(config_class: type[Config] | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as `run.json` holds them, under the names and with the defaults of their class."""
    if config_class is None:
        return record.plain(values)
    fields = config_class.model_fields
    known = {key: value for key, value in config_class.named(values).items() if key in fields}
    try:
        return record.plain(config_class.parse(known).model_dump())
    except UserError:  # allowed then, and no more
        kept = {key: field for key, field in fields.items() if not field.exclude}
        return record.plain({key: known.get(key, field.default) for key, field in kept.items()})
