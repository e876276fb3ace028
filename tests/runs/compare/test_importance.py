from __future__ import annotations

import pytest

from compared_runs import random_rows, row
from trainlab.runs.compare import importance


@pytest.fixture(scope="module")
def table():
    return importance.table(random_rows(40), "val/loss")


def test_the_setting_that_decides_is_the_most_important_and_its_interval_lies_above_0(table):
    assert table["setting"][0] == "learning_rate"
    assert table["low"][0] > 0.3


def test_a_setting_without_influence_is_not_told_from_0(table):
    seed = table[table["setting"] == "seed"].iloc[0]
    assert seed["low"] < 0.02
    assert abs(seed["importance"]) < 0.05


def test_the_same_runs_give_the_same_figures(table):
    assert importance.table(random_rows(40), "val/loss").equals(table)


def test_missing_settings_and_mixed_types_are_taken(table):
    rows = random_rows(40)
    for index, each in enumerate(rows):
        if index % 3 == 0:
            each.config.pop("seed")
        each.config["mixed"] = "auto" if index % 2 else index
    assert importance.table(rows, "val/loss")["setting"][0] == "learning_rate"


def test_too_few_runs_are_told_with_the_number_it_takes():
    rows = random_rows(importance.MINIMUM - 1)
    said = importance.missing(rows, "val/loss")
    assert f"needs {importance.MINIMUM} runs with val/loss" in said
    assert f"there are {importance.MINIMUM - 1}" in said
    assert importance.table(rows, "val/loss").empty


def test_many_settings_need_more_runs():
    names = [f"s{number}" for number in range(10)]
    rows = [row(f"r{index}", loss=float(index), config=dict.fromkeys(names, index)) for index in range(20)]
    assert "needs 40 runs" in importance.missing(rows, "val/loss")


def test_runs_that_are_all_alike_have_nothing_to_tell():
    same = [row(f"r{index}", loss=1.0, config={"lr": index}) for index in range(20)]
    assert importance.missing(same, "val/loss") == "The 20 runs do not differ in val/loss."
    alike = [row(f"r{index}", loss=float(index), config={"lr": 1}) for index in range(20)]
    assert importance.missing(alike, "val/loss") == "The 20 runs do not differ in their settings."
