from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from runs_folder import make, points
from trainlab.run.run import Run
from trainlab.runs import listing
from trainlab.runs.display import progress


def said(logs, step, planned=None):
    last = {} if step is None else {"train/loss": {"value": 1.0, "step": step}}
    folder = make(logs, "news/a", status="running", last=last, planned=dated(planned))
    return progress(listing.read(folder, logs))


def plan(steps=None, epochs=None, step=0, seconds=60):
    return {
        "steps": steps,
        "epochs": epochs,
        "step": step,
        "at": timedelta(seconds=seconds),  # before the test, not before its file was read
    }


def dated(planned):
    """Return a plan with the time at which it was made; whatever else is there stays as it is."""
    before = planned.get("at") if isinstance(planned, dict) else None
    return planned | {"at": datetime.now(UTC) - before} if isinstance(before, timedelta) else planned


@pytest.mark.parametrize(
    ("step", "planned", "expected"),
    [
        (None, None, ""),
        (None, plan(10), ""),
        (0, None, "step 0"),
        (1500, None, "step 1,500"),
        (7, plan(None, 3), "step 7"),
        (0, plan(100, 4), "step 0 of 100, epoch 1 of 4"),
        (50, plan(100), "step 50 of 100, about 1 min left"),
        (25, plan(100, 4), "step 25 of 100, epoch 2 of 4, about 3 min left"),
        (60, plan(100, 4, step=40), "step 60 of 100, epoch 3 of 4, about 2 min left"),  # resumed at 40
        (100, plan(100, 4), "step 100 of 100, epoch 4 of 4"),
        (140, plan(100, 4), "step 100 of 100, epoch 4 of 4"),
        (5, plan(100, seconds=-60), "step 5 of 100, about 0 s left"),  # the clock was set back
        (10**200, plan(100, 4), "step 100 of 100, epoch 4 of 4"),
    ],
)
def test_how_far_a_run_is_is_told_as_far_as_it_is_known(tmp_path, step, planned, expected):
    assert said(tmp_path, step, planned) == expected


@pytest.mark.parametrize(
    "planned",
    ["much", 5, [], {"steps": 0}, plan(-3, 3), plan(10**400), plan(10, "x"), {"steps": 5, "at": "soon"}],
)
def test_a_plan_that_cannot_be_read_takes_nothing_from_the_run(tmp_path, planned):
    folder = make(tmp_path, "news/a", last=points(val_loss=0.5))
    known = json.loads((folder / "run.json").read_text()) | {"planned": dated(planned)}
    (folder / "run.json").write_text(json.dumps(known, default=str))
    row = listing.read(folder, tmp_path)
    assert (row.status, row.last) == ("finished", {"val/loss": 0.5})
    assert progress(row) == "step 1"


def test_a_run_that_is_gone_on_with_has_no_plan_until_its_training_begins(tmp_path):
    with Run("mine", logs=tmp_path, monitor=False) as run:
        run.plan(200)
        run.log({"loss": 1.0}, 50)
    with Run("mine", logs=tmp_path, resume=run.name, monitor=False) as again:
        assert progress(listing.read(again.folder, tmp_path)) == "step 50"


def test_a_plain_loop_may_say_how_far_it_is_to_go(tmp_path):
    with Run("mine", logs=tmp_path, monitor=False) as run:
        run.plan(200)
        run.log({"loss": 1.0}, 50)
        run.update()
        assert progress(listing.read(run.folder, tmp_path)).startswith("step 50 of 200, about ")


def test_a_foreign_run_tells_nothing(tmp_path):
    row = listing.Row(tmp_path, "a", "b", "unknown", last=dict.fromkeys(points(val_loss=1.0), 1.0))
    assert progress(row) == ""
