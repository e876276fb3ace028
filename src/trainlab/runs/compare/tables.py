"""Tables of runs for a notebook and for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from trainlab.runs import columns, display
from trainlab.runs.compare import cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.runs.listing import Row


def runs(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the table that a terminal would show, with every column, as text."""
    return pd.DataFrame({column.title: column.cells for column in display.whole(rows)} if rows else {})


def leaders(best: Sequence[Row], rows: Sequence[Row], metric: str) -> pd.DataFrame:
    """Return some runs with their metric, the settings in which `rows` differ, and their cost."""
    names = [name.removeprefix("config.") for name in columns.differing(rows)]
    found = [
        {
            "run": name,
            metric: row.best[metric],
            "last": row.last.get(metric),
            "at step": row.record.best[metric].step if row.record and metric in row.record.best else None,
            **{name: display.short(row.config.get(name)) for name in names},
            "duration": display.duration(row.seconds),
            "GPU hours": cost.gpu_hours(row),
        }
        for row, name in zip(best, display.labels(best), strict=True)
    ]
    return pd.DataFrame(found, index=pd.RangeIndex(1, len(found) + 1, name="rank"))
