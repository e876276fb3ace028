from __future__ import annotations

import math

import pytest

import trainlab
from compared_runs import row
from runs_folder import make
from trainlab.runs import listing
from trainlab.runs.compare import cost


def recorded(tmp_path, config=None, gpus=("H100", "H100"), **fields):
    make(tmp_path, "news/a", config=config or {}, hardware={"gpus": list(gpus)}, **fields)
    return listing.rows(tmp_path)[0]


@pytest.mark.parametrize(
    ("config", "gpus", "used"),
    [
        ({}, ["H100", "H100"], 1),
        ({"devices": 2}, ["H100", "H100"], 2),
        ({"devices": 2, "accelerator": "cpu"}, ["H100", "H100"], 0),
        ({}, [], 0),
    ],
)
def test_gpu_hours_count_the_gpus_that_were_used(tmp_path, config, gpus, used):
    found = recorded(tmp_path, config, gpus)
    assert cost.gpu_hours(found) == pytest.approx(used * 200 / 3600)


def test_of_a_foreign_run_nobody_knows_the_gpus():
    assert math.isnan(cost.gpu_hours(row(seconds=10.0)))
    assert cost.gpu_hours(row(seconds=3600.0, last={"vitals/gpu_percent": 50.0})) == 1


def test_energy_is_watts_times_the_time_since_the_point_before(tmp_path):
    with trainlab.Run("news", {}, logs=tmp_path, monitor=False) as run:
        start = run._record.started.timestamp()
        for step, (seconds, watts) in enumerate([(36, 100.0), (72, 300.0)]):
            run.writer.add_scalar(cost.WATTS, watts, step, walltime=start + seconds)
            run._summary.add(cost.WATTS, watts, step)
    (found,) = listing.rows(tmp_path)
    assert cost.energy(found) == pytest.approx(1.0 + 3.0, rel=1e-4)


def test_without_watts_there_is_no_energy_and_the_table_says_nothing():
    table = cost.table([row(seconds=5.0), row("b", seconds=None, status="unreadable")])
    assert list(table["run"]) == ["a", "b"]
    assert table["energy_wh"].isna().all()
    assert table["seconds"].isna().tolist() == [False, True]


def test_the_cost_of_no_runs_is_an_empty_table():
    assert list(cost.table([]).columns) == ["run", "status", "seconds", "gpu_hours", "energy_wh"]
