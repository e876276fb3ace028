"""Curves of several runs over the step, the running time, the epochs or the examples seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trainlab.run import events
from trainlab.runs import columns
from trainlab.runs.compare.differences import is_number
from trainlab.runs.display import labels, printable, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trainlab.run.events import Curve
    from trainlab.runs.compare import XAxis
    from trainlab.runs.listing import Row

POINTS = ("run", "tag", "step", "time", "epoch", "examples", "value")
_EXAMPLES = ("train/examples", "train/examples_seen", "train/samples", "train/samples_seen")  # tags
_EPOCHS = ("epoch", "train/epoch")  # tags, of Lightning's own logger and of the Transformers Trainer
_BATCH = ("batch_size", "train_batch_size", "per_device_train_batch_size")  # settings, examples a step
_LONGEST = 40  # characters of a legend, before a name
_STEPS_JOINED = ("gradient_accumulation_steps", "accumulate_grad_batches")  # settings, batches a step


def points(rows: Sequence[Row], tags: Sequence[str]) -> pd.DataFrame:
    """Return the points of some tags of several runs: the columns `POINTS`.

    `run` is as in `legends`; `time` is in minutes, as in `running_time`; `epoch` and `examples` are NaN where
    nothing tells how many there were, see `epochs_done` and `examples_seen`. A run that is gone meanwhile, or
    can't be read, has no points.
    """
    parts = []
    for row, name in zip(rows, legends(rows), strict=True):
        try:
            history = events.read(row.folder)
        except OSError:
            continue
        for tag in tags:
            if (curve := history.curves.get(tag)) is None or not curve.steps:
                continue
            found = {
                "run": name,
                "tag": tag,
                "step": curve.steps,
                "time": running_time(row, curve.wall_times, history.started) / 60,
                "epoch": epochs_done(row, history.curves, curve.steps),
                "examples": examples_seen(row, history.curves, curve.steps),
                "value": curve.values,
            }
            parts.append(pd.DataFrame(found))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(POINTS))


def legends(rows: Sequence[Row]) -> list[str]:
    """Return what to call each run beside the others: the settings in which it differs from them.

    Its name stands behind them where another has the same, and in their place where it has none.
    """
    keys = columns.differing(rows)
    known = [
        ", ".join(f"{printable(key)} {short(row.config[key])}" for key in keys if key in row.config)
        for row in rows
    ]
    known = [each if len(each) <= _LONGEST else f"{each[: _LONGEST - 1]}…" for each in known]
    return [
        each if each and known.count(each) == 1 else ": ".join(filter(None, [each, name]))
        for each, name in zip(known, labels(rows), strict=True)
    ]


def smooth(values: Iterable[float], weight: float) -> np.ndarray:
    """Return values smoothed as TensorBoard does it: an exponential moving average without its early bias.

    s_i = w·s_{i-1} + (1 - w)·x_i with s_0 = 0, divided by 1 - w^n after n finite values: TensorBoard's
    `classicSmoothing` (tensorboard/webapp/widgets/line_chart_v2/data_transformer.ts), which is pandas'
    `ewm(adjust=True)`. NaN and infinity stay where they are and count for nothing; 0 <= weight < 1.
    """
    exact = pd.Series(list(values), dtype=float)
    if weight == 0 or exact.nunique(dropna=False) <= 1:
        return exact.to_numpy()
    finite = exact.where(np.isfinite(exact))
    smoothed = finite.ewm(alpha=1 - weight, adjust=True, ignore_na=True).mean()
    return smoothed.where(finite.notna(), exact).to_numpy()


def running_time(row: Row, wall_times: Sequence[float], first: float | None) -> np.ndarray:
    """Return how many seconds the run had been running at each moment: pauses before a resume don't count.

    Moments are in seconds since 1970. The clock starts with the run; without a record, at its `first` event.
    NaN where what was written can't be a moment.
    """
    from trainlab.run.gathering import plausible

    moments = np.asarray(wall_times, dtype=float)
    moments = np.where(plausible(moments), moments, np.nan)
    started = row.started.timestamp() if row.record and row.started else first or 0.0
    elapsed = moments - started
    for session in row.record.resumes if row.record else []:
        began = session.at.timestamp()
        elapsed = np.where(moments >= began, session.seconds + moments - began, elapsed)
    return np.maximum(elapsed, 0.0)


def examples_seen(row: Row, curves: dict[str, Curve], steps: Sequence[int]) -> np.ndarray:
    """Return how many examples had been seen at each step; NaN where that isn't known.

    A tag such as train/examples counts them; otherwise it is the step times the batch size of the settings,
    which is right but for the last, smaller batch of an epoch.
    """
    if (counted := _counted(_EXAMPLES, curves, steps)) is not None:
        return counted

    def first(names: Sequence[str], otherwise: float) -> float:
        given: list[Any] = [row.config.get(name) for name in names]
        return float(next((each for each in given if is_number(each) and each > 0), otherwise))

    return np.asarray(steps, dtype=float) * first(_BATCH, np.nan) * first(_STEPS_JOINED, 1)


def epochs_done(row: Row, curves: dict[str, Curve], steps: Sequence[int]) -> np.ndarray:
    """Return how many epochs were done at each step; NaN where that isn't known.

    A tag such as epoch counts them; otherwise they are as many as the training has planned for its steps.
    """
    if (counted := _counted(_EPOCHS, curves, steps)) is not None:
        return counted
    planned = row.record.planned if row.record else None
    each = np.nan
    if planned is not None and planned.steps and planned.epochs:
        each = planned.epochs / planned.steps
    return np.asarray(steps, dtype=float) * each


def folded(points: pd.DataFrame, along: XAxis, name: str) -> pd.DataFrame:
    """Return the points of several runs, as `points`, as one run's: their mean, `low` and `high` around it.

    The two lie a standard deviation of a sample away. Values between two points of a run are taken from the
    straight line; where any of the runs has no points yet, or none any more, there is no mean: it would jump
    as one leaves. Of the places along x that of `along` alone is known, of the others NaN.
    """
    parts = []
    for tag, found in points.dropna(subset=[along.value, "value"]).groupby("tag", sort=False):
        runs = [each.sort_values(along.value, kind="stable") for _, each in found.groupby("run", sort=False)]
        if len(runs) < points["run"].nunique():
            continue
        places = [each[along.value].to_numpy(float) for each in runs]
        grid = np.unique(np.concatenate(places))
        grid = grid[(grid >= max(each[0] for each in places)) & (grid <= min(each[-1] for each in places))]
        values = [np.interp(grid, x, each["value"]) for x, each in zip(places, runs, strict=True)]
        mean, deviation = np.mean(values, axis=0), np.std(values, axis=0, ddof=min(1, len(values) - 1))
        part = pd.DataFrame({"run": name, "tag": tag, **dict.fromkeys(POINTS[2:-1], np.nan), "value": mean})
        parts.append(part.assign(**{along.value: grid, "low": mean - deviation, "high": mean + deviation}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*POINTS, "low", "high"])


def _counted(tags: Sequence[str], curves: dict[str, Curve], steps: Sequence[int]) -> np.ndarray | None:
    """Return what the first of some tags counts at each step, between two points along a straight line."""
    for tag in tags:
        if tag in curves:
            order = np.argsort(curves[tag].steps, kind="stable")  # trainings may share a folder
            return np.interp(steps, np.array(curves[tag].steps)[order], np.array(curves[tag].values)[order])
    return None
