from __future__ import annotations

import io
import math
import warnings

import pandas as pd
import pytest

from compared_runs import random_rows, row
from trainlab.runs.compare import curves, drawing
from trainlab.runs.compare.along import Along

EVIL = "$x_{$ <script>alert(1)</script> \x1b[31m"


def points(runs=("a", "b"), examples=10.0):
    values = [
        (run, tag, step, step / 60, step * examples, step % 7 + index)
        for index, run in enumerate(runs)
        for tag in ("val/loss", "train/loss")
        for step in range(40)
    ]
    return pd.DataFrame(values, columns=list(curves.POINTS))


def test_each_tag_has_its_panel_and_each_run_its_colour_in_all():
    figure = drawing.curves(points(), ["val/loss", "train/loss"])
    assert [panel.get_ylabel() for panel in figure.axes] == ["val/loss", "train/loss"]
    colours = [[line.get_color() for line in panel.lines] for panel in figure.axes]
    assert colours[0] == colours[1]
    assert len(set(colours[0])) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_a_smoothed_curve_stands_before_its_faint_self():
    panel = drawing.curves(points(["a"]), ["val/loss"], 0.6).axes[0]
    exact, smoothed = panel.lines
    assert list(exact.get_ydata()) == [step % 7 for step in range(40)]
    assert list(smoothed.get_ydata()) == list(curves.smooth(exact.get_ydata(), 0.6))
    assert exact.get_alpha() < 0.5


@pytest.mark.parametrize(("along", "last"), [(Along.step, 39), (Along.time, 39 / 60), (Along.examples, 390)])
def test_the_x_axis_is_the_step_the_time_or_the_examples(along, last):
    (line,) = drawing.curves(points(["a"]), ["val/loss"], along=along).axes[0].lines
    assert line.get_xdata()[-1] == pytest.approx(last)


def test_a_run_whose_examples_are_unknown_is_not_drawn_over_them():
    figure = drawing.curves(points(examples=math.nan), ["val/loss"], along=Along.examples)
    assert not figure.axes[0].lines
    assert "No run has such a curve" in figure.axes[0].texts[0].get_text()


def test_runs_across_axes_are_one_line_each_with_the_best_on_top():
    figure = drawing.parallel(random_rows(30), "val/loss")
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert len(lines) == 30
    assert sum(lines[-1].get_ydata()[-1:]) == 0, "the lowest loss, drawn last"


@pytest.mark.parametrize(
    "rows", [[], [row(loss=1.0)], [row(config={"lr": 1.0}), row("b", config={"lr": 2.0})]]
)
def test_without_runs_settings_or_metrics_the_picture_says_so(rows):
    assert "No settings that differ" in drawing.parallel(rows, "val/loss").axes[0].texts[0].get_text()


def test_no_importance_is_told_with_its_reason():
    figure = drawing.importance(pd.DataFrame(columns=["setting"]), "It takes 16 runs.")
    assert figure.axes[0].texts[0].get_text() == "It takes 16 runs."


@pytest.mark.parametrize("format", ["png", "svg"])
def test_names_of_any_letters_can_be_drawn(format):
    rows = [row(f"{EVIL}{index}", loss=float(index), config={EVIL: f"{EVIL}{index}"}) for index in range(3)]
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing.parallel(rows, "val/loss").savefig(file, format=format)
        drawing.curves(points([EVIL.replace("\x1b", "?"), "_b"]), ["val/loss"]).savefig(file, format=format)
    assert b"<script" not in file.getvalue()
