"""What is not worth going on with."""

from __future__ import annotations

import math

import pytest

from sweeping import steps
from trainlab.run import record
from trainlab.sweeps import pruning


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0, 2.0], ""),
        ([1.0, 2.0, math.nan], "pruned at validation 3: val/loss is NaN"),
        ([-math.inf, 2.0], "pruned at validation 1: val/loss is -inf"),
    ],
)
def test_what_is_no_number_is_pruned(values, reason):
    assert pruning.not_finite("val/loss", values) == reason


@pytest.mark.parametrize(
    ("values", "mode", "pruned"),
    [
        ([3, 2, 1, 1, 1], "min", False),
        ([3, 2, 1, 1, 1, 1], "min", True),
        ([3, 2, 1, 2, 2, 0.5], "min", False),
        ([1, 2, 3, 2, 2, 2], "max", True),
        ([1, 0, 0], "max", False),
        ([1, 0, 0, 0], "max", True),
    ],
)
def test_patience_ends_after_three_validations_without_a_better_value(values, mode, pruned):
    assert bool(pruning.impatient(values, mode)) == pruned


def test_of_a_long_curve_each_trial_reports_the_same_few_points():
    reported = [ordinal for ordinal in range(20_000) if pruning.is_reported(ordinal)]
    assert reported[:100] == list(range(100))
    assert reported[100:102] == [100, 110]
    assert len(reported) < 400


def test_a_trial_whose_goal_is_nan_is_stopped_and_recorded_as_pruned(sweep):
    value = "def value(s, step):\n    return float('nan') if s.x == 2 and step == 1 else s.x\n"
    tried = sweep(2, value=value, fixed={"hold": "1", "steps": "3"})
    process = tried.lead()
    folders = tried.held(2, 2)
    assert record.read(folders[0]).status == "running"
    import time

    deadline = time.monotonic() + 60
    while record.read(folders[1]).status == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    tried.go()
    assert process.wait(120) == 0
    trials = tried.trials()
    reason = "pruned at validation 2: val/loss is NaN"
    assert [(each.state, each.reason) for each in trials] == [("finished", ""), ("pruned", reason)]
    known = record.read(folders[1])
    assert (known.status, known.reason) == ("interrupted", reason)
    assert (folders[1] / "checkpoints").is_dir(), "it saved a checkpoint"


def test_a_nan_that_comes_last_is_pruned_too(sweep):
    (trial,) = sweep(1, value="def value(s, step):\n    return 1.0 if step < 3 else float('nan')\n").led(
        expected=1
    )
    assert (trial.state, trial.reason) == ("pruned", "pruned at validation 4: val/loss is NaN")


def test_patience_keeps_the_best_value_of_a_pruned_trial(sweep):
    value = "import time\ndef value(s, step):\n    time.sleep(0.05)\n    return max(s.x, 3.0 - step)\n"
    tried = sweep(1, value=value, prune="patience", fixed={"steps": "1000"})
    (trial,) = tried.led()
    assert (trial.state, trial.value) == ("pruned", 1.0)
    assert trial.reason.endswith("no better value for 3 validations")
    assert len(steps(tried.folders()[0])) < 1000


def test_median_prunes_a_trial_that_is_worse_than_those_before(sweep):
    value = "import time\ndef value(s, step):\n    time.sleep(0.1 if s.x == 8 else 0)\n    return 1.0 * s.x\n"
    tried = sweep(8, value=value, prune="median", fixed={"steps": "30"})
    trials = tried.led(1)
    assert [each.state for each in trials[:5]] == ["finished"] * 5
    assert trials[7].state == "pruned"
    assert trials[7].reason.startswith("pruned at validation")
    folder = tried.logs / trials[7].runs[0]
    assert (record.read(folder).status, record.read(folder).reason) == ("interrupted", trials[7].reason)
