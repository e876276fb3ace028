"""Static pictures of several runs: curves, parallel coordinates, importance."""

from __future__ import annotations

import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from trainlab.runs import display
from trainlab.runs.compare import coordinates
from trainlab.runs.compare.along import TITLES, Along
from trainlab.runs.compare.curves import smooth

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from trainlab.runs.listing import Row

COLOURS = "tab10"
_MANY = 10  # runs: more get a colour each from a longer scale
_PANEL = (8.5, 3.4)  # inches, of one tag
_LONGEST = 28  # characters of a name on an axis
_WRAP = 20  # characters of a name above an axis, in one line
FEW = 30  # points of a curve, each of which is marked
FAINT = 0.25  # how visible the curve behind its smoothed self is


def curves(
    points: pd.DataFrame, tags: Sequence[str], weight: float = 0.0, along: Along = Along.step
) -> Figure:
    """Draw the curves of several runs over each other, a panel for each tag.

    `points` are those of `curves.points`; `weight` smooths as TensorBoard does, with the exact curve faint
    behind. Runs whose place along the axis isn't known are left out of it.
    """
    with _figure(_PANEL[0], _PANEL[1] * max(1, len(tags))) as figure:
        panels = figure.subplots(max(1, len(tags)), 1, squeeze=False)[:, 0]
        known = points.dropna(subset=[along.value])
        colours = _colours(list(dict.fromkeys(known["run"])))
        lines: dict[str, Line2D] = {}
        for panel, tag in zip(panels, tags, strict=False):
            lines |= _panel(panel, known[known["tag"] == tag], weight, along, colours)
            panel.set_ylabel(display.printable(tag))
        if lines:
            figure.legend(list(lines.values()), list(lines), loc="outside right upper", fontsize="small")
        else:
            _say(panels[0], "No run has such a curve.")
    return figure


def parallel(rows: Sequence[Row], metric: str) -> Figure:
    """Draw each run as a line across its settings to the metric; the best are drawn last, and darkest."""
    order, axes = coordinates.axes(rows, metric)
    with _figure(max(6.0, 1.6 * len(axes) + 1), 4.4) as figure:
        panel = figure.subplots()
        if len(axes) < 2 or not order:
            _say(panel, f"No settings that differ between runs with {metric or 'a metric'}.")
            return figure
        colours = _ranks(len(order))
        for index in reversed(range(len(order))):
            places = [axis.places[index] for axis in axes]
            panel.plot(places, color=colours[index], linewidth=1.6, alpha=0.85)
        _draw_axes(panel, axes)
        more = coordinates.left_out(rows, metric)
        title = f"{len(order)} runs, the darkest are the best by {metric}"
        panel.set_title(title + (f"; {more} more settings differ" if more else ""), fontsize="medium", pad=24)
    return figure


def importance(frame: pd.DataFrame, reason: str = "") -> Figure:
    """Draw the importance of settings, [setting, importance, low, high], as bars, or the reason for none."""
    with _figure(7.5, max(1.6, 0.42 * len(frame) + 1.1)) as figure:
        panel = figure.subplots()
        if not len(frame):
            _say(panel, reason)
            return figure
        shown = frame[::-1]
        names = [_short(name) for name in shown["setting"]]
        spread = np.abs(shown[["low", "high"]].to_numpy().T - shown["importance"].to_numpy())
        panel.barh(
            np.arange(len(shown)), shown["importance"], xerr=spread, color="#4c78a8", ecolor="#555", capsize=3
        )
        panel.set_yticks(np.arange(len(shown)), names)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_xlabel("share of the variance of ranks; the line holds 95 % of the resamples")
        panel.grid(alpha=0.3, axis="x")
    return figure


def _panel(
    panel: Axes, points: pd.DataFrame, weight: float, along: Along, colours: dict[str, str]
) -> dict[str, Line2D]:
    lines = {}
    for run, curve in points.groupby("run", sort=False):
        x, y = curve[along.value].to_numpy(float), curve["value"].to_numpy(float)
        marker = "." if len(curve) < FEW else None
        if weight:
            panel.plot(x, y, color=colours[str(run)], alpha=FAINT, linewidth=1)
            y = smooth(y, weight)
        (lines[str(run)],) = panel.plot(x, y, color=colours[str(run)], marker=marker, linewidth=1.5)
    panel.set_xlabel(TITLES[along])
    panel.grid(alpha=0.3)
    return lines


def _draw_axes(panel: Axes, axes: Sequence[coordinates.Axis]) -> None:
    halo = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
    for index, axis in enumerate(axes):
        panel.axvline(index, color="black", linewidth=0.9)
        for place, text in axis.ticks:
            panel.annotate(_short(text), (index, place), (-4, 0), textcoords="offset points", ha="right",
                           va="center", fontsize="small", bbox=halo)  # fmt: skip
    names = ["\n".join(textwrap.wrap(display.printable(axis.name), _WRAP)) for axis in axes]
    logarithmic = ["\n(log)" if axis.scale == "log" else "" for axis in axes]
    panel.set_xticks(
        range(len(axes)), [a + b for a, b in zip(names, logarithmic, strict=True)], fontsize="small"
    )
    panel.xaxis.set_ticks_position("top")
    panel.tick_params(length=0)
    panel.set(yticks=[], xlim=(-0.55, len(axes) - 0.65), ylim=(-0.05, 1.05))
    panel.spines[:].set_visible(False)


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """Give a figure to draw on, in which '$' is a letter like any other: names may hold it."""
    import matplotlib.pyplot as plt

    with plt.rc_context({"text.parse_math": False, "svg.hashsalt": "trainlab"}):
        figure = plt.figure(figsize=(width, height), layout="constrained")
        yield figure
        plt.close(figure)


def _colours(runs: Sequence[str]) -> dict[str, str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if len(runs) <= _MANY:
        return {run: to_hex(colormaps[COLOURS](index)) for index, run in enumerate(runs)}
    return {run: to_hex(colormaps["turbo"](index / (len(runs) - 1))) for index, run in enumerate(runs)}


def _ranks(count: int) -> list[str]:
    """Return a colour for each rank, the best first: from dark to pale."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](0.95 * index / max(1, count - 1))) for index in range(count)]


def _short(text: str) -> str:
    text = display.printable(text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _say(panel: Axes, text: str) -> None:
    panel.set_axis_off()
    panel.text(0.5, 0.5, textwrap.fill(text, 80), ha="center", va="center", transform=panel.transAxes)
