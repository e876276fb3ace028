"""The runs of a sweep among all others."""

from __future__ import annotations

import csv
import io
import json

import pytest

from runs_folder import call, make, points
from trainlab.errors import UserError


@pytest.fixture
def swept(tmp_path):
    """Four runs: two trials of one sweep, one of another, one of none."""
    for name, sweep, loss in [("a-0", "a", 0.5), ("a-10", "a", 0.25), ("b-0", "b", 0.1), ("mine", None, 0.2)]:
        known = sweep and {"name": sweep, "trial": int(name[2:]), "attempts": 1}
        make(tmp_path, f"news/{name}", best=points(val_loss=loss), last=points(val_loss=loss), sweep=known)
    return tmp_path


def names(done):
    return [each["run"] for each in json.loads(done)]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--where", "sweep=a", "--sort", "trial"], ["a-0", "a-10"]),
        (["--sweep", "a", "--sort", "val/loss"], ["a-10", "a-0"]),
        (["--sweep", "a", "--where", "trial>5 or val/loss<0.1"], ["a-10"]),
        (["--where", "sweep=none"], ["mine"]),
        (["--where", "sweep!=a", "--sort", "run"], ["b-0", "mine"]),
        (["--sort", "sweep", "--where", "val/loss<0.25"], ["b-0", "mine"]),
    ],
)
def test_the_runs_of_a_sweep_can_be_chosen_and_sorted(swept, words, found):
    assert names(call(swept, "--format", "json", *words)) == found


def test_the_sweep_and_the_trial_are_columns_where_any_run_has_them(swept):
    assert call(swept).splitlines()[0].split()[:4] == ["run", "status", "sweep", "trial"]
    assert call(swept, "--sweep", "a").splitlines()[0].split()[:3] == ["run", "status", "trial"]
    (row,) = csv.DictReader(io.StringIO(call(swept, "--sweep", "b", "--format", "csv")))
    assert (row["sweep"], row["trial"]) == ("b", "0")
    assert "| sweep | trial |" in call(swept, "--format", "markdown").replace("--:", "---")
    assert call(swept, "--columns", "sweep,trial", "--sort", "run").split()[:4] == [
        "sweep",
        "trial",
        "a",
        "0",
    ]
    assert "sweep     b, trial 0" in call(swept, "show", "b-0")


@pytest.mark.parametrize("words", [["--sweep", "c"], ["--where", "sweep=c"], ["--sweep", 'x" or run="mine']])
def test_an_unknown_sweep_is_said_with_those_that_there_are(swept, words):
    with pytest.raises(UserError, match=r"no such sweep.* There: a, b"):
        call(swept, *words)


def test_without_sweeps_there_are_no_such_columns_and_none_is_known(tmp_path):
    make(tmp_path, "news/a", config={"margin": 1})
    for form in ("csv", "json", "table", "markdown"):
        assert "sweep" not in call(tmp_path, "--format", form).replace(str(tmp_path), "")
    with pytest.raises(UserError, match=r"no such sweep\. There: none"):
        call(tmp_path, "--sweep", "a")


def test_a_setting_may_be_called_trial(tmp_path):
    make(tmp_path, "news/a", config={"trial": 7, "sweep": "x"})
    make(tmp_path, "news/b", config={"trial": 8, "sweep": "y"})
    assert names(call(tmp_path, "--format", "json", "--where", "trial=7 and sweep=x")) == ["a"]


@pytest.mark.parametrize(
    "sweep", [[], "x", {"name": 5}, {"name": "a", "trial": -1}, {"name": "a" * 200, "trial": 1}]
)
def test_what_a_record_says_of_a_sweep_may_be_anything(tmp_path, sweep):
    folder = make(tmp_path, "news/a")
    known = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(known | {"sweep": sweep}))
    (row,) = json.loads(call(tmp_path, "--format", "json"))
    assert row["status"] == "finished"
    assert "sweep" not in row
