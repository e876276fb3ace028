"""What runs cost: time, GPU hours, energy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from trainlab.run.monitor import VITALS
from trainlab.runs.compare import curves
from trainlab.runs.display import labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.runs.listing import Row

WATTS = f"{VITALS}gpu_watts"
_SECONDS_PER_HOUR = 3600


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return what each run cost: run, status, seconds, gpu_hours, energy_wh; NaN where it wasn't recorded.

    `energy_wh` is what the GPUs drew, in watt hours: the processor and the rest aren't measured.
    """
    found = [
        {
            "run": name,
            "status": row.status,
            "seconds": row.seconds,
            "gpu_hours": gpu_hours(row),
            "energy_wh": energy(row),
        }
        for row, name in zip(rows, labels(rows), strict=True)
    ]
    return pd.DataFrame(found, columns=["run", "status", "seconds", "gpu_hours", "energy_wh"])


def gpus(row: Row) -> int | None:
    """Return how many GPUs a run used by its settings and record, None where nothing tells."""
    seen = any(tag.startswith(f"{VITALS}gpu_") for tag in row.last)
    if row.config.get("accelerator") == "cpu":
        return 0
    if row.record is None and not seen:
        return None
    devices = row.config.get("devices")
    used = devices if isinstance(devices, int) and not isinstance(devices, bool) and devices > 0 else 1
    return used if seen or (row.record and row.record.hardware.get("gpus")) else 0


def gpu_hours(row: Row) -> float:
    """Return the hours at work times the GPUs used, NaN where one of them isn't known."""
    used = gpus(row)
    return np.nan if used is None or row.seconds is None else used * row.seconds / _SECONDS_PER_HOUR


def energy(row: Row) -> float:
    """Return the energy of a run's GPUs in watt hours, NaN where no watts were recorded.

    A point of `vitals/gpu_watts` is the mean since the point before, or since the start; pauses before a
    resume count for nothing.
    """
    if WATTS not in row.last:
        return np.nan
    watts = curves.points([row], [WATTS]).dropna(subset="value")
    hours = np.diff(watts["time"], prepend=0.0) / 60
    return float((watts["value"] * np.maximum(hours, 0.0)).sum())
