"""Curves as a page draws them: in which panel, which line, and thinned to what a panel has pixels for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from trainlab import cleaning
from trainlab.runs import columns, folding, frames, plots
from trainlab.runs.compare import TITLES, curves, importance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.runs.compare import XAxis
    from trainlab.runs.compare.comparison import Comparison
    from trainlab.runs.listing import Row

MOST_POINTS = 1000  # of a curve


def lines_of(compared: Comparison) -> list[list[Row]]:
    """Return the runs of each line: one, or of a folded comparison those that differ by the seed alone."""
    return [folding.members(row) for row in compared.drawn]


def names_of(lines: Sequence[Sequence[Row]]) -> list[str]:
    """Return what to call each line beside the others, with the number of its seeds."""
    first = [
        line[0]
        if len(line) == 1
        else replace(
            line[0], config={key: each for key, each in line[0].config.items() if key != folding.SEED}
        )
        for line in lines
    ]
    more = [f" ({len(line)} seeds)" * (len(line) > 1) for line in lines]
    return [name + seeds for name, seeds in zip(curves.legends(first), more, strict=True)]


def of_line(line: Sequence[Row], name: str, tags: Sequence[str], along: XAxis) -> pd.DataFrame:
    """Return the points of a line, which is a run, or several that differ by their seed: then folded."""
    points = curves.points(line, tags)
    return curves.folded(points, along, name) if len(line) > 1 else points.assign(run=name)


def drawn(line: Sequence[Row], tags: Sequence[str], along: XAxis, smooth: float) -> dict[str, dict[str, Any]]:
    """Return a line's curves by tag, thinned: places, smoothed and exact values, and ends of the band."""
    found = {}
    for tag, curve in of_line(line, "", tags, along).groupby("tag", sort=False):
        thin = plots.thinned(curve, [smooth], MOST_POINTS).dropna(subset=[TITLES[along]])
        thin = thin.sort_values(TITLES[along], kind="stable").drop_duplicates(TITLES[along], keep="last")
        named = {
            "x": TITLES[along],
            "y": f"{smooth:g}",
            "exact": "value",
            "low": f"low {smooth:g}",
            "high": f"high {smooth:g}",
        }
        thin = thin.replace([float("inf"), -float("inf")], float("nan")).astype(object)
        found[str(tag)] = {
            key: thin[column].where(thin[column].notna(), None).tolist()
            for key, column in named.items()
            if column in thin
        }
    return found


def file(compared: Comparison, seeds: bool, kind: str, form: str, log: bool = False) -> bytes:
    """Return a picture of a comparison, or what is in it, as a file's content; a sheet computes none of that.

    Args:
        compared: What is drawn.
        seeds: Draw curves that differ by the seed alone as one.
        kind: 'curves', 'parallel' or 'importance'.
        form: 'svg', 'png', 'pdf' or 'csv'.
        log: Draw curves' values by their logarithm.
    """
    rows, metric, config = compared.comparable, compared.metric, compared.config
    if kind == "curves":
        lines = lines_of(compared.folded if seeds else compared)
        named = zip(lines, names_of(lines), strict=True)
        parts = [of_line(line, name, compared.tags, config.x) for line, name in named]
        frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*curves.POINTS])
        picture = plots.curves(frame, compared.tags, config.smooth, config.x, True, log)
    elif form != "csv":
        picture = compared.parallel() if kind == "parallel" else compared.importance()
    elif kind == "parallel":
        settings = [f"config.{each}" for each in columns.differing(rows)]
        shown = ["experiment", "run", *settings, f"best.{metric}"] if rows else None
        return frames.csv_text(rows, shown).encode(errors="replace")
    else:
        frame = importance.table(rows, metric)
    if form != "csv":
        return picture.image(form)
    texts = {name: frame[name].map(cleaning.sheet) for name in ("run", "tag", "setting") if name in frame}
    return frame.assign(**texts).to_csv(index=False, lineterminator="\n").encode(errors="replace")
