from __future__ import annotations

import math

import pytest

from compared_runs import row
from trainlab.runs.compare import differences


def test_the_best_come_first_and_runs_without_the_metric_not_at_all():
    rows = [
        row("a", loss=3.0),
        row("b", loss=1.0),
        row("c"),
        row("d", loss=math.nan),
        row("e", loss=math.inf),
    ]
    assert [each.run for each in differences.ranked(rows, "val/loss")] == ["b", "a"]
    scored = [row(name, last=each, best=each) for name, each in [("a", {"f1": 0.1}), ("b", {"f1": 0.9})]]
    assert [each.run for each in differences.ranked(scored, "f1")] == ["b", "a"]


@pytest.mark.parametrize(
    ("first", "rest", "expected"),
    [
        ([1, 2], [3, 4], 1.0),
        ([1, 2], [1, 2], 0.0),
        ([5, 5], [1, 9], 0.5),  # between the others: medians would not tell
        (["x"], ["x", "y"], 0.5),
        ([None], [1.0], 1.0),
        ([True, False], [True, False], 0.0),
    ],
)
def test_distance_goes_from_alike_to_nothing_in_common(first, rest, expected):
    assert differences.distance(first, rest) == pytest.approx(expected)


def test_the_table_names_the_setting_that_sets_the_best_apart_first():
    rows = [
        row(
            f"r{index}",
            loss=float(index),
            config={"lr": 0.1 if index < 2 else 0.2, "seed": index % 2, "same": 1},
        )
        for index in range(8)
    ]
    table = differences.table(rows, "val/loss", best=2)
    assert list(table["setting"]) == ["lr", "seed"]
    assert list(table.loc[0]) == ["lr", "0.1 (2)", "0.2 (6)", 1.0]


def test_many_numbers_are_told_by_median_and_range():
    rows = [row(f"r{index}", loss=float(index), config={"lr": float(index)}) for index in range(7)]
    assert list(differences.table(rows, "val/loss", best=2).loc[0])[1:3] == ["0.5 (0 to 1)", "4 (2 to 6)"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_without_a_rest_nothing_differs(count):
    rows = [row(f"r{index}", loss=float(index), config={"lr": index}) for index in range(count)]
    assert differences.table(rows, "val/loss", best=3).empty
