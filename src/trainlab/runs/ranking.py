"""Which of several runs is better: within the same data and split alone, and never by a guessed direction."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from trainlab.run import metrics
from trainlab.run.record import DIGEST, DIGITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.run.metrics import Direction
    from trainlab.runs.listing import Row

AnyRow = TypeVar("AnyRow", bound="Row")  # of one run, or of several seeds
_PATH, _SPLIT = "path", "split"
_LONGEST = 40  # characters of another fact
_MOST_FACTS = 3  # that name data, where nothing distinguishes it from other data
_ENCODER = json.JSONEncoder(sort_keys=True, default=str)  # made once: of ten thousand runs most of the time
_UNKNOWN = "no run gives whether less or more of it is better"
_NO_DATA = "data not recorded"


def direction(rows: Sequence[Row], tag: str) -> Direction | None:
    """Return which way a metric improves: as its runs give it, or by its well-known name.

    None where nothing gives it, or one run gives the opposite of another.
    """
    known = {row.directions.get(tag) or metrics.well_known(tag) for row in rows if tag in row.last} - {None}
    if not rows:
        return metrics.well_known(tag)
    return known.pop() if len(known) == 1 else None


def ranked(rows: Sequence[AnyRow], metric: str) -> list[AnyRow]:
    """Return the runs that have the best of a metric, the best first; those on other data behind them.

    None where it isn't known which is better.
    """
    way = direction(rows, metric)
    having = [row for row in rows if way and metrics.is_finite(row.best.get(metric))]
    return [
        row
        for group in groups(having)
        for row in sorted(group, key=lambda row: row.best[metric], reverse=way == "max")
    ]


def groups(rows: Sequence[AnyRow]) -> list[list[AnyRow]]:
    """Return the runs that may be compared with each other, as a list each: the same data, the same split.

    The group of the first run comes first.
    """
    found: dict[str, list[AnyRow]] = {}
    for row in rows:
        found.setdefault(ground(row), []).append(row)
    return list(found.values())


def names(of: Sequence[Sequence[Row]]) -> list[str]:
    """Return what distinguishes the data of groups, such as 'sha256 3f2a9c1b, split item'."""
    facts = [_facts(group[0]) for group in of]
    recorded = [each for each in facts if each]
    keys = dict.fromkeys(key for each in recorded for key in each)
    differing = [key for key in keys if len({_cut(key, each.get(key)) for each in recorded}) > 1]
    shown = differing or list(keys)[:_MOST_FACTS]
    return [
        ", ".join(f"{key} {_cut(key, each[key])}" for key in shown if key in each) or _NO_DATA
        for each in facts
    ]


def remark(rows: Sequence[Row], metric: str) -> str:
    """Return what belongs beside an order of runs by a metric; '' where all can be compared."""
    having = [row for row in rows if metric in row.last]
    sentences = []
    if having and direction(having, metric) is None:
        both = {row.directions.get(metric) for row in having} >= {"min", "max"}
        why = "some of its runs say that less is better, others more" if both else _UNKNOWN
        sentences.append(f"{metric}: {why}.")
    apart = groups(having)
    if len(apart) > 1:
        sizes = "; ".join(f"{len(each)} with {name}" for each, name in zip(apart, names(apart), strict=True))
        sentences.append(f"Runs on other data, or another split of it, are ranked apart: {sizes}.")
    return " ".join(sentences)


def ground(row: Row) -> str:
    """Return what must be equal in two runs for their metrics to be compared."""
    facts = _facts(row)
    if DIGEST in facts:
        facts.pop(_PATH, None)  # the same data may lie elsewhere
    return _ENCODER.encode(facts)


def _facts(row: Row) -> dict[str, Any]:
    """Return what is recorded of a run's data, and the split that its settings name."""
    data = row.record.data if row.record else None
    facts = dict(data) if isinstance(data, dict) else {}
    return facts | ({_SPLIT: row.config[_SPLIT]} if _SPLIT in row.config else {})


def _cut(key: str, fact: Any) -> str:
    if key.endswith(DIGEST):
        return str(fact)[:DIGITS]
    return (PurePath(str(fact)).name if key == _PATH else str(fact))[:_LONGEST]
