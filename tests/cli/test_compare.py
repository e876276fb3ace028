from __future__ import annotations

import pytest
from typer.testing import CliRunner

import trainlab
from compared_runs import record, record_foreign
from trainlab.cli.runs import app
from trainlab.errors import UserError
from trainlab.run import record as records


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    for margin in (3.0, 5.0, 10.0):
        record(logs, f"margin{margin:g}", {"margin": margin, "batch_size": 8}, [margin, 1.0])
    record_foreign(logs / "theirs", [1.0, 0.5])
    return logs


def call(logs, *words):
    return CliRunner().invoke(app, [*words, "--logs", str(logs)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("name", "words", "begins"),
    [
        ("a.png", ["--smooth", "0.6"], b"\x89PNG"),
        ("a.svg", ["margin3", "theirs", "--x", "time", "--tag", "val/loss"], b"<svg"),
        ("a.SVG", ["--where", "margin>3", "--x", "examples"], b"<svg"),
        ("a.pdf", ["--kind", "parallel", "--metric", "train/loss"], b"%PDF"),
        ("b.png", ["--kind", "importance", "--experiment", "news"], b"\x89PNG"),
    ],
)
def test_a_picture_is_written_in_the_format_of_its_name(logs, tmp_path, name, words, begins):
    done = call(logs, "plot", *words, "-o", str(tmp_path / name))
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / name}\n"), done.stderr
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_curves_whose_tags_hold_commas_are_drawn(tmp_path):
    with trainlab.Run("odd", logs=tmp_path, monitor=False) as run:
        run.log({"loss, smoothed": 1.0, 'say "x"': 2.0}, 0)
    words = ["--tag", "loss, smoothed", "--tag", 'say "x"', "-o", str(tmp_path / "a.png")]
    done = call(tmp_path, "plot", *words)
    assert (done.exit_code, done.stderr) == (0, "")


def test_what_is_missing_from_the_picture_is_told(logs, tmp_path):
    done = call(logs, "plot", "--x", "examples", "--tag", "train/loss", "-o", str(tmp_path / "a.png"))
    assert "1 of 4 runs have no train/loss." in done.stderr
    done = call(logs, "plot", "theirs", "margin3", "--x", "examples", "-o", str(tmp_path / "a.png"))
    assert "theirs can't be drawn over the examples seen" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plot", "-o", "a.gif"], "ends with .png, .svg, .pdf"),
        (["plot", "-o", "a.png", "--tag", "val/los"], "Did you mean 'val/loss'?"),
        (["plot", "-o", "a.png", "--metric", "val/los"], "Did you mean 'val/loss'?"),
        (["plot", "-o", "a.png", "--where", "margn>3"], "Did you mean 'margin'?"),
        (["plot", "-o", "a.png", "nowhere"], "No run 'nowhere'"),
        (["plot", "-o", "no/such/folder/a.png"], "No such file or directory"),
        (["report", "--metric", "val/los"], "Did you mean 'val/loss'?"),
        (["report", "--mode", "max"], "mode=max says nothing without the metric"),
        (["report", "--where", "margin>"], "it ends where a value should stand"),
        (["--where", "margin>3", "report"], "Write it behind: trainlab runs report --where"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(logs, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        call(logs, *words)
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_report_is_written_of_the_runs_that_were_chosen(logs, tmp_path):
    page = tmp_path / "report.html"
    assert call(logs, "report", "-o", str(page), "--where", "margin>3").exit_code == 0
    text = page.read_text()
    assert "2 runs with margin&gt;3" in text
    assert "margin3<" not in text


def test_a_report_takes_the_direction_that_is_said(logs, tmp_path):
    page = tmp_path / "report.html"
    assert call(logs, "report", "-o", str(page), "--metric", "val/loss", "--mode", "max").exit_code == 0
    assert "val/loss, higher is better" in page.read_text()


@pytest.mark.parametrize("command", [["plot"], ["report"]])
def test_without_runs_there_is_a_sentence_and_no_file(tmp_path, command):
    done = call(tmp_path, *command, "-o", str(tmp_path / "a.png"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "No runs in" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_sweep_s_runs_alone_are_drawn_and_reported(tmp_path):
    for name, sweep in (("a", "s"), ("b", "s"), ("c", None)):
        known = sweep and {"name": sweep, "trial": 0}
        folder = record(tmp_path, name, {"margin": ord(name)}, [1.0, 0.5])
        records.update(folder, sweep=known)
    out = tmp_path / "report.html"
    done = call(tmp_path, "report", "--sweep", "s", "--where", "margin>1", "-o", str(out))
    assert done.exit_code == 0, done.output
    page = out.read_text()
    assert "2 runs with sweep=&#34;s&#34; and margin&gt;1" in page
    done = call(tmp_path, "plot", "--sweep", "s", "--kind", "parallel", "-o", str(tmp_path / "a.svg"))
    assert "2 runs, the darkest" in (tmp_path / "a.svg").read_text()
    with pytest.raises(UserError, match="no such sweep"):
        call(tmp_path, "plot", "--sweep", "t", "-o", str(tmp_path / "b.svg"))
