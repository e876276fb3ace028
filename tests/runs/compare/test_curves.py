from __future__ import annotations

import math
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from compared_runs import record, record_foreign, row
from trainlab.run import record as records
from trainlab.run.events import Curve
from trainlab.runs import listing
from trainlab.runs.compare import XAxis, curves


def recursion(values, weight):
    """TensorBoard's definition, value by value."""
    last, count, smoothed = 0.0, 0, []
    for value in values:
        if math.isfinite(value):
            last, count = weight * last + (1 - weight) * value, count + 1
            smoothed.append(last / (1 - weight**count))
        else:
            smoothed.append(value)
    return smoothed


@pytest.mark.parametrize("weight", [0.3, 0.6, 0.99, 0.999])
def test_smoothing_is_tensorboards(weight):
    values = np.random.default_rng(0).normal(size=2000).cumsum()
    values[[0, 7, 8, 100]] = [math.nan, math.inf, -math.inf, math.nan]
    assert np.allclose(curves.smooth(values, weight), recursion(values, weight), rtol=1e-9, equal_nan=True)


def test_smoothing_has_the_values_of_tensorboards_own_test():
    assert curves.smooth([1, 0.5, 0], 0.6) == pytest.approx([1, 0.6875, 0.4125 * 0.64 / 0.784])
    assert curves.smooth([0, 0.5, 1], 0.6) == pytest.approx([0, 0.3125, 0.52 / 0.784])


@pytest.mark.parametrize("values", [[], [2.0], [3.0] * 9, [math.nan] * 3])
def test_nothing_a_point_and_a_constant_stay_as_they_are(values):
    assert np.array_equal(curves.smooth(values, 0.9), values, equal_nan=True)


def test_weight_0_smooths_nothing():
    assert list(curves.smooth([1, 5, 2], 0)) == [1, 5, 2]


START = datetime(2026, 11, 20, 12, tzinfo=UTC)


def resumed_row():
    """A run at work for 100 s, which went on an hour later."""
    session = records.Resume(at=START + timedelta(hours=1), step=5, seconds=100.0)
    known = records.Record(experiment="news", run="a", status="finished", started=START, resumes=[session])
    return row(record=known, started=START)


def test_time_at_work_leaves_out_the_pause_before_a_resume():
    moments = [START.timestamp() + seconds for seconds in (-5, 10, 90, 3600, 3630)]
    assert list(curves.running_time(resumed_row(), moments, first=None)) == [0, 10, 90, 100, 130]


def test_a_foreign_runs_clock_starts_at_its_first_event():
    first = START.timestamp()
    assert list(curves.running_time(row(), [first + 10, first + 70], first)) == [10, 70]


def test_a_time_that_can_be_none_has_no_place_on_the_axis_of_time():
    first = START.timestamp()
    found = curves.running_time(row(), [first + 10, 1000 * first, math.nan, 0.0, -1.0, first + 70], first)
    assert [each for each in found if not math.isnan(each)] == [10, 70]
    assert np.isnan(found[1:5]).all()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"batch_size": 32}, [0, 320]),
        ({"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4}, [0, 320]),
        ({"train_batch_size": 4.0}, [0, 40]),
        ({}, [math.nan, math.nan]),
        ({"batch_size": "auto"}, [math.nan, math.nan]),
        ({"batch_size": True}, [math.nan, math.nan]),
    ],
)
def test_examples_seen_are_steps_times_the_batch_size_where_it_is_known(config, expected):
    assert np.array_equal(curves.examples_seen(row(config=config), {}, [0, 10]), expected, equal_nan=True)


def test_a_tag_that_counts_examples_goes_before_the_batch_size():
    counted = Curve([0, 10], [0.0, 1.0], [0.0, 700.0])
    found = curves.examples_seen(row(config={"batch_size": 32}), {"train/examples": counted}, [0, 5, 10])
    assert list(found) == [0, 350, 700]


def test_points_of_several_runs_foreign_ones_too_stand_in_one_table(tmp_path):
    record(tmp_path, "ours", {"batch_size": 4}, {0: 2.0, 10: 1.0})
    record_foreign(tmp_path / "other", [3.0, 2.0])
    points = curves.points(listing.rows(tmp_path), ["val/loss", "no/such"])
    assert set(points["tag"]) == {"val/loss"}
    theirs = points[points["run"] == "other"]
    ours = points[points["run"] != "other"]
    assert (list(ours["step"]), list(ours["examples"])) == ([0, 10], [0, 40])
    assert list(theirs["value"]) == [3.0, 2.0]
    assert theirs["examples"].isna().all()
    assert (points["time"] >= 0).all()


def test_a_run_that_is_being_written_gives_what_it_has(tmp_path):
    folder = record(tmp_path, "a", {}, [3.0, 2.0, 1.0])
    (file,) = folder.glob("events.*")
    file.write_bytes(file.read_bytes()[:-5])  # a torn last record
    points = curves.points(listing.rows(tmp_path), ["train/loss"])
    assert list(points["value"]) == [1.5, 1.0]


def test_a_run_that_was_taken_away_meanwhile_has_no_points(tmp_path):
    record(tmp_path, "a", {}, [1.0])
    rows = listing.rows(tmp_path)
    shutil.rmtree(tmp_path)
    assert list(curves.points(rows, ["val/loss"]).columns) == list(curves.POINTS)
    assert curves.points(rows, ["val/loss"]).empty


LONG = "20260101-120000-backbone-distilbert-base-uncased-text-title"  # the setting that differs is cut off


def test_legends_name_what_differs_rather_than_equal_long_names():
    rows = [
        row(f"{LONG}-{number}", config={"backbone": "distilbert", "margin": margin, "seed": seed})
        for number, (margin, seed) in enumerate([(1.0, 0), (5.0, 0), (5.0, 1)])
    ]
    assert curves.legends(rows) == ["margin 1, seed 0", "margin 5, seed 0", "margin 5, seed 1"]


def test_runs_of_equal_settings_foreign_ones_and_one_alone_are_told_by_their_names():
    same = [row("a", config={"margin": 1.0}), row("b", config={"margin": 1.0})]
    assert curves.legends(same) == ["a", "b"]
    assert curves.legends([*same, row("c", config={"margin": 5.0}), row("foreign")]) == [
        "margin 1: a",
        "margin 1: b",
        "margin 5",
        "foreign",
    ]
    assert curves.legends(same[:1]) == ["a"]


def test_a_legend_stays_short_safe_and_of_one_run():
    config = {f"setting_{number}": "x\x1b[2J" for number in range(20)}
    rows = [row(str(seed), config=config | {"\x07first": seed, "zero": seed}) for seed in (1, 2)]
    rows.append(row("3", config=dict.fromkeys(config, "y")))
    found = curves.legends(rows)
    assert len(set(found)) == 3
    assert all(len(each) <= 50 and each.isprintable() for each in found)


def test_epochs_are_counted_by_a_tag_or_by_what_is_planned(tmp_path):
    counted = {"epoch": Curve([0, 10], [0.0, 0.0], [0.0, 2.0])}
    assert list(curves.epochs_done(row(), counted, [0, 5, 10])) == [0, 1, 2]
    planned = records.Planned(steps=20, epochs=4, at=START)
    known = records.Record(experiment="news", run="a", status="finished", started=START, planned=planned)
    assert list(curves.epochs_done(row(record=known), {}, [0, 5, 20])) == [0, 1, 4]
    assert np.isnan(curves.epochs_done(row(), {}, [0, 5])).all()


def test_folded_runs_have_a_mean_where_all_of_them_have_points(tmp_path):
    record(tmp_path, "a", {"seed": 0}, {0: 1.0, 10: 3.0})
    record(tmp_path, "b", {"seed": 1}, {0: 2.0, 5: 4.0})
    points = curves.points(listing.rows(tmp_path), ["val/loss"])
    found = curves.folded(points, XAxis.step, "both")
    assert found[["run", "step", "value"]].to_numpy().tolist() == [["both", 0, 1.5], ["both", 5, 3.0]]
    deviation = np.std([2.0, 4.0], ddof=1)
    assert found["high"].iloc[1] == pytest.approx(3.0 + deviation)
    assert found["low"].iloc[1] == pytest.approx(3.0 - deviation)


def test_a_tag_that_one_of_several_runs_lacks_is_not_folded(tmp_path):
    record(tmp_path, "a", {"seed": 0}, [1.0])
    record_foreign(tmp_path / "news" / "b", [2.0])  # it has no train/loss
    points = curves.points(listing.rows(tmp_path), ["val/loss", "train/loss"])
    assert set(curves.folded(points, XAxis.step, "both")["tag"]) == {"val/loss"}
