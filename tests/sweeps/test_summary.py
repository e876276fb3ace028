"""What a sweep has found, and the commands that follow from it."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from runs_folder import make
from swept import STEER, definition, forty, trial
from trainlab.sweeps import summary


def said(*known):
    return "\n".join(summary.summary(*known, weigh=False))


def test_the_best_five_stand_with_their_settings_and_runs():
    lines = said(definition(), forty()).splitlines()
    place = lines.index("The best 5")
    assert lines[place + 1].split() == [
        "trial", "val/loss", "margin", "learning_rate", "head_learning_rate", "mining", "run",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[place + 2 : place + 7]] == ["0", "1", "2", "3", "4"]
    assert lines[place + 2].endswith("news/margins-0000")
    assert "trial 26 failed: out of memory (limit 4.0 GiB)" in lines


def test_seeds_show_their_spread():
    known = definition(seeds=2)
    assert "1 ± 1.4" in said(known, [trial(0)], lambda _: [[3.0], [1.0]])


def test_without_a_value_there_is_no_best():
    text = said(definition(), [trial(0, "failed", reason="exit code 1")])
    assert "No trial has finished with a value." in text
    assert "trainlab run" not in text


def test_many_failures_are_counted():
    text = said(definition(), [trial(each, "failed", reason="exit code 1") for each in range(9)])
    assert text.count("failed: exit code 1") == 3
    assert "... and 6 more that failed" in text


def test_a_name_steers_nothing():
    known = definition(goal=STEER, space={STEER: [1, 2]}, fixed={"a": STEER})
    trials = [trial(0, settings={STEER: STEER}, runs=(STEER,)), trial(1, "failed", reason=STEER)]
    text = said(known, trials)
    assert "\x1b" not in text
    assert "\u202e" not in text


def words(known, of, logs=None):
    return shlex.split(summary.longer(known, of, logs))


def test_the_best_one_runs_twice_as_long_with_the_very_settings():
    known = definition(fixed={"epochs": "2", "data": "my news.tsv"})
    of = trial(0, settings={"margin": 3, "learning_rate": 0.1 + 0.2, "mining": "hard", "layers": [1, 2]})
    assert words(known, of) == [
        "trainlab", "run", "/nowhere/news.ipynb", "epochs=4", "data=my news.tsv", "margin=3",
        f"learning_rate={0.1 + 0.2!r}", "mining=hard", "layers=[1, 2]",
    ]  # fmt: skip


def test_the_best_one_of_several_seeds_has_the_seed_of_its_first_run():
    of = trial(0, settings={"margin": 3})
    assert words(definition(seeds=3, seed=7), of)[-2:] == ["margin=3", "seed=7"]
    assert words(definition(seed=7), of)[-1] == "margin=3", "its runs had a seed of their own"


def test_how_long_it_was_stands_in_its_run_too(tmp_path):
    make(tmp_path, "news/a", config={"max_steps": 300})
    of = trial(0, settings={"margin": 3}, runs=("news/a",))
    assert words(definition(), of, tmp_path)[-2:] == ["margin=3", "max_steps=600"]
    assert words(definition(fixed={"epochs": "many"}), of, tmp_path)[-2:] == ["margin=3", "max_steps=600"]
    assert words(definition(), trial(0, settings={"margin": 3}, runs=()), tmp_path)[-1] == "margin=3"


def test_what_to_type_is_make_s_where_that_was_typed(monkeypatch):
    monkeypatch.setenv("TRAINLAB_MAKE", "1")
    text = said(definition(), [trial(0, settings={"x": 1})])
    assert 'make run ARGS="/nowhere/news.ipynb x=1"' in text
    assert 'make runs ARGS="report --sweep margins --metric val/loss"' in text


def test_the_settings_are_weighed_between_the_best_and_the_commands(monkeypatch):
    monkeypatch.setattr(summary, "weighed", lambda *_: "weighed")
    parts = [*summary.summary(definition(), forty())]
    assert [part.split()[0] for part in parts] == ["The", "trial", "weighed", "The"]


def test_modules_and_arguments_are_kept():
    known = definition(program="train.main", module=True, arguments=["--fast", "a b"])
    assert words(known, trial(0, settings={"x": 1})) == [
        "trainlab", "run", "-m", "train.main", "x=1", "--", "--fast", "a b",
    ]  # fmt: skip


def test_a_notebook_among_ours_has_its_bare_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINLAB_NOTEBOOKS", str(tmp_path))
    assert summary.program(definition(program=str(tmp_path / "news.ipynb"))) == "news"
    assert summary.program(definition(program=str(tmp_path / "train.py"))) == str(tmp_path / "train.py")


def test_settings_are_weighed_in_a_process_of_its_own():
    code = (
        "from swept import definition, trial; from trainlab.sweeps import summary, board, listing;"
        "print(summary.weighed(definition(), [trial(each) for each in range(12)]));"
        "print(sorted({'pandas', 'sklearn', 'torch', 'transformers'} & sys.modules.keys()))"
    )
    path = [each for each in sys.path if each]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "What sets the best 5 apart from the other 7" in done.stdout
    assert "learning_rate" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_weighing_that_fails_says_so(monkeypatch):
    monkeypatch.setattr(summary.sys, "executable", "/bin/false")
    assert summary.weighed(definition(), [trial(0)]).startswith("The settings were not weighed")


@pytest.mark.parametrize("trials", [[], [trial(0)], [trial(0, "failed")]])
def test_too_few_trials_say_how_many_it_takes(trials):
    assert "needs 16 runs with val/loss" in summary.weighed(definition(), trials)
