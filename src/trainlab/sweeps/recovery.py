"""What the run folders say of a sweep's trials: enough to make its study anew."""

from __future__ import annotations

from contextlib import suppress
from statistics import fmean
from typing import TYPE_CHECKING, Any

from trainlab.run import find, lock, record
from trainlab.sweeps import objective, space
from trainlab.sweeps.definition import MOST_TRIALS, Definition
from trainlab.sweeps.pruning import PRUNED, is_reported, not_finite
from trainlab.sweeps.trial import KILLED, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Known = dict[str, tuple["Path", record.Record]]  # the runs of a trial, by 'experiment/run'
Curve = list[tuple[int, float]]  # ordinals of validations, and the goal's values


def found(
    definition: Definition, logs: Path, value_of: Callable[[Path], float | None]
) -> tuple[dict[int, Trial], dict[int, Curve]]:
    """Return the trials of a sweep that have runs, by number, as these runs show them, and their reports.

    A trial whose runs have all ended has ended; one that is running still is running, and nobody's: whoever
    sees it adopts it. The others wait, and go on with the runs that they have.

    Args:
        definition: The sweep.
        logs: The folder of runs; what lies in there may be an enemy's.
        value_of: What a run has come to, None where its goal has no value.

    Returns:
        The trials, and what a pruner compares of them: what was reported of each, as it was then.
    """
    found: dict[int, Known] = {}
    for folder, fault in find.run_folders(logs) if logs.is_dir() else ():
        with suppress(record.RecordError):
            known = None if fault else record.read(folder)
            mark = known and known.sweep
            if known and mark and mark.name == definition.name and mark.trial < MOST_TRIALS:
                label = folder.relative_to(logs).as_posix()
                found.setdefault(mark.trial, {})[label] = folder, known
    trials = {number: _trial(definition, number, runs, value_of) for number, runs in found.items()}
    if definition.prune == "none":
        return trials, {}
    return trials, {number: _reports(definition, runs) for number, runs in found.items()}


def _reports(definition: Definition, known: Known) -> Curve:
    """Return what was reported of a trial: of several seeds the first one's values."""
    first = definition.seed if definition.seeds > 1 else 0
    runs = sorted((each.started, folder) for folder, each in known.values() if _seed(each) == first)
    for _, folder in runs[-1:]:
        with suppress(OSError):
            values = objective.Goal(folder, definition.goal).values()
            return [(place, each) for place, each in enumerate(values) if is_reported(place)]
    return []


def _trial(  # noqa: PLR0911 - the ways in which a trial ends
    definition: Definition, number: int, known: Known, value_of: Callable[[Path], float | None]
) -> Trial:
    runs = dict(sorted(known.items(), key=lambda each: (_seed(each[1][1]), each[1][1].started)))
    last = {_seed(each): (folder, each) for folder, each in runs.values()}  # of each seed
    records = [each for _, each in last.values()]
    common: dict[str, Any] = {
        "number": number,
        "settings": _settings(space.from_table(definition.space), records[0]),
        "runs": tuple(runs),
        "attempts": max(each.sweep.attempts for each in records if each.sweep),
    }
    if any(lock.alive(folder) for folder, _ in last.values()):
        return Trial(state="running", **common)
    ends = [each for each in records if each.status == "failed" and not KILLED.search(each.reason or "")]
    if failed := next(iter(ends), None):
        return Trial(state="failed", reason=failed.reason or "", **common)
    if pruned := next((each for each in records if (each.reason or "").startswith(PRUNED)), None):
        folders = [folder for folder, each in last.values() if each is pruned]
        return Trial(state="pruned", reason=pruned.reason or "", value=value_of(folders[0]), **common)
    if len(records) < definition.seeds or any(each.status != "finished" for each in records):
        return Trial(state="waiting", reason="the study was made anew", **common)
    for folder, _ in last.values():
        curve = objective.Goal(folder, definition.goal).values()
        if curve and (why := not_finite(definition.goal, curve, len(curve) - 1)):
            return Trial(state="pruned", reason=why, value=objective.best(curve, definition.mode), **common)
    values = [value for folder, _ in last.values() if (value := value_of(folder)) is not None]
    if len(values) < len(records):
        return Trial(state="failed", reason=f"no value of {definition.goal}", **common)
    return Trial(state="finished", value=fmean(values), **common)


def _seed(known: record.Record) -> int:
    return (known.sweep.seed if known.sweep else None) or 0


def _settings(varied: space.Space, known: record.Record) -> dict[str, Any]:
    """Return the settings that a run had, as the space has them; what it has not, is left out.

    What the sweep has given it, or else, of an older run, what its code has recorded.
    """
    given: Mapping[str, Any] = (known.sweep.settings if known.sweep else {}) or known.config
    found: dict[str, Any] = {}
    for name, each in varied.items():
        value = given.get(name)
        if isinstance(each, space.Range) and isinstance(value, str):
            with suppress(ValueError):
                value = int(value) if each.whole else float(value)
        if isinstance(each, space.Choice):
            alike = [one for one in each.values if space.text(one) == space.text(value)]
            found |= {name: alike[0]} if alike else {}
        elif isinstance(value, int | float) and each.low <= value <= each.high:
            found[name] = int(value) if each.whole else float(value)
    return found
