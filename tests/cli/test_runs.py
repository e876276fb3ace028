from __future__ import annotations

import csv
import io
import json
import math

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboardX import SummaryWriter
from typer.testing import CliRunner

from runs_folder import call, foreign, make, points
from trainlab.cli.runs import app
from trainlab.errors import UserError
from trainlab.runs import display

FACTS = {"experiment", "run", "status", "started", "seconds", "tags", "note", "reason"}
FIELDS = FACTS | {"config", "last", "best"}


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """Three runs of news, one of sentiment, one that can't be read."""
    monkeypatch.setenv("COLUMNS", "100")
    news = {"size": 30, "backbone": "minilm"}
    a = {"val/loss": 0.5, "val/accuracy": 0.7, "train/loss": 0.1}
    b = {"val/loss": 0.25, "val/accuracy": 0.6}
    for name, minutes, margin, metrics in [("a", 180, 3.0, a), ("b", 60, 5.0, b), ("c", 9, 10.0, {})]:
        best = {tag: {"value": value, "step": 2} for tag, value in metrics.items()}
        last = {tag: {"value": 2 * value, "step": 3} for tag, value in metrics.items()}
        make(
            tmp_path,
            f"news/{name}",
            minutes_ago=minutes,
            config=news | {"margin": margin},
            best=best,
            last=last,
            git={"commit": name * 8, "dirty": name == "b"},
            trainlab_git={"commit": name * 4, "dirty": False},
            packages={"torch": f"2.{minutes}", "numpy": "2.0"},
            command="trainlab run news",
        )
    last = points(val_loss=math.nan, val_f1=0.5)
    make(
        tmp_path,
        "sentiment/d",
        minutes_ago=1,
        status="failed",
        reason="ValueError: no",
        config={"lr": 0.1},
        last=last,
    )
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    return tmp_path


def order(logs, *words):
    return "".join(row["run"][0] for row in json.loads(call(logs, "--format", "json", *words)))


def test_the_table_shows_what_tells_runs_apart_within_100_columns(logs):
    lines = call(logs, "--experiment", "news").splitlines()
    assert lines[0].split() == [
        "run",
        "status",
        "margin",
        "val/loss",
        "val/accuracy",
        "train/loss",
        "age",
        "duration",
    ]
    assert lines[1].split() == ["c", "finished", "10", "9", "min", "3", "min", "20", "s"]
    assert "0.25 (0.5)" in lines[2]
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in "".join(lines)


def test_the_table_says_why_a_run_is_unreadable(logs):
    text = call(logs)
    assert "sentiment/d" in text
    assert f"broken is unreadable: {logs}/broken/run.json: not JSON" in text


def test_long_names_are_cut_in_a_narrow_terminal_only(logs, monkeypatch):
    name = "20261120-153012-" + "x" * 60
    make(logs, f"news/{name}")
    assert name not in call(logs)
    assert name in call(logs, "--format", "csv")
    monkeypatch.delenv("COLUMNS")
    assert name in call(logs), "a pipe has no width"


def test_brackets_in_names_and_settings_are_no_markup(logs):
    make(logs, "news/[red]x", config={"size": 30, "backbone": "[bold]", "margin": 1.0})
    text = call(logs, "--columns", "run,backbone")
    assert "[red]x" in text
    assert "[bold]" in text


def test_json_is_one_strict_object_a_run(logs):
    found = json.loads(call(logs, "--format", "json"), parse_constant=pytest.fail)
    assert all(set(each) == FIELDS for each in found)
    by_name = {each["run"]: each for each in found}
    assert by_name["a"]["best"] == {"val/loss": 0.5, "val/accuracy": 0.7, "train/loss": 0.1}
    assert by_name["a"]["config"] == {"size": 30, "backbone": "minilm", "margin": 3.0}
    assert by_name["d"]["last"] == {"val/loss": None, "val/f1": 0.5}
    assert (by_name["d"]["status"], by_name["d"]["reason"]) == ("failed", "ValueError: no")
    assert by_name["broken"]["status"] == "unreadable"


def test_csv_holds_every_column_and_whole_numbers(logs):
    rows = list(csv.DictReader(io.StringIO(call(logs, "--format", "csv"))))
    assert len(rows) == 5
    assert {"config.margin", "best.val/loss", "last.val/loss", "reason"} <= set(rows[0])
    assert next(row for row in rows if row["run"] == "b")["best.val/loss"] == "0.25"


def test_columns_are_chosen_by_short_or_full_name(logs):
    words = ["--columns", "run,margin,val/loss,last.val/loss", "--experiment", "news", "--sort", "margin"]
    rows = list(csv.reader(io.StringIO(call(logs, *words, "--format", "csv"))))
    assert rows[0] == ["run", "margin", "val/loss", "last.val/loss"]
    assert rows[2] == ["b", "5.0", "0.25", "0.5"]
    assert json.loads(call(logs, *words, "--format", "json"))[1]["val/loss"] == 0.25
    assert call(logs, *words).splitlines()[2].split() == ["b", "5", "0.25", "0.5"]


def test_markdown_is_a_table_whose_cells_hold_no_bars(logs):
    make(logs, "news/e", config={"size": 30, "backbone": "a|b", "margin": 1.0})
    lines = call(logs, "--experiment", "news", "--format", "markdown").splitlines()
    assert lines[0].startswith("| run | status | backbone | margin | val/loss |")
    assert "a\\|b" in lines[2]
    assert {line.replace("\\|", "").count("|") for line in lines} == {lines[0].count("|")}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("val/loss", "ba"),  # the lowest first
        ("val/accuracy", "ab"),  # the highest first
        ("last.val/accuracy", "ab"),
        ("started", "dcba"),
        ("margin", "cba"),
        ("run", "abbcd"),
    ],
)
def test_sorting_puts_the_best_first_and_what_is_missing_last(logs, key, expected):
    assert order(logs, "--sort", key).startswith(expected)
    assert len(order(logs, "--sort", key)) == 5


def sorted_by(logs, *words):
    done = CliRunner().invoke(app, ["--logs", str(logs), *words, "--format", "json"], catch_exceptions=False)
    return "".join(each["run"] for each in json.loads(done.stdout)), done.stderr


def test_sorting_by_a_metric_of_unknown_direction_says_so_and_can_be_told(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        make(tmp_path, f"news/{name}", last=points(val_score=value))
    found, said = sorted_by(tmp_path, "--sort", "val/score")
    assert found == "ab"
    assert "val/score: no run gives whether less or more of it is better. The least comes first" in said
    assert "--mode min or max" in said
    events = {"a": [1.0, 3.0], "b": [2.0, 0.5]}
    for name, values in events.items():
        with SummaryWriter(str(tmp_path / "news" / name)) as writer:
            for step, value in enumerate(values):
                writer.add_scalar("val/score", value, step)
    assert sorted_by(tmp_path, "--sort", "val/score", "--mode", "max") == ("ab", "")
    assert sorted_by(tmp_path, "--sort", "val/score", "--mode", "min") == ("ba", "")


def test_the_lowest_error_rate_comes_first(tmp_path):
    for name, value in (("a", 0.5), ("b", 0.2), ("c", 0.9)):
        make(tmp_path, f"news/{name}", last=points(val_wer=value), best=points(val_wer=value))
    assert sorted_by(tmp_path, "--sort", "val/wer") == ("bac", "")


def test_runs_of_opposite_directions_are_not_ranked(tmp_path):
    for name, way in (("a", "min"), ("b", "max")):
        fields = {"last": points(score=1.0), "best": points(score=1.0), "directions": {"score": way}}
        make(tmp_path, f"news/{name}", **fields)
    assert (
        "score: some of its runs say that less is better, others more."
        in sorted_by(tmp_path, "--sort", "score")[1]
    )


def test_a_metric_sorts_runs_on_other_data_and_other_splits_apart(tmp_path):
    def made(name, loss, sha256="a" * 64, split="item", minutes=0, **data):
        known = {"sha256": sha256, "path": f"/{name}/sample", **data} if sha256 else None
        values = {"last": points(val_loss=loss), "best": points(val_loss=loss)}
        config = {"split": split} if split else {}
        make(tmp_path, f"news/{name}", minutes_ago=minutes, data=known, config=config, **values)

    made("a", 0.4, minutes=0)
    made("b", 0.3, minutes=1)
    made("c", 0.01, sha256="b" * 64, minutes=2)
    made("d", 0.02, split="triplet", minutes=3)
    made("e", 0.001, sha256="", split="", minutes=4)
    found, said = sorted_by(tmp_path, "--sort", "val/loss")
    assert found == "bacde"
    assert "Runs on other data, or another split of it, are ranked apart: " in said
    assert "2 with sha256 aaaaaaaa, split item; 1 with sha256 bbbbbbbb" in said
    assert "1 with data not recorded." in said
    assert sorted_by(tmp_path, "--sort", "run") == ("abcde", "")
    two = sorted_by(tmp_path, "--sort", "val/loss", "--where", "run=a or run=e")
    assert two[0] == "ae"
    assert "1 with sha256 aaaaaaaa, path sample, split item; 1 with data not recorded." in two[1]
    assert sorted_by(tmp_path, "--sort", "val/loss", "--where", "run=a or run=b") == ("ba", "")


def test_settings_of_different_types_can_be_sorted(logs):
    make(logs, "news/e", config={"margin": "wide"})
    make(logs, "news/f", config={"margin": [1, 2]})
    assert order(logs, "--sort", "margin").startswith("cba")


@pytest.mark.parametrize("words", [["--sort", "val/los"], ["--columns", "run,val/los"]])
@pytest.mark.parametrize("format", ["table", "csv", "json", "markdown"])
def test_an_unknown_column_is_an_error_that_names_the_nearest(logs, words, format):
    with pytest.raises(UserError, match=r"No column 'val/los'\. Did you mean 'val/loss'\?"):
        call(logs, *words, "--format", format)


def test_no_runs_are_said_beside_a_clean_output(tmp_path):
    done = CliRunner().invoke(app, ["--logs", str(tmp_path), "--format", "json"])
    assert json.loads(done.stdout) == []
    assert "No runs in" in done.stderr
    done = CliRunner().invoke(app, ["--logs", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (0, "")


def test_show_tells_everything_about_a_run(logs):
    text = call(logs, "show", "news/b")
    for words in [
        "finished",
        "trainlab run news",
        "bbbbbbbb with uncommitted changes",
        "bbbb clean",
        "margin",
        "2.60",
    ]:
        assert words in text
    assert ["val/loss", "0.25", "2", "0.5"] in [line.split() for line in text.splitlines()]
    assert "not JSON" in call(logs, "show", "broken")
    assert "val/f1" in call(logs, "show", "last")


def test_show_says_at_which_step_a_foreign_run_was_best(tmp_path):
    from trainlab.run import remarks

    folder = foreign(tmp_path / "keras" / "train")
    writer = EventFileWriter(str(folder), filename_suffix=".later")
    for step, loss in ((3, 0.1), (4, 0.3)):
        value = Summary.Value(tag="val/loss", simple_value=loss)
        writer.add_event(Event(wall_time=2e9, step=step, summary=Summary(value=[value])))
    writer.close()
    assert ["val/loss", "0.1", "3", "0.3"] in [
        line.split() for line in call(tmp_path, "show", "train").splitlines()
    ]
    remarks.note(folder, "theirs")
    assert ["val/loss", "0.1", "3", "0.3"] in [
        line.split() for line in call(tmp_path, "show", "train").splitlines()
    ]


def test_diff_tells_what_differs_and_only_that(logs):
    text = call(logs, "diff", "news/a", "news/b")
    lines = [line.split() for line in text.splitlines()]
    assert ["config", "news/a", "news/b"] in lines
    assert ["margin", "3", "5"] in lines
    assert ["torch", "2.180", "2.60"] in lines
    assert ["commit", "aaaaaaaa", "bbbbbbbb"] in lines
    assert ["trainlab's", "commit", "aaaa", "bbbb"] in lines
    assert ["val/loss", "0.5", "(1)", "0.25", "(0.5)"] in lines
    assert "machine: not recorded" in text
    assert not {"size", "numpy"} & {word for line in lines for word in line}


def test_long_names_do_not_push_a_difference_out_of_the_terminal(logs):
    for name, margin in (("first", 1.0), ("second", 2.0)):
        make(logs, f"news/20261120-153012-{name}-{'x' * 30}", config={"margin": margin})
    lines = call(logs, "diff", "012-first", "012-second").splitlines()
    assert lines[:2] == [
        f"first:  news/20261120-153012-first-{'x' * 30}",
        f"second: news/20261120-153012-second-{'x' * 30}",
    ]
    assert [line.split() for line in lines[3:5]] == [["config", "first", "second"], ["margin", "1", "2"]]


def test_show_has_the_metrics_first_and_the_machines_last(tmp_path):
    tags = ("vitals/cpu_percent", "val_tfidf/loss", "train/lr", "train/loss", "val/loss", "val/f1")
    found = {tag: {"value": 1.0, "step": 1} for tag in tags}
    make(tmp_path, "news/a", last=found, best=found, metrics=["val/f1"], config={"margin": 3.0})
    lines = call(tmp_path, "show", "a").splitlines()
    shown = [line.split()[0] for line in lines if "/" in line.split(" ")[0]]
    assert shown[1:] == [
        "val/f1",
        "val/loss",
        "train/loss",
        "train/lr",
        "val_tfidf/loss",
        "vitals/cpu_percent",
    ]
    assert lines[lines.index("config") - 1] == "", "a blank line between"


def test_diff_of_a_run_with_itself_finds_nothing(logs):
    text = call(logs, "diff", "news/a", "news/a")
    assert all(f"{title}: the same" in text for title in ("config", "code", "packages"))


def test_logs_may_be_named_behind_the_subcommand_too(logs):
    done = CliRunner().invoke(app, ["show", "news/a", "--logs", str(logs)])
    assert "margin" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (266400, "3 d 2 h"),
        (None, ""),
    ],
)
def test_durations_read_well(seconds, text):
    assert display.duration(seconds) == text


def test_what_the_machine_did_is_shown_where_it_is_asked_for(tmp_path):
    system = {"vitals/memory_gib": {"value": 1.5, "step": 1}}
    make(tmp_path, "news/a", last=points(val_loss=2.0) | system, best=points(val_loss=1.0) | system)
    assert "vitals/" not in CliRunner().invoke(app, ["--logs", str(tmp_path)]).stdout
    words = ["--logs", str(tmp_path), "--format", "csv", "--columns", "run,vitals/memory_gib"]
    assert CliRunner().invoke(app, words).stdout == "run,vitals/memory_gib\na,1.5\n"


def test_a_filter_a_status_and_an_age_choose_runs(logs):
    assert order(logs, "--where", "margin>=5 and val/loss<0.3") == "b"
    assert order(logs, "--status", "failed") == "d"
    assert order(logs, "--since", "30m", "--experiment", "news") == "c"
    assert order(logs, "--where", "margin>=3", "--sort", "val/loss") == "bac"


def test_runs_that_only_look_are_left_out_and_found_again(logs):
    for name, status in (("compare/x", "finished"), ("compare/y", "failed"), ("checks/z", "finished")):
        make(logs, name, status=status, looks=True, last=points(check_passed=3.0))
    assert set(order(logs)) == set("abcd")
    done = CliRunner().invoke(app, ["--logs", str(logs), "--status", "finished"])
    assert "compare" not in done.stdout
    assert done.stderr == "Left out: 2 that only looked (checks, compare). All: trainlab runs --all\n"
    assert set(order(logs, "--all")) == set("abcdxyz")
    assert set(order(logs, "--experiment", "compare")) == set("xy")
    odd = make(logs, "news/o") / "run.json"
    odd.write_text(json.dumps(json.loads(odd.read_text()) | {"looks": {"at": 3}}))
    assert set(order(logs)) == set("abcdo"), "a field of a user's own"


def test_a_filter_that_no_run_fulfils_says_so(logs):
    done = CliRunner().invoke(app, ["--logs", str(logs), "--where", "margin>50", "--since", "1d"])
    assert done.exit_code == 0
    assert done.stdout == ""
    assert done.stderr == 'None of 5 runs fulfils margin>50 and age<="1d".\n'
