"""Tables of runs for a notebook and for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from trainlab.runs import columns, display, ranking
from trainlab.runs.compare import cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.runs.listing import Row


def runs(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the table that a terminal would show, with every column, as text."""
    return pd.DataFrame({column.title: column.cells for column in display.whole(rows)} if rows else {})


def leaders(groups: Sequence[Sequence[Row]], metric: str, count: int) -> pd.DataFrame:
    """Return the first runs of each group with their metric, the settings that differ, and their cost.

    The rank starts again with each group, whose data are named where there are several.
    """
    best = [row for group in groups for row in group[:count]]
    data = [name for group, name in zip(groups, ranking.names(groups), strict=True) for _ in group[:count]]
    ranks = [rank for group in groups for rank, _ in enumerate(group[:count], 1)]
    everyone = [row for group in groups for row in group]
    names = columns.differing(everyone)
    found = [
        {
            "run": name,
            **({"data": on} if len(groups) > 1 else {}),
            metric: row.best[metric],
            "last": row.last.get(metric),
            "at step": row.best_steps.get(metric),
            **{name: display.short(row.config.get(name)) for name in names},
            "duration": display.duration(row.seconds),
            "GPU hours": cost.gpu_hours(row),
        }
        for row, name, on in zip(best, display.labels(best), data, strict=True)
    ]
    return pd.DataFrame(found, index=pd.Index(ranks, name="rank"))
