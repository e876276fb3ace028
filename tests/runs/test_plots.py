from __future__ import annotations

import pandas as pd

from trainlab.runs.plots import plot_curves


def test_each_panel_has_its_tags_and_baselines_are_dashed() -> None:
    points = [("train/loss", 0, 2.0), ("train/loss", 5, 1.0), ("val_tfidf/mrr", 5, 0.3)]
    history = pd.DataFrame(points, columns=["tag", "step", "value"])
    figure = plot_curves(
        history, {"loss": ("train/loss", "val/loss"), "rank": ("val_tfidf/mrr",), "none": ("x",)}
    )
    loss, rank, none = figure.axes
    (curve,), (baseline,) = loss.lines, rank.lines
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([0, 5], [2.0, 1.0])
    assert (curve.get_linestyle(), baseline.get_linestyle()) == ("-", "--")
    assert (none.get_title(), len(none.lines)) == ("none", 0)
