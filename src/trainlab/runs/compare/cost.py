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
    found = {
        "run": labels(rows),
        "status": [row.status for row in rows],
        "seconds": pd.Series([row.seconds for row in rows], dtype=float),
        "gpu_hours": pd.Series(map(gpu_hours, rows), dtype=float),
        "energy_wh": pd.Series(map(energy, rows), dtype=float),
    }
    return pd.DataFrame(found)


def gpu_hours(row: Row) -> float:
    """Return the running hours times the GPUs used, by settings and record; NaN where one isn't known."""
    seen = any(tag.startswith(f"{VITALS}gpu_") for tag in row.last)
    on_cpu = row.config.get("accelerator") == "cpu"
    if row.seconds is None or (row.record is None and not seen and not on_cpu):
        return np.nan
    devices = row.config.get("devices")
    used = devices if isinstance(devices, int) and not isinstance(devices, bool) and devices > 0 else 1
    had = seen or (row.record is not None and row.record.hardware.get("gpus"))
    return used * row.seconds / _SECONDS_PER_HOUR if had and not on_cpu else 0.0


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
