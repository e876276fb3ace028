"""Runs that differ by their seed alone, as one row: how many, the mean of each metric, and its spread.

Runs are folded that have the same experiment, the same settings but for the seed, the same data and split,
and the same commit of their code: what is measured is the chance in a training, and nothing else. (What else
was changed in a working copy isn't recorded: runs of one commit with such changes count as the same code.) A
run that records no seed or no settings stands alone, for nothing says what it repeats.

A mean counts the runs that finished, and where none has, all of them, as the status tells: '2 running'. Of
several runs with one seed the newest counts, since a repetition is no second draw. A run without the metric
counts for the others. A row of one run is that run.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from trainlab.runs import ranking
from trainlab.runs.listing import UNKNOWN, Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SEED = "seed"
ENDED_WELL = ("finished", UNKNOWN)  # the event files of others don't say how their run ended
_COMMIT = 8  # characters


@dataclass
class Folded(Row):
    """Runs of several seeds; `best`, `last` and `seconds` are means over those that count.

    `folder`, `run` and `started` are those of the newest run, whose record also stands for their data.
    """

    members: list[Row] = field(default_factory=list)  # all of them, the newest first
    seeds: list[int] = field(default_factory=list)  # of the runs that count
    n: int = 1  # how many count
    code: str = ""  # 'commit' or 'commit, changed'
    counts: dict[str, int] = field(default_factory=dict)  # of them those with this metric
    best_sd: dict[str, float] = field(
        default_factory=dict
    )  # standard deviations of a sample, of two at least
    last_sd: dict[str, float] = field(default_factory=dict)

    @property
    def sweep(self) -> str | None:
        """Return the name of the sweep that all belong to."""
        return _common([row.sweep for row in self.members])

    @property
    def trial(self) -> int | None:
        """Return the trial that all belong to."""
        return _common([row.trial for row in self.members])

    @property
    def runs(self) -> list[str]:
        """Return the names of all runs."""
        return [row.run for row in self.members]


def fold(rows: Sequence[Row]) -> list[Folded]:
    """Return a row for each setting, in the order of their first runs."""
    found: dict[str, list[Row]] = {}
    for number, row in enumerate(rows):
        found.setdefault(_key(row) or str(number), []).append(row)
    return [_folded(each) for each in found.values()]


def remark(folds: Sequence[Folded], rows: Sequence[Row]) -> str:
    """Return a sentence on runs among `rows` that a filter has kept from the folds they belong to, or ''."""
    sizes = Counter(map(_key, rows))
    missing = sum(sizes[key] - len(each.members) for each in folds if (key := _key(each.members[0])))
    if not missing:
        return ""
    return f"The filter leaves out {missing} runs of these settings: means count what it lets through alone."


def members(row: Row) -> list[Row]:
    """Return the runs that a row stands for: those of several seeds, or itself."""
    return row.members if isinstance(row, Folded) else [row]


def seed_of(row: Row) -> int | None:
    """Return a run's seed, of its settings or its record; None where neither is known."""
    found = row.config.get(SEED, row.record.seed if row.record else None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _key(row: Row) -> str:
    """Return what is the same in all runs of a row; '' for a run that stands alone."""
    settings = {name: value for name, value in row.config.items() if name != SEED}
    if seed_of(row) is None or not row.config:
        return ""
    facts = [row.experiment, settings, ranking.ground(row), _code(row), row.looks]
    return json.dumps(facts, sort_keys=True, default=str)


def _code(row: Row) -> str:
    git = row.record.git if row.record else None
    return "" if git is None else git.commit[:_COMMIT] + ", changed" * git.dirty


def _folded(members: list[Row]) -> Folded:
    first = members[0]
    known = {each.name: getattr(first, each.name) for each in fields(Row)}
    seed = seed_of(first)
    if len(members) == 1:
        seeds = [] if seed is None else [seed]
        counts = dict.fromkeys(first.last, 1)
        return Folded(**known, members=members, seeds=seeds, code=_code(first), counts=counts)
    well = [row for row in members if row.status in ENDED_WELL] or members
    counting = list({seed_of(row): row for row in reversed(well)}.values())[::-1]
    best, best_sd = _spread([row.best for row in counting])
    last, last_sd = _spread([row.last for row in counting])
    contrary = [tag for tag in best if ranking.direction(counting, tag) is None]
    for tag in contrary:  # some say that less is better, others more: their bests are two things
        del best[tag]
    times = [row.seconds for row in counting if row.seconds is not None]
    states = Counter(row.status for row in members)
    known |= {
        "status": ", ".join(f"{count} {status}" for status, count in states.most_common()),
        "seconds": sum(times) / len(times) if times else None,
        "config": {name: value for name, value in first.config.items() if name != SEED},
        "best": best,
        "last": last,
        "best_steps": {},
        "directions": {tag: way for tag, way in first.directions.items() if tag not in contrary},
        "metrics": list(dict.fromkeys(tag for row in members for tag in row.metrics)),
        "reason": None,
        "damaged": [sentence for row in members for sentence in row.damaged],
        "tags": list(dict.fromkeys(tag for row in members for tag in row.tags)),
        "note": "",
    }
    return Folded(
        **known,
        members=members,
        seeds=sorted(seed for row in counting if (seed := seed_of(row)) is not None),
        n=len(counting),
        code=_code(first),
        counts={tag: sum(tag in (row.best if tag in best else row.last) for row in counting) for tag in last},
        best_sd=best_sd,
        last_sd=last_sd,
    )


def _spread(found: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the mean of each metric, and the standard deviation of a sample where two have it."""
    means, deviations = {}, {}
    for tag in dict.fromkeys(tag for values in found for tag in values):
        having = [values[tag] for values in found if tag in values]
        means[tag] = mean = sum(having) / len(having)
        if len(having) > 1:
            squares = sum((value - mean) * (value - mean) for value in having)  # no ** of a huge number
            deviations[tag] = math.sqrt(squares / (len(having) - 1))
    return means, deviations


def _common(values: Sequence[Any]) -> Any:
    return values[0] if len({*values}) == 1 else None
