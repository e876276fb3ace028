"""A sweep as a table, as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from datetime import UTC, datetime

import pytest

from runs_folder import make
from swept import STEER, definition, forty, owner, trial
from trainlab.run import record
from trainlab.run.record import Planned
from trainlab.sweeps import display, summary

CURVES = {0: [[3.0, 1.5, 1.7]], 1: [[4.0], [2.0, 1.0]]}


def curves(of):
    return CURVES.get(of.number, [])


def rows(text):
    return [line.split() for line in str(text).splitlines()]


def test_running_trials_stand_first_then_the_best():
    numbers = [each.number for each in display.ordered(definition(), forty())]
    assert numbers == [27, 28, *range(20), *range(20, 26), 26, *range(29, 40)]
    most = definition(mode="max")
    assert [each.number for each in display.ordered(most, forty())][2:5] == [19, 18, 17]


def test_a_value_that_is_no_number_is_never_the_best():
    trials = [
        trial(0, value=math.nan),
        trial(1, value=math.inf),
        trial(2, value=5.0),
        trial(3, "pruned", value=1.0),
    ]
    assert [each.number for each in display.ranked(definition(), trials)] == [2]


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ([], "0 of 0 done"),
        (forty(), "27 of 40 done: 20 finished, 6 pruned, 1 failed; 2 running, 11 waiting"),
        ([trial(0)], "1 of 1 done: 1 finished"),
        ([trial(0, "waiting")], "0 of 1 done; 1 waiting"),
    ],
)
def test_how_many_trials_are_where(trials, said):
    assert display.counts(trials) == said


def test_a_row_says_settings_last_and_best_goal_and_why():
    shown = str(display.table(definition(), [trial(0, "running"), forty()[20], forty()[26]], curves))
    head, running, pruned, failed = shown.splitlines()
    assert head.split() == [
        "trial", "slot", "margin", "learning_rate", "head_learning_rate", "mining", "last", "best",
        "validations", "state", "progress", "or", "reason",
    ]  # fmt: skip
    assert running.split() == [
        "0",
        "cpu",
        "0",
        "1",
        "1e-05",
        "0.0001",
        "semihard",
        "1.7",
        "1.5",
        "3",
        "running",
    ]
    assert pruned.endswith("pruned   at validation 3: worse than the median")
    assert failed.endswith("failed   out of memory (limit 4.0 GiB)")


def test_a_trial_that_waits_again_says_why_and_how_often_it_was_taken():
    again = trial(0, "waiting", settings={"margin": 1}, reason="the sweep was stopped", attempts=2)
    shown = str(display.show(definition(), [again, trial(1, "waiting")]))
    assert shown.endswith("waiting  the sweep was stopped, taken 2 times")


def test_the_host_is_shown_where_there_are_several():
    trials = [trial(0, "running"), trial(1, "running", owner=owner("other", "GPU 1"))]
    shown = str(display.table(definition(), trials))
    assert "host" in shown
    assert "box cpu 0" in shown
    assert "other GPU 1" in shown


def test_seeds_are_shown_as_mean_and_spread():
    known = definition(seeds=2)
    assert display.value_text(known, trial(1, value=2.5), [[4.0], [2.0, 1.0]]) == "2.5 ± 2.1"
    assert display.value_text(known, trial(1, value=2.5), [[4.0]]) == "2.5"
    assert display.value_text(definition(), trial(1, value=2.5), [[4.0, math.nan]]) == "2.5"
    going = trial(1, "running")
    assert display.value_text(known, going, [[4.0, 3.0], [2.0, 1.0]]) == "2 ± 1.4", "their mean so far"
    assert display.value_text(known, going, [[4.0, 3.0], []]) == "3"
    assert display.value_text(known, going) == ""
    assert display.value_text(known, going, [[1e308], [-1e308]]).startswith("0")
    shown = display.table(known, [trial(0, "running", runs=("news/a-s0", "news/a-s1"))], curves)
    assert str(shown).endswith("seed 2 of 2")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_a_table_is_never_wider_than_the_terminal_and_says_why_at_80(width):
    trials = [each for each in forty() if each.state != "waiting"]
    shown = str(display.table(definition(), trials, curves, lambda _: 125.0, width))
    assert max(map(len, shown.splitlines())) <= width
    assert rows(shown)[0][0] == "trial"
    assert "state" in rows(shown)[0]
    if width >= 80:
        assert "best" in shown
        assert "margin" in shown
        assert "at validat" in shown
    if width >= 160:
        assert "running   2 min left" in shown
        assert "head_learning_rate" in shown


def test_a_setting_may_be_called_like_a_column():
    known = definition(space={"last": [1, 2], "state": ["a", "b"]})
    shown = display.table(known, [trial(0, settings={"last": 1, "state": "a"})], curves, width=60)
    assert rows(shown)[1] == ["0", "cpu", "0", "1", "a", "1.7", "1", "3", "finished"]


def test_nothing_that_a_run_wrote_steers_the_terminal():
    known = definition(goal=f"val/{STEER}", space={f"margin{STEER}": [1, 2]})
    trials = [
        trial(
            0, "failed", settings={f"margin{STEER}": STEER}, reason=STEER, runs=(STEER,),
            owner=owner(STEER, STEER),
        ),
        trial(1, "running", owner=owner("b")),
    ]  # fmt: skip
    for shown in (display.show(known, trials), display.show(known, trials, width=80)):
        assert "\x1b" not in str(shown)
        assert "\u202e" not in str(shown)
        assert "[bold red]x[/]" in str(shown)
    for text in (display.as_csv(known, trials), display.as_json(known, trials)):
        assert "\x1b" not in text


def test_show_says_what_was_ordered_and_of_many_trials_only_the_first():
    many = [trial(each) for each in range(100)]
    shown = str(display.show(definition(prune="median", seeds=2), many)).splitlines()
    assert shown[0] == "margins: 100 of 100 done: 100 finished"
    assert (
        shown[1]
        == "goal val/loss, mean of 2 seeds, lower is better; tpe, 2 seeds each, pruned by median; news"
    )
    assert shown[3].split()[0] == "0"
    assert len(shown) == 3 + display.MOST_ROWS + 1
    assert shown[-1] == "... and 60 more (60 finished): trainlab sweep show margins --format csv"


def test_curves_are_read_of_the_trials_that_are_shown_alone():
    asked = []
    many = [trial(each) for each in range(1000)]
    display.show(definition(), many, lambda each: asked.append(each.number) or [])
    assert asked == list(range(display.MOST_ROWS))


def test_a_trial_whose_runs_were_deleted_is_shown_still():
    def deleted(of):
        raise FileNotFoundError(of.runs[0])

    shown = display.table(definition(), [trial(0, value=0.25)], deleted)
    assert rows(shown)[1][-2:] == ["0.25", "finished"]
    assert "0.25" in next(summary.summary(definition(), [trial(0, value=0.25)], deleted))


def test_ten_thousand_trials_are_shown_in_less_than_a_second():
    many = [trial(each) for each in range(10_000)]
    began = time.process_time()
    str(display.show(definition(), many, width=100))
    assert time.process_time() - began < 1


def test_csv_has_every_trial_exact_and_no_formula():
    trials = [trial(0, value=1 / 3), trial(1, "failed", reason="=HYPERLINK()"), trial(2, "waiting")]
    trials[0].settings["mining"] = ["a", 1]
    found = list(csv.DictReader(io.StringIO(display.as_csv(definition(), trials))))
    assert [each["trial"] for each in found] == ["0", "1", "2"]
    assert float(found[0]["value"]) == 1 / 3
    assert json.loads(found[0]["settings.mining"]) == ["a", 1]
    assert found[1]["reason"] == "'=HYPERLINK()"
    assert found[2]["settings.margin"] == ""
    assert json.loads(found[0]["runs"]) == ["news/margins-0000"]


def test_json_has_every_trial_and_no_word_that_json_lacks():
    trials = [trial(0, value=math.nan), trial(1)]
    found = json.loads(display.as_json(definition(), trials), parse_constant=pytest.fail)
    assert found["sweep"]["goal"] == "val/loss"
    assert [each["value"] for each in found["trials"]] == [None, 2.0]
    assert found["trials"][1]["settings"]["margin"] == 3


def running(logs, label):
    """Make a run that is at step 20 of 100."""
    folder = make(logs, label, status="running", last={"train/loss": {"value": 1.0, "step": 20}})
    record.update(folder, planned=Planned(steps=100, at=datetime(2020, 1, 1, tzinfo=UTC)))


def test_a_record_tells_how_long_a_trial_will_take(tmp_path):
    known = trial(0, "running", runs=("news/a",))
    assert display.seconds_left(definition(), known, tmp_path) is None
    running(tmp_path, "news/a")
    of_one = display.seconds_left(definition(), known, tmp_path)
    assert of_one == pytest.approx(4 * (time.time() - datetime(2020, 1, 1, tzinfo=UTC).timestamp()), rel=1e-3)
    of_two = display.seconds_left(definition(seeds=2), known, tmp_path)
    assert of_two == pytest.approx(of_one * 9 / 4, rel=1e-3)


@pytest.mark.parametrize("run", ["../news/a", "{tmp}/news/a", "x/../../news/a", "link/a", "news/a\x00"])
def test_a_run_outside_the_logs_is_not_read(tmp_path, run):
    running(tmp_path, "news/a")
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "link").symlink_to(tmp_path / "news")
    known = trial(0, "running", runs=(run.format(tmp=tmp_path),))
    assert display.seconds_left(definition(), known, logs) is None


def test_what_patience_has_ended_may_be_the_best():
    trials = [trial(0, value=2.0), trial(1, "pruned", value=1.0), trial(2, "pruned", value=math.nan)]
    assert [each.number for each in display.ranked(definition(prune="patience"), trials)] == [1, 0]
    assert [each.number for each in display.ranked(definition(prune="median"), trials)] == [0]


def test_of_each_seed_the_last_run_counts():
    runs = ("tiny/1-a-000-s0", "tiny/2-a-000-s1", "tiny/3-a-000-s0")
    assert display.runs_of_seeds(definition(seeds=2), trial(0, runs=runs)) == [
        "tiny/3-a-000-s0",
        "tiny/2-a-000-s1",
    ]
    assert display.runs_of_seeds(definition(), trial(0, runs=("tiny/1-a", "tiny/2-a"))) == ["tiny/2-a"]
