from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from runs_folder import make
from trainlab.cli.runs import app
from trainlab.errors import UserError
from trainlab.runs import columns

ODD = [
    "loss, smoothed",
    "a b",
    "it's",
    'say "x"',
    "back\\slash",
    "a>=b",
    "(x)",
    "and",
    "trailing\\",
    "día/läss",
]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("run, margin,val/loss", ["run", "margin", "val/loss"]),
        ("", []),
        (" , ,", []),
        ('run,"loss, smoothed"', ["run", "loss, smoothed"]),
        ("'loss, smoothed' , run", ["loss, smoothed", "run"]),
        (r"loss\, smoothed,run", ["loss, smoothed", "run"]),
        (r'"say \"x\"",run', ['say "x"', "run"]),
        ("it's,run", ["it's", "run"]),
        (r"back\slash,a\\b", ["back\\slash", "a\\b"]),
        ("end\\", ["end\\"]),
    ],
)
def test_names_are_parted_at_commas_that_no_quotes_or_backslashes_keep(text, names):
    assert columns.split(text) == names


def test_quotes_that_do_not_close_are_refused():
    with pytest.raises(UserError, match="Expected names such as"):
        columns.split('run,"loss, smoothed')


def test_any_names_come_back_from_a_list_of_them():
    assert columns.split(columns.join(ODD)) == ODD


@pytest.fixture
def logs(tmp_path):
    """Two runs whose metrics have names that the table's own language would part."""
    for number, name in enumerate("ab"):
        points = {tag: {"value": number + 0.5, "step": 1} for tag in ODD}
        make(tmp_path, f"odd/{name}", config={"size, in cm": number}, last=points, best=points)
    return tmp_path


def call(logs, *words):
    done = CliRunner().invoke(app, ["--logs", str(logs), "--format", "json", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("tag", ODD)
def test_a_metric_of_any_name_can_be_shown_sorted_by_and_asked_for(logs, tag):
    quoted = '"' + tag.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert call(logs, "--columns", f"run,{quoted}", "--sort", "run") == [
        {"run": "a", tag: 0.5},
        {"run": "b", tag: 1.5},
    ]
    assert [each["run"] for each in call(logs, "--where", f"{quoted}>1")] == ["b"]
    assert call(logs, "--sort", tag) == call(logs, "--sort", quoted) != []


def test_a_setting_with_a_comma_can_be_named_too(logs):
    assert call(logs, "--columns", r"run,size\, in cm", "--where", '"size, in cm"=1') == [
        {"run": "b", "size, in cm": 1}
    ]


def test_a_refused_name_is_answered_with_the_nearest_three_and_where_the_rest_stands(tmp_path):
    tags = [f"val/loss_{number}" for number in range(40)]
    make(tmp_path, "news/a", last={tag: {"value": 1.0, "step": 1} for tag in tags})
    for words in (["--columns", "val/los_1"], ["--where", "val/los_1<3"], ["--sort", "val/los_1"]):
        with pytest.raises(UserError) as caught:
            call(tmp_path, *words)
        said = str(caught.value)
        assert said.startswith("No column 'val/los_1'. Did you mean 'val/loss_1'? Or 'val/loss_")
        assert said.count("val/loss_") == 3
        assert said.endswith("All columns: trainlab runs --format csv")


@pytest.mark.parametrize("words", [["--where", "experiment=nothing"], ["--experiment", "nothing"]])
def test_of_many_experiments_a_refusal_names_a_few(tmp_path, words):
    for number in range(30):
        make(tmp_path, f"sweep{number}/a")
    with pytest.raises(UserError, match=r"There: (sweep\d+, ){4,5}sweep\d+ and \d\d more\."):
        call(tmp_path, *words)
