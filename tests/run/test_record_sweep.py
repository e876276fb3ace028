"""What a run's record says of the sweep that it is a trial of."""

from __future__ import annotations

import json

import pytest

import trainlab
from trainlab.run import record, stopping

SWEEP = {"name": "margins", "trial": 7, "attempts": 2, "seed": 1}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "logs" / "news" / "20260101-000000-margins-007"
    made.mkdir(parents=True)
    record.create(made, "news", sweep=SWEEP)
    return made


def test_a_run_knows_its_sweep_and_keeps_it_when_it_goes_on(folder):
    found = record.read(folder).sweep
    assert (found.name, found.trial, found.attempts, found.seed) == ("margins", 7, 2, 1)
    assert record.reopen(folder).sweep == found
    assert record.reopen(folder, sweep=SWEEP | {"attempts": 3}).sweep.attempts == 3
    assert record.reopen(folder, sweep=None).sweep.attempts == 3


def test_why_a_trial_is_asked_to_end_is_its_reason_once_it_has_been_interrupted(folder):
    stopping.tell_why(folder, "pruned at validation 3")
    assert record.write_end(folder, "interrupted", "SIGTERM").reason == "pruned at validation 3"
    again = record.reopen(folder)
    assert (again.reason, again.sweep.stopped) == (None, None)
    assert record.write_end(folder, "interrupted", "SIGTERM").reason == "SIGTERM"


def test_a_trial_that_fails_or_finishes_all_the_same_says_so(folder):
    stopping.tell_why(folder, "pruned at validation 3")
    assert record.write_end(folder, "failed", "ValueError: x").reason == "ValueError: x"
    assert record.write_end(folder, "finished").reason is None


def test_a_run_of_no_sweep_is_told_nothing(own_logs):
    with trainlab.Run("news", monitor=False) as run:
        stopping.tell_why(run.folder, "stopped by hand")
    assert record.read(run.folder).sweep is None
    assert record.read(run.folder).status == "finished"


@pytest.mark.parametrize(
    "wrong",
    [
        "margins",
        {"name": "margins"},
        {"name": "m" * 1000, "trial": 1},
        {"name": "margins", "trial": -1},
        {"name": "margins", "trial": 1, "stopped": "x" * 1000},
        {"name": ["margins"], "trial": {"a": 1}},
    ],
)
def test_what_cannot_be_a_sweep_is_none_and_the_run_is_still_a_run(folder, wrong):
    known = json.loads((folder / record.FILE).read_text())
    (folder / record.FILE).write_text(json.dumps(known | {"sweep": wrong}))
    assert record.read(folder).sweep is None
    assert record.read(folder).run == folder.name
