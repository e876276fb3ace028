"""All runs under `logs/` as pandas DataFrames, as CSV and as JSON."""

from __future__ import annotations

import json
import warnings
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trainlab import cleaning
from trainlab.run import events
from trainlab.run.find import find
from trainlab.runs import columns, listing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from trainlab.runs.listing import Row

POINT = ("tag", "step", "wall_time", "value")


def table(logs: Path | None = None, experiment: str | None = None) -> pd.DataFrame:
    """Return one row a run, the newest first.

    Args:
        logs: The folder of runs; by default `logs/`.
        experiment: Only the runs of this one.

    Returns:
        The columns `experiment`, `run`, `status`, `note`, `reason`, `folder` (str), `started`
        (datetime64, UTC), `seconds` (float64), `tags` (lists of str), and as many `config.<key>` (of the
        setting's type), `best.<tag>` (of metrics whose direction is known) and `last.<tag>` (float64) as
        there are in any run.
        A run that can't be read has the status 'unreadable' and a reason.

    Raises:
        UserError: `logs` is no folder, or no run belongs to `experiment`.
    """
    import pandas as pd

    rows = listing.rows(logs, experiment)
    frame = pd.DataFrame(
        {name: [columns.value(row, name) for row in rows] for name in columns.known(rows)}
        | {"folder": [str(row.folder) for row in rows]}
    )
    return frame.assign(started=pd.to_datetime(frame["started"], utc=True))


def scalars(run: str | Path) -> pd.DataFrame:
    """Return all points of a run's curves.

    Args:
        run: A folder, or whatever `find` understands.

    Returns:
        The columns `tag` (str), `step` (int64), `wall_time` (float64, seconds since 1970), `value` (float64),
        sorted by the tag. A file that can't be read is named in a warning.

    Raises:
        UserError: No run is meant, or more than one.
    """
    import pandas as pd

    history = events.read(find(run))
    for sentence in history.damaged:
        warnings.warn(cleaning.printable(sentence), stacklevel=2)
    parts = [
        pd.DataFrame({"tag": tag, "step": curve.steps, "wall_time": curve.wall_times, "value": curve.values})
        for tag, curve in sorted(history.curves.items())
        if curve.steps
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(POINT))


def csv_text(rows: Sequence[Row], chosen: Sequence[str] | None) -> str:
    """Return all columns, or the chosen ones, as CSV with a header; a sheet computes none of it."""
    import pandas as pd

    full = {name: columns.resolve(name, rows) if chosen else name for name in chosen or columns.known(rows)}
    cells = {
        cleaning.sheet(name): [_cell(columns.value(row, each)) for row in rows] for name, each in full.items()
    }
    return pd.DataFrame(cells, dtype=object).to_csv(index=False, lineterminator="\n")


def json_text(rows: Sequence[Row], chosen: Sequence[str] | None) -> str:
    """Return a list with one object a run; numbers that JSON has no word for are null."""
    from pydantic_core import to_jsonable_python

    facts = [*(name for name in columns.FACTS if name != "folder"), *columns.swept(rows)]
    names = [*facts, "config", "last", "best"]
    if folded := columns.folded(rows):
        names += [*folded, *columns.SPREADS]
    full = {name: columns.resolve(name, rows) if chosen else name for name in chosen or names}
    objects = [{name: _exact(columns.value(row, each)) for name, each in full.items()} for row in rows]
    plain = to_jsonable_python(objects, inf_nan_mode="null", fallback=str)
    return cleaning.json_of(plain)


def _exact(found: Any) -> Any:
    return found.isoformat(timespec="milliseconds") if isinstance(found, datetime) else found


def _cell(found: Any) -> Any:
    """Return a value as a cell of a sheet: exact where it is a number, harmless where it is text."""
    if isinstance(found, list | dict):
        found = json.dumps(found)
    if found is None or isinstance(found, bool | int):
        return found
    return str(found) if isinstance(found, float) else cleaning.sheet(str(_exact(found)))
