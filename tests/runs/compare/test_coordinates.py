from __future__ import annotations

from itertools import pairwise

import pytest

from compared_runs import row
from trainlab.runs.compare import coordinates


def test_numbers_lie_by_their_size_between_the_least_and_the_greatest():
    axis = coordinates.axis("margin", [3.0, 5.0, 10.0])
    assert axis.scale == "linear"
    assert axis.places == pytest.approx([0, 2 / 7, 1])
    assert [text for _, text in axis.ticks] == ["3", "5", "10"]


def test_numbers_that_span_orders_of_magnitude_get_a_logarithmic_axis():
    axis = coordinates.axis("lr", [1e-5, 1e-4, 1e-3])
    assert axis.scale == "log"
    assert axis.places == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize("values", [[0.0, 1000.0], [-1.0, 1000.0]])
def test_zero_and_negative_numbers_have_no_logarithm(values):
    assert coordinates.axis("x", values).scale == "linear"


@pytest.mark.parametrize("values", [["b", "a", "b"], [True, False, True], ["auto", 1, "auto"]])
def test_text_truth_and_mixtures_get_an_axis_of_names(values):
    axis = coordinates.axis("x", values)
    assert axis.scale == "names"
    assert sorted(axis.places) in ([0, 0, 1], [0, 1, 1])


def test_runs_without_the_setting_lie_below_all_others():
    axis = coordinates.axis("lr", [1.0, None, 2.0])
    assert axis.places[1] == 0 < axis.places[0] < axis.places[2] == 1
    assert (axis.labels[1], axis.ticks[0]) == ("none", (0.0, "none"))


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], ["x"]])
def test_one_value_lies_in_the_middle(values):
    assert set(coordinates.axis("x", values).places) == {0.5}


def test_many_numbers_have_few_ticks_that_keep_their_distance():
    places = [place for place, _ in coordinates.axis("x", [index / 7 for index in range(50)]).ticks]
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
    order, axes = coordinates.axes([*rows, row("without")], "val/loss", most=9)
    assert [each.run for each in order] == ["r4", "r3", "r2", "r1", "r0"]
    assert [axis.name for axis in axes] == [*(f"s{n}" for n in range(9)), "val/loss"]
    assert coordinates.left_out(rows, "val/loss", most=9) == 1
