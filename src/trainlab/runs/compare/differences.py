"""What sets the best runs apart from the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trainlab.runs import columns, display
from trainlab.runs.ranking import ranked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.runs.listing import Row

COLUMNS = ("setting", "best", "rest", "distance")
_SHOWN = 3  # values of a setting, the most frequent first


def table(rows: Sequence[Row], metric: str, best: int) -> pd.DataFrame:
    """Return in which settings the `best` runs differ from the rest: setting, best, rest, distance.

    `distance` says how far apart the two are, from 0, no difference, to 1, nothing in common: of numbers the
    Kolmogorov-Smirnov statistic, of names and of missing values the total variation distance. Of a few runs
    it is a hint, and no proof. Empty where there is no rest.
    """
    order = ranked(rows, metric)
    first, rest = order[:best], order[best:]
    names = columns.differing(order) if rest else []
    found = []
    for name in names:
        ours, theirs = ([row.config.get(name) for row in group] for group in (first, rest))
        found.append((name, _described(ours), _described(theirs), distance(ours, theirs)))
    frame = pd.DataFrame(found, columns=list(COLUMNS))
    return frame.sort_values("distance", ascending=False, kind="stable", ignore_index=True)


def distance(first: Sequence[Any], rest: Sequence[Any]) -> float:
    """Return how far apart two groups of values are, from 0 to 1, as in `table`."""
    if all(is_number(each) for each in [*first, *rest]):
        every = np.sort([*first, *rest])
        below = [np.searchsorted(np.sort(group), every, side="right") / len(group) for group in (first, rest)]
        return float(np.abs(below[0] - below[1]).max())  # scipy's, without the 60 MB that its import takes
    shares = [pd.Series(map(display.short, group)).value_counts(normalize=True) for group in (first, rest)]
    return float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2)


def is_number(found: Any) -> bool:
    """Tell whether a setting's value is a number; true and false are none."""
    return isinstance(found, int | float) and not isinstance(found, bool)


def _described(values: Sequence[Any]) -> str:
    """Return the most frequent values with how often they occur, or the median and range of many numbers."""
    counts = pd.Series([display.short(each) or "none" for each in values]).value_counts()
    many = len(counts) > _SHOWN or (len(counts) > 1 and counts.max() == 1)
    if many and all(is_number(each) for each in values):
        low, middle, high = np.quantile(np.asarray(values, float), [0, 0.5, 1])
        return f"{middle:.4g} ({low:.4g} to {high:.4g})"
    shown = [f"{value} ({count})" for value, count in counts.head(_SHOWN).items()]
    return ", ".join(shown) + (f", {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")
