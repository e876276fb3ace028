from __future__ import annotations

import json

import pandas as pd
import pytest

from compared_runs import random_rows, row
from trainlab.runs.compare import curves, interactive


def long_curve(count):
    values = [("a", "val/loss", step, step / 60, float("nan"), (step % 10) / 3) for step in range(count)]
    return pd.DataFrame(values, columns=list(curves.POINTS))


def values(picture):
    return picture.spec["data"]["values"]


def test_a_picture_is_vega_lite_for_jupyterlab_and_a_png_for_the_rest():
    bundle = interactive.curves(long_curve(9), ["val/loss"])._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    spec = bundle[interactive.MIME]
    json.dumps(spec, allow_nan=False)
    assert "url" not in json.dumps(spec).replace("pointerover", "")


def test_a_long_curve_is_thinned_after_it_was_smoothed():
    points = long_curve(5000)
    found = values(interactive.curves(points, ["val/loss"], 0.75))
    assert len(found) == interactive.MOST_POINTS
    assert (found[0]["step"], found[-1]["step"]) == (0, 4999)
    smoothed = curves.smooth(points["value"], 0.75)
    assert found[-1]["0.75"] == pytest.approx(smoothed[-1], rel=1e-5)
    assert found[-1]["0"] == pytest.approx(points["value"].iloc[-1], rel=1e-5)


def test_unknown_examples_are_null_and_left_out_there():
    assert values(interactive.curves(long_curve(2), ["val/loss"]))[0]["examples seen"] is None


def test_every_run_crosses_every_axis():
    picture = interactive.parallel(random_rows(30), "val/loss")
    assert len(values(picture)) == 30 * 4
    assert {each["rank"] for each in values(picture)} == set(range(1, 31))
    json.dumps(picture.spec, allow_nan=False)


@pytest.mark.parametrize("rows", [[], [row(loss=1.0)]])
def test_with_nothing_to_draw_the_static_picture_says_why(rows):
    for picture in (interactive.parallel(rows, "val/loss"), interactive.curves(long_curve(0), [])):
        assert set(picture._repr_mimebundle_()) == {"image/png", "text/plain"}


@pytest.mark.parametrize(("count", "marked"), [(1, True), (2, True), (5000, False)])
def test_the_points_of_a_short_curve_are_marked_as_in_the_report(count, marked):
    """A line of one point is none: in the notebook there was nothing to see of it."""
    picture = interactive.curves(long_curve(count), ["val/loss"], 0.6)
    assert {each["few"] for each in values(picture)} == {marked}
    marks = [layer for layer in picture.spec["layer"] if layer["mark"]["type"] == "point"]
    seen = [layer for layer in marks if layer["mark"].get("opacity") != 0]
    assert [layer["transform"] for layer in seen] == [[{"filter": "datum.few"}]]
    assert seen[0]["encoding"]["y"]["field"] == "y"
    (panel,) = picture.static.axes
    assert {line.get_marker() for line in panel.lines} <= {"None", "." if marked else "None"}
    assert (panel.lines[-1].get_marker() == ".") == marked
