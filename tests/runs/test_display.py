"""The table in a terminal: what it shows where there is little room, and of runs at work or cut short."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from runs_folder import make, points
from trainlab.cli.runs import app
from trainlab.run import lock
from trainlab.runs import columns

NAME = "20261125-1{}0101-margin{}-seed{}-backbonedistilbert-base-uncased"
CONSTANTS = {
    tag: {"value": 2.9, "step": 0}
    for tag in ("val_tfidf/loss", "tfidf/loss", "untrained/loss", "val_none/loss")
}


@pytest.fixture
def logs(tmp_path):
    """Six runs that differ in margin and seed: four finished, one failed, one was interrupted."""
    reasons = {4: ("failed", "RuntimeError: out\nof memory"), 5: ("interrupted", "stopped by SIGTERM")}
    for number in range(6):
        margin, seed = 3.0 + number // 2, number % 2
        status, reason = reasons.get(number, ("finished", None))
        make(
            tmp_path,
            "news/" + NAME.format(number, int(margin), seed),
            minutes_ago=100 * (6 - number),
            status=status,
            reason=reason,
            config={"margin": margin, "seed": seed, "batch_size": 256},
            last=points(val_loss=0.4123 + number / 100, val_mrr=0.6) | CONSTANTS,
            best=points(val_loss=0.4012 + number / 100, val_mrr=0.6) | CONSTANTS,
            metrics=["val/loss", "val/mrr"],
        )
    return tmp_path


def table(logs, monkeypatch, width, *words):
    monkeypatch.setenv("COLUMNS", str(width))
    done = CliRunner().invoke(app, ["--logs", str(logs), *words], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (60, "run status margin val/loss"),
        (80, "run status margin seed val/loss age"),
        (100, "run status margin seed val/loss age duration"),
        (120, "run status margin seed val/loss age duration"),
    ],
)
def test_settings_and_the_metric_come_before_age_and_duration(logs, monkeypatch, width, expected):
    lines = table(logs, monkeypatch, width)
    assert lines[0].split() == expected.split()
    assert max(map(len, lines[:7])) <= width
    assert all("(0.4" in line for line in lines[1:7]), "the metric is whole in every line"


def test_a_metric_that_is_the_same_in_all_runs_takes_no_column(logs, monkeypatch):
    assert "val/mrr" not in table(logs, monkeypatch, 200)[0]
    one = table(logs, monkeypatch, 200, "--where", "margin=3 and seed=0")[0]
    assert "val/mrr" in one
    assert "val/mrr" in table(logs, monkeypatch, 80, "--columns", "run,val/mrr")[0]


def test_baselines_are_no_columns_unless_asked_for(logs, monkeypatch):
    assert not {*CONSTANTS} & {*table(logs, monkeypatch, 300, "--where", "margin=3 and seed=0")[0].split()}
    assert table(logs, monkeypatch, 80, "--columns", "val_tfidf/loss")[1:] == ["           2.9"] * 6


def test_what_a_validation_set_of_its_own_measures_is_no_baseline(tmp_path, monkeypatch):
    for best in (0.3, 0.4):
        moved = points(val_f1=0.1) | {"val_unseen/f1": {"value": 0.2, "step": 1}}
        reached = points(val_f1=0.5) | {"val_unseen/f1": {"value": best, "step": 1}}
        make(tmp_path, f"words/{best}", last=moved, best=reached)
    assert "val_unseen/f1" in table(tmp_path, monkeypatch, 200)[0]


def test_a_column_is_looked_up_once_and_not_for_each_run(tmp_path, monkeypatch):
    """It was, and a thousand runs took half a minute."""
    for number in range(60):
        make(tmp_path, f"news/r{number}", minutes_ago=number, config={"margin": number})
    asked = []
    resolve = columns.resolve
    monkeypatch.setattr(columns, "resolve", lambda *given: asked.append(given[0]) or resolve(*given))
    assert len(table(tmp_path, monkeypatch, 200)) == 61
    assert 0 < len(asked) < 10


def test_a_failed_or_interrupted_run_says_why_below_the_table(logs, monkeypatch):
    lines = table(logs, monkeypatch, 80)
    assert f"{NAME.format(4, 5, 0)} failed: RuntimeError: out of memory" in lines
    assert f"{NAME.format(5, 5, 1)} interrupted: stopped by SIGTERM" in lines
    assert not any(" failed: " in line for line in table(logs, monkeypatch, 80, "--columns", "run,status"))


def test_many_reasons_are_cut_with_the_command_that_shows_all(tmp_path, monkeypatch):
    for number in range(15):
        make(tmp_path, f"news/r{number}", minutes_ago=number, status="failed", reason="x" * 1000)
    lines = table(tmp_path, monkeypatch, 80)
    assert lines[16].startswith("r0 failed: xxx")
    assert len(lines[16]) < 400
    assert lines[26:] == ["... and 5 more: trainlab runs --columns run,status,reason"]


def test_a_running_run_says_how_far_it_is_instead_of_its_baselines(logs, monkeypatch):
    planned = {"steps": 1140, "epochs": 3, "step": 0, "at": datetime.now(UTC) - timedelta(seconds=600)}
    last = {tag: {"value": 1.0, "step": 380} for tag in ("train/lr", "train/loss")} | CONSTANTS
    folder = make(
        logs, "news/new", status="running", planned=planned, last=last, best=last, metrics=["val/loss"]
    )
    held = lock.hold(folder)
    try:
        lines = table(logs, monkeypatch, 200, "--status", "running")
        assert lines[0].split() == ["run", "status", "train/loss", "train/lr", "age", "duration"]
        assert lines[2] == "metrics: best (last)"  # of a learning rate there is no best
        assert lines[3] == "new running: step 380 of 1,140, epoch 2 of 3, about 20 min left"
        (line,) = table(logs, monkeypatch, 200, "--status", "running", "--format", "markdown")[2:]
        assert "step 380 of 1,140" in line
        assert "step 380 of 1,140" in "\n".join(table(logs, monkeypatch, 200, "show", "new"))
    finally:
        held.release()
