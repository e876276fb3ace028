from __future__ import annotations

import json
import math
import warnings
from itertools import pairwise

import pandas as pd
import pytest

from compared_runs import random_rows, row
from trainlab.runs import plots
from trainlab.runs.compare import XAxis, curves

EVIL = "$x_{$ <script>alert(1)</script> \x1b[31m"


def points(runs=("a", "b"), examples=10.0, count=40):
    values = [
        (run, tag, step, step / 60, step / 10, step * examples, step % 7 + index)
        for index, run in enumerate(runs)
        for tag in ("val/loss", "train/loss")
        for step in range(count)
    ]
    return pd.DataFrame(values, columns=list(curves.POINTS))


def test_a_picture_by_logarithm_leaves_out_what_has_none():
    picture = plots.curves(points(["a"]), ["val/loss"], logarithmic=True)
    (panel,) = panels(picture)
    assert all("value > 0" in str(layer["transform"]) for layer in panel["layer"])
    assert picture.image("svg").startswith(b"<svg")


def test_folded_runs_are_drawn_with_the_spread_around_them():
    folded = curves.folded(points(), XAxis.step, "both")
    picture = plots.curves(folded, ["val/loss"], 0.6, for_file=True)
    (panel,) = panels(picture)
    assert panel["layer"][0]["mark"]["type"] == "area"
    assert {each["run"] for each in values(picture)} == {"both"}
    assert all(each["low 0.6"] < each["0.6"] < each["high 0.6"] for each in values(picture))


def panels(picture):
    return picture.spec["vconcat"]


def values(picture):
    """Return the points of runs that are drawn, of all panels; each data set lies in the picture once."""
    found = [each for values in picture.spec["datasets"].values() for each in values]
    return [each for each in found if "run" in each]


def words(picture):
    return " ".join(picture.spec["mark"]["text"])


def test_a_picture_is_vega_lite_for_jupyterlab_and_a_png_for_the_rest():
    bundle = plots.curves(points(), ["val/loss"])._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    spec = bundle[plots.MIME]
    assert spec["$schema"].endswith("/v5.json"), "another version than the type of the output says"
    assert '"url"' not in json.dumps(spec, allow_nan=False)


@pytest.mark.parametrize(("format", "begins"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("pdf", b"%PDF")])
def test_names_of_any_letters_can_be_drawn_into_any_file(format, begins):
    rows = [row(f"{EVIL}{index}", loss=float(index), config={EVIL: f"{EVIL}{index}"}) for index in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in (
            plots.parallel(rows, "val/loss"),
            plots.curves(points([EVIL.replace("\x1b", "?"), "_b"]), ["val/loss"]),
            plots.importance(pd.DataFrame([{"setting": EVIL, "importance": 0.5, "low": 0.1, "high": 0.6}])),
        ):
            content = picture.image(format)
            assert content.startswith(begins)
            assert b"<script" not in content
            assert b"\x1b" not in content or format != "svg"


def test_each_tag_has_its_panel_and_each_run_its_colour_in_all():
    first, second = panels(plots.curves(points(), ["val/loss", "train/loss"]))
    colours = [panel["layer"][1]["encoding"]["color"] for panel in (first, second)]
    assert colours[0] == colours[1]
    assert colours[0]["scale"]["domain"] == ["a", "b"]
    assert [panel["layer"][1]["encoding"]["y"]["title"] for panel in (first, second)] == [
        "val/loss",
        "train/loss",
    ]


def test_a_smoothed_curve_stands_before_its_faint_self():
    picture = plots.curves(points(["a"]), ["val/loss"], 0.6)
    chosen = {each["name"]: each.get("value") for each in picture.spec["params"]}
    assert (chosen["smoothing"], chosen["along"]) == ("0.6", "step")
    exact, smoothed = panels(picture)[0]["layer"][:2]
    assert (exact["encoding"]["y"]["field"], smoothed["encoding"]["y"]["field"]) == ("value", "y")
    assert exact["encoding"]["opacity"]["condition"][0]["value"] < 0.5
    drawn = values(picture)
    assert [each["value"] for each in drawn] == [step % 7 for step in range(40)]
    expected = curves.smooth([step % 7 for step in range(40)], 0.6)
    assert [each["0.6"] for each in drawn] == pytest.approx(list(expected), rel=1e-5)


def test_a_long_curve_is_thinned_after_it_was_smoothed_and_less_in_a_file():
    long = points(["a"], count=5000)
    found = values(plots.curves(long, ["val/loss"], 0.75))
    assert len(found) == plots.MOST_POINTS
    assert (found[0]["step"], found[-1]["step"]) == (0, 4999)
    exact = long[long["tag"] == "val/loss"]["value"]
    assert found[-1]["0.75"] == pytest.approx(curves.smooth(exact, 0.75)[-1], rel=1e-5)
    file = plots.curves(long, ["val/loss"], for_file=True)
    assert len(values(file)) == plots.MOST_IN_FILE
    assert all(layer["mark"].get("opacity") != 0 for layer in panels(file)[0]["layer"])


@pytest.mark.parametrize(("along", "last"), [(XAxis.step, 39), (XAxis.time, 0.65), (XAxis.examples, 390)])
def test_the_x_axis_is_the_step_the_time_or_the_examples(along, last):
    picture = plots.curves(points(["a"]), ["val/loss"], along=along)
    (chosen,) = [each for each in picture.spec["params"] if each["name"] == "along"]
    assert values(picture)[-1][chosen["value"]] == pytest.approx(last)
    assert panels(picture)[0]["title"]["text"] == {"expr": "along"}


def test_runs_whose_examples_are_unknown_are_not_drawn_over_them():
    unknown = points(examples=math.nan)
    assert values(plots.curves(unknown, ["val/loss"]))[0]["examples seen"] is None
    assert words(plots.curves(unknown, ["val/loss"], along=XAxis.examples)) == "No run has such a curve."
    assert words(plots.curves(points([]), [])) == "No run has such a curve."


def test_the_legend_of_a_file_names_only_what_is_drawn_there():
    some = pd.concat([points(["a"]), points(["b"], examples=math.nan)])
    for for_file, named in ((True, ["a"]), (False, ["a", "b"])):
        (panel,) = panels(plots.curves(some, ["val/loss"], along=XAxis.examples, for_file=for_file))
        assert panel["layer"][0]["encoding"]["color"]["scale"]["domain"] == named


@pytest.mark.parametrize(("count", "marked"), [(1, True), (2, True), (5000, False)])
def test_the_points_of_a_short_curve_are_marked(count, marked):
    """A line of one point is none: in the notebook there was nothing to see of it."""
    picture = plots.curves(points(["a"], count=count), ["val/loss"], 0.6)
    assert {each["few"] for each in values(picture)} == {marked}
    marks = [layer for layer in panels(picture)[0]["layer"] if layer["mark"]["type"] == "point"]
    (seen,) = [each for each in marks if "opacity" not in each["mark"]]
    assert seen["transform"][-1] == {"filter": "datum.few"}


def test_every_run_crosses_every_axis_with_the_best_on_top():
    picture = plots.parallel(random_rows(30), "val/loss")
    drawn = values(picture)
    assert len(drawn) == 30 * 4
    assert [each["rank"] for each in drawn[-4:]] == [1] * 4
    assert drawn[-1]["place"] == 0, "the lowest loss"
    assert picture.spec["params"][-1]["bind"]["max"] == 30
    json.dumps(picture.spec, allow_nan=False)


@pytest.mark.parametrize(
    "rows", [[], [row(loss=1.0)], [row(config={"lr": 1.0}), row("b", config={"lr": 2.0})]]
)
def test_without_runs_settings_or_metrics_the_picture_says_so(rows):
    assert "No settings that differ" in words(plots.parallel(rows, "val/loss"))


def test_the_importance_of_settings_is_bars_or_the_reason_for_none():
    frame = pd.DataFrame([{"setting": "lr", "importance": 0.5, "low": 0.1, "high": 0.6}])
    assert plots.importance(frame).spec["layer"][0]["mark"]["type"] == "bar"
    empty = pd.DataFrame(columns=["setting"])
    assert words(plots.importance(empty, "It takes 16 runs.")) == "It takes 16 runs."


def test_numbers_lie_by_their_size_between_the_least_and_the_greatest():
    axis = plots.axis("margin", [3.0, 5.0, 10.0])
    assert axis.scale == "linear"
    assert axis.places == pytest.approx([0, 2 / 7, 1])
    assert [text for _, text in axis.ticks] == ["3", "5", "10"]


def test_numbers_that_span_orders_of_magnitude_get_a_logarithmic_axis():
    axis = plots.axis("lr", [1e-5, 1e-4, 1e-3])
    assert axis.scale == "log"
    assert axis.places == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize("values", [[0.0, 1000.0], [-1.0, 1000.0]])
def test_zero_and_negative_numbers_have_no_logarithm(values):
    assert plots.axis("x", values).scale == "linear"


@pytest.mark.parametrize("values", [["b", "a", "b"], [True, False, True], ["auto", 1, "auto"]])
def test_text_truth_and_mixtures_get_an_axis_of_names(values):
    axis = plots.axis("x", values)
    assert axis.scale == "names"
    assert sorted(axis.places) in ([0, 0, 1], [0, 1, 1])


def test_runs_without_the_setting_lie_below_all_others():
    axis = plots.axis("lr", [1.0, None, 2.0])
    assert axis.places[1] == 0 < axis.places[0] < axis.places[2] == 1
    assert (axis.labels[1], axis.ticks[0]) == ("none", (0.0, "none"))


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], ["x"]])
def test_one_value_lies_in_the_middle(values):
    assert set(plots.axis("x", values).places) == {0.5}


@pytest.mark.parametrize("values", [[index / 7 for index in range(50)], [1.0, 1.001, 2.0, 3.0]])
def test_many_numbers_have_few_ticks_that_keep_their_distance(values):
    places = [place for place, _ in plots.axis("x", values).ticks]
    assert 3 <= len(places) <= 8
    assert min(after - before for before, after in pairwise(places)) > 0.04


def test_axes_are_the_settings_that_differ_and_the_metric_and_those_of_names_that_vary_most_stay():
    rows = [
        row(
            f"r{index}",
            loss=float(-index),
            config={"same": 1, "two": index % 2, **{f"s{n}": index for n in range(9)}},
        )
        for index in range(5)
    ]
    order, axes, left_out = plots.axes([*rows, row("without")], "val/loss", most=9)
    assert [each.run for each in order] == ["r4", "r3", "r2", "r1", "r0"]
    assert [axis.name for axis in axes] == [*(f"s{n}" for n in range(9)), "val/loss"]
    assert left_out == 1


def test_each_panel_of_a_run_has_its_tags_and_baselines_are_dashed() -> None:
    points = [("train/loss", 0, 2.0), ("train/loss", 5, 1.0), ("val_tfidf/mrr", 5, 0.3)]
    history = pd.DataFrame(points, columns=["tag", "step", "value"])
    figure = plots.plot_curves(
        history, {"loss": ("train/loss", "val/loss"), "rank": ("val_tfidf/mrr",), "none": ("x",)}
    )
    loss, rank, none = figure.axes
    (curve,), (baseline,) = loss.lines, rank.lines
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([0, 5], [2.0, 1.0])
    assert (curve.get_linestyle(), baseline.get_linestyle()) == ("-", "--")
    assert (none.get_title(), len(none.lines)) == ("none", 0)
