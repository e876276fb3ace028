"""All runs under `logs/` as pandas DataFrames."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from trainlab.cleaning import printable
from trainlab.run import events
from trainlab.run.find import find
from trainlab.runs.columns import FACTS
from trainlab.runs.listing import rows

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from trainlab.runs.listing import Row

POINT = ("tag", "step", "wall_time", "value")


def table(logs: Path | None = None, experiment: str | None = None) -> pd.DataFrame:
    """Return one row a run, the newest first.

    Columns: experiment, run, status, started (UTC), seconds, reason, folder, and as many `config.<key>`,
    `best.<tag>` (of metrics whose direction is known) and `last.<tag>` as there are in any run. Runs that
    can't be read have the status 'unreadable' and a reason. Raises UserError when `logs` is no folder, or no
    run belongs to `experiment`.
    """
    import pandas as pd

    frame = pd.DataFrame([flat(row) for row in rows(logs, experiment)])
    frame = frame.reindex(columns=list(dict.fromkeys([*FACTS, *frame.columns])))
    frame["started"] = pd.to_datetime(frame["started"], utc=True)
    return frame


def scalars(run: str | Path) -> pd.DataFrame:
    """Return all points of a run, a folder or whatever `find` understands: tag, step, wall_time, value.

    `wall_time` is in seconds since 1970. A file that can't be read is named in a warning. Raises UserError
    for an unknown run.
    """
    import pandas as pd

    history = events.read(find(run))
    for sentence in history.damaged:
        warnings.warn(printable(sentence), stacklevel=2)
    parts = [
        pd.DataFrame({"tag": tag, "step": curve.steps, "wall_time": curve.wall_times, "value": curve.values})
        for tag, curve in sorted(history.curves.items())
        if curve.steps
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(POINT))


def flat(row: Row) -> dict[str, Any]:
    """Return a row as one level of columns, as in `table`."""
    facts = {name: getattr(row, name) for name in FACTS} | {"folder": str(row.folder)}
    nested = {"config": row.config, "best": row.best, "last": row.last}
    return facts | {
        f"{group}.{key}": value for group, values in nested.items() for key, value in values.items()
    }
