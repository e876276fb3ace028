"""Runs as lines across parallel axes: one for each setting that differs, the last one for a metric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlab.runs import columns, display
from trainlab.runs.compare.differences import is_number
from trainlab.runs.ranking import ranked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.runs.listing import Row

MOST_AXES = 10  # settings: more can't be told apart
_LOG_FROM = 10.0  # the largest number over the smallest, above which the axis is logarithmic
_TICKS = 5
_CLEAR = 0.05  # of the axis, between its ends' ticks and the others
_UNSET = "none"  # the lowest tick where some runs lack the setting
_ROOM = 0.12  # of the axis, for that tick


@dataclass(frozen=True)
class Axis:
    """A setting or the metric: where each run crosses it, from 0 to 1, and what stands beside it."""

    name: str
    places: list[float]  # one a run
    labels: list[str]  # each run's value
    ticks: list[tuple[float, str]]
    scale: str  # 'linear', 'log' or 'names'


def axes(rows: Sequence[Row], metric: str, most: int = MOST_AXES) -> tuple[list[Row], list[Axis]]:
    """Return the runs that have the metric, the best first, and their axes: settings, then the metric.

    Of more than `most` settings those with the most different values are left out last. Positive numbers that
    span more than a factor of 10 get a logarithmic axis; text, true and false an axis of names.
    """
    order = ranked(rows, metric)
    names = [name.removeprefix("config.") for name in columns.differing(order)]
    varied = sorted(names, key=lambda name: -len({display.short(row.config.get(name)) for row in order}))
    kept = [name for name in names if name in varied[:most]]
    found = [axis(name, [row.config.get(name) for row in order]) for name in kept]
    return order, [*found, axis(metric, [row.best[metric] for row in order])]


def left_out(rows: Sequence[Row], metric: str, most: int = MOST_AXES) -> int:
    """Return how many settings that differ have no axis."""
    return max(0, len(columns.differing(ranked(rows, metric))) - most)


def axis(name: str, values: Sequence[Any]) -> Axis:
    """Return the axis of some values: numbers by their size, others by name; None lies lowest."""
    given = [each for each in values if each is not None]
    if given and all(is_number(each) and math.isfinite(each) for each in given):
        scale = "log" if min(given) > 0 and max(given) > _LOG_FROM * min(given) else "linear"
        places, ticks = _numbers(np.array(given, dtype=float), scale)
    else:
        scale = "names"
        places, ticks = _names([display.short(each) for each in given])
    labels = [_UNSET if each is None else display.short(each) for each in values]
    if len(given) == len(values):
        return Axis(name, places, labels, ticks, scale)
    lifted = iter(_ROOM + (1 - _ROOM) * place for place in places)
    ticks = [(0.0, _UNSET), *((_ROOM + (1 - _ROOM) * place, text) for place, text in ticks)]
    return Axis(name, [0.0 if each is None else next(lifted) for each in values], labels, ticks, scale)


def _numbers(values: np.ndarray, scale: str) -> tuple[list[float], list[tuple[float, str]]]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        return [0.5] * len(values), [(0.5, display.short(low))]
    along = np.log if scale == "log" else np.asarray
    start, span = along(np.array(low)), along(np.array(high)) - along(np.array(low))
    shown = _shown(np.unique(values), scale)
    at = (along(shown) - start) / span
    clear = [_CLEAR < place < 1 - _CLEAR for place in at]
    ends = [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")]
    between = [
        (float(place), f"{each:.4g}") for place, each, free in zip(at, shown, clear, strict=True) if free
    ]
    return ((along(values) - start) / span).tolist(), [ends[0], *between, ends[1]]


def _shown(different: np.ndarray, scale: str) -> np.ndarray:
    """Return the numbers that stand beside an axis: all of a few, round ones of many."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if len(different) <= _TICKS:
        return different
    locator = LogLocator(numticks=_TICKS + 2) if scale == "log" else MaxNLocator(_TICKS)
    return np.array(locator.tick_values(different[0], different[-1]))


def _names(values: Sequence[str]) -> tuple[list[float], list[tuple[float, str]]]:
    different = sorted(set(values))
    step = 1 / max(1, len(different) - 1)
    place = {name: index * step if len(different) > 1 else 0.5 for index, name in enumerate(different)}
    return [place[each] for each in values], [(place[name], name) for name in different]
