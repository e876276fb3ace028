from __future__ import annotations

import json
import math

import pytest

from compared_runs import record, row
from trainlab.runs import listing
from trainlab.runs.compare import XAxis, panels
from trainlab.runs.compare.comparison import CompareConfig, comparison


def test_seeds_are_one_line_that_is_named_with_their_number():
    rows = [
        row(f"m{m}s{s}", loss=m + s / 10, config={"margin": m, "seed": s}) for m in (1, 2) for s in (0, 1, 2)
    ]
    compared = comparison(rows, CompareConfig.parse({}))
    lines = panels.lines_of(compared.folded)
    assert [[each.run for each in line] for line in lines] == [
        ["m1s0", "m1s1", "m1s2"],
        ["m2s0", "m2s1", "m2s2"],
    ]
    assert panels.names_of(lines) == ["margin 1 (3 seeds)", "margin 2 (3 seeds)"]
    assert len(panels.lines_of(compared)) == 6


def test_of_too_many_settings_those_with_the_best_means_are_drawn():
    losses = {1: (0.1, 0.9), 2: (0.3, 0.4), 3: (0.5, 0.6)}
    rows = [
        row(f"m{margin}s{seed}", loss=loss, config={"margin": margin, "seed": seed})
        for margin, own in losses.items()
        for seed, loss in enumerate(own)
    ]
    compared = comparison(rows, CompareConfig.parse({}), most=2).folded
    assert [each.run for (each, _) in panels.lines_of(compared)] == ["m2s0", "m1s0"]
    assert "Of 3 settings with curves the best 2 are drawn." in compared.left_out()


def test_what_cannot_be_drawn_is_null_and_places_rise(tmp_path):
    record(tmp_path, "a", {}, {0: 1.0, 2: math.nan, 1: math.inf})
    (line,) = listing.rows(tmp_path)
    found = panels.drawn([line], ["val/loss"], XAxis.step, 0.0)["val/loss"]
    assert json.dumps(found, allow_nan=False)
    assert (found["x"], found["exact"]) == ([0, 1, 2], [1.0, None, None])


def test_a_run_without_a_place_along_the_axis_has_an_empty_curve(tmp_path):
    record(tmp_path, "a", {}, [1.0, 2.0])
    found = panels.drawn(listing.rows(tmp_path), ["val/loss"], XAxis.epoch, 0.0)
    assert found["val/loss"]["x"] == []


@pytest.mark.parametrize("seeds", [True, False])
def test_no_cell_of_a_file_for_sheets_is_computed(tmp_path, seeds):
    for seed in (0, 1):
        record(tmp_path, "=1+1", {"=cmd": f"=1+{seed}", "seed": seed}, [1.0, 2.0])
    compared = comparison(listing.rows(tmp_path), CompareConfig.parse({}))
    for kind in ("curves", "parallel", "importance"):
        for line in panels.file(compared, seeds, kind, "csv").decode().splitlines():
            assert not any(cell.strip('"').startswith(("=", "+", "@")) for cell in line.split(","))


def test_without_runs_every_file_is_there():
    compared = comparison([], CompareConfig.parse({}))
    for kind in ("curves", "parallel", "importance"):
        assert panels.file(compared, False, kind, "svg").startswith(b"<svg")
        assert panels.file(compared, False, kind, "csv")
