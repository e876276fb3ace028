"""A sweep's trials on their way through slots: each once, whatever its program does."""

from __future__ import annotations

import json

import pytest

from sweeping import JOIN, assert_whole, steps
from trainlab.run import record
from trainlab.sweeps import definition, slots, worker
from trainlab.sweeps.queue import Queue


def test_each_trial_is_run_once_by_one_of_two_slots(sweep):
    tried = sweep(5)
    trials = tried.led()
    assert [(each.state, each.value, each.attempts) for each in trials] == [
        ("finished", 1.25 + number, 1) for number in range(5)
    ]
    folders = tried.folders()
    assert [folder.name.split("-", 2)[2] for folder in folders] == [f"tiny-00{each}" for each in range(5)]
    for number, (trial, folder) in enumerate(zip(trials, folders, strict=True)):
        assert_whole(folder)
        assert trial.runs == (f"tiny/{folder.name}",)
        told = json.loads((folder / "run.json").read_text())["sweep"]
        assert (told["name"], told["trial"], told["attempts"]) == ("tiny", number, 1)
    known = [record.read(folder) for folder in folders]
    overlaps = [sum(one.started < each.ended and each.started < one.ended for each in known) for one in known]
    assert max(overlaps) <= 3, "one trial may overlap with two that follow each other in the other slot"


def test_a_trial_that_exits_with_1_has_failed_with_its_reason_and_the_others_go_on(sweep):
    broken = "def value(s, step):\n    return 1 / (s.x - 2) if step else 0.5\n"
    trials = sweep(3, value=broken).led()
    assert [each.state for each in trials] == ["finished", "failed", "finished"]
    assert trials[1].reason == "ZeroDivisionError: float division by zero"
    assert trials[1].attempts == 1, "it would only fail again"


def test_a_sweep_in_which_nothing_finishes_ends_with_1(sweep):
    trials = sweep(2, value="def value(s, step):\n    raise ValueError('no')\n").led(expected=1)
    assert [each.reason for each in trials] == ["ValueError: no"] * 2


def test_a_trial_that_cannot_begin_says_why(sweep):
    trials = sweep(1, fixed={"steps": "many"}).led(expected=1)
    assert trials[0].state == "failed"
    assert "steps=many" in trials[0].reason


def test_a_trial_without_the_goal_says_what_it_has_logged(sweep):
    trials = sweep(1, goal="val/accuracy", mode="max").led(expected=1)
    assert trials[0].reason == "it has logged no val/accuracy, but: val/loss"


def test_several_seeds_are_runs_one_after_the_other_and_their_mean_counts(sweep):
    tried = sweep(2, seeds=3, seed=5)
    trials = tried.led()
    assert [each.value for each in trials] == [pytest.approx(1.25 + 6), pytest.approx(2.25 + 6)]
    names = sorted(folder.name.split("-", 2)[2] for folder in tried.folders())
    assert names == [f"tiny-00{trial}-s{seed}" for trial in range(2) for seed in range(3)]
    assert [len(each.runs) for each in trials] == [3, 3]
    assert {record.read(each).config["seed"] for each in tried.folders()} == {5, 6, 7}


def test_a_second_process_that_leads_the_sweep_is_refused_with_a_sentence(sweep, monkeypatch):
    tried = sweep(2, fixed={"hold": "0"})
    first = tried.lead()
    tried.held(2, 1)
    assert worker.leader("tiny", tried.logs) == first.pid
    second = tried.lead()
    _, error = second.communicate(timeout=60)
    assert f"The sweep tiny is led by process {first.pid} already." in error
    assert "Traceback" in error, "the sentence is UserError's: whoever catches it shows that alone"
    tried.go()
    assert first.wait(120) == 0
    assert worker.leader("tiny", tried.logs) is None


def test_a_worker_takes_trials_beside_the_process_that_leads(sweep):
    tried = sweep(4, fixed={"hold": "0"})
    leading = tried.lead(1)
    tried.held(1, 1)  # without a queue there is nothing to join, and a worker would end at once
    joining = tried.lead(1, JOIN)
    tried.held(2, 1)
    tried.go()
    assert (leading.wait(120), joining.wait(60)) == (0, 0)
    trials = tried.trials()
    assert [each.state for each in trials] == ["finished"] * 4
    assert {each.owner.pid for each in trials} == {leading.pid, joining.pid}
    assert len(tried.folders()) == 4


def test_more_trials_are_run_when_the_sweep_is_led_again(sweep):
    tried = sweep(2, method="random")
    assert len(tried.led()) == 2
    tried.definition = definition.extend("tiny", 1, tried.logs)
    Queue.open(tried.definition, None, tried.logs).add(1)
    assert [each.state for each in tried.led()] == ["finished"] * 3
    assert len(tried.folders()) == 3


def test_a_queue_that_is_gone_is_not_begun_anew_over_runs_that_are_there(sweep):
    tried = sweep(1)
    tried.led()
    for path in definition.folder("tiny", tried.logs).glob("study*"):
        path.unlink()
    process = tried.lead()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "rebuild" in error
    assert len(tried.folders()) == 1


def test_the_leading_process_is_small_and_imports_no_torch(sweep):
    tried = sweep(1)
    told = (
        "import sys\nfrom pathlib import Path\nfrom trainlab.sweeps import definition, slots, worker\n"
        "logs = Path(sys.argv[1])\n"
        "worker.lead(definition.load('tiny', logs), slots=slots.find(1, gpus=False), logs=logs)\n"
        "print([each for each in ('torch', 'pandas', 'transformers', 'nbformat') if each in sys.modules])\n"
    )
    process = tried.lead(1, told)
    out, error = process.communicate(timeout=60)
    assert out == "[]\n", error


def test_whoever_shows_the_sweep_is_called_while_it_goes_on_and_at_its_end(sweep, monkeypatch):
    tried, seen = sweep(1), []
    monkeypatch.chdir(tried.root)
    monkeypatch.setenv("TRAINLAB_ROOT", str(tried.root))
    code = worker.lead(
        tried.definition,
        slots=slots.find(1, gpus=False),
        logs=tried.logs,
        show=lambda queue, last: seen.append((queue.trials()[0].state, last)),
    )
    assert code == 0
    assert seen[0][1] is False
    assert seen[-1] == ("finished", True)
    assert steps(tried.folders()[0]) == [0, 10, 20, 30]


@pytest.mark.parametrize("gone", [False, True])
def test_a_program_that_changes_or_goes_while_its_sweep_runs_begins_no_more_trials(sweep, gone):
    tried = sweep(3, fixed={"hold": "1"})
    process = tried.lead(1)
    tried.held(1, 2)
    program = tried.program.read_text()
    if gone:
        tried.program.rename(tried.root / "moved.py")
    else:
        tried.program.write_text(program + "\n# changed\n")
    tried.go()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2, error
    assert ("can't be read" if gone else "has changed") in error
    assert [each.state for each in tried.trials()] == ["finished", "waiting", "waiting"]
    tried.program.write_text(program)
    assert [each.state for each in tried.led()] == ["finished"] * 3
