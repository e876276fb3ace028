from __future__ import annotations

import csv
import io
import json
import multiprocessing

import pytest
from typer.testing import CliRunner

from runs_folder import foreign, make
from trainlab.cli.runs import app
from trainlab.errors import UserError
from trainlab.run import lock, record, remarks
from trainlab.runs import listing, query


@pytest.fixture
def logs(tmp_path):
    """A run of ours and a foreign one."""
    make(tmp_path, "news/ours", config={"margin": 5.0}, note_of_its_own="kept")
    foreign(tmp_path / "keras" / "train")
    return tmp_path


def call(logs, *words):
    done = CliRunner().invoke(app, ["--logs", str(logs), *words], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def rows(logs):
    return {row.run: row for row in listing.rows(logs)}


@pytest.mark.parametrize("run", ["ours", "train"])
def test_a_run_ours_or_foreign_gets_tags_and_a_note_and_loses_them(logs, run):
    status = rows(logs)[run].status
    assert call(logs, "tag", run, "baseline", "best") == f"{run}: baseline best\n"
    call(logs, "tag", run, "best", "paper")  # one that it has already stays
    call(logs, "note", run, " the first that converged\nat all ")
    assert rows(logs)[run].tags == ["baseline", "best", "paper"]
    assert call(logs, "note", run) == "the first that converged\nat all\n"
    assert rows(logs)[run].status == status, "a foreign run stays one"
    call(logs, "tag", run, "baseline", "best", "paper", "--remove")
    call(logs, "note", run, "")
    assert (rows(logs)[run].tags, rows(logs)[run].note) == ([], "")
    assert call(logs, "note", run) == ""
    assert not (logs / "keras" / "train" / remarks.FILE).exists()


def test_everything_else_in_the_record_stays(logs):
    before = record.read(logs / "news" / "ours").model_dump()
    call(logs, "tag", "ours", "a")
    assert record.read(logs / "news" / "ours").model_dump() == before | {"tags": ["a"]}


def test_table_json_csv_and_show_tell_tags_and_note(logs):
    assert "tags" not in call(logs).splitlines()[0].split(), "no run has one"
    call(logs, "tag", "train", "baseline", "v2")
    call(logs, "note", "train", "from Keras")
    head, *lines = (line.split() for line in call(logs).splitlines())
    assert "tags" in head
    assert any({"baseline", "v2"} <= set(line) for line in lines)
    found = {each["run"]: each for each in json.loads(call(logs, "--format", "json"))}
    assert (found["train"]["tags"], found["train"]["note"]) == (["baseline", "v2"], "from Keras")
    assert (found["ours"]["tags"], found["ours"]["note"]) == ([], "")
    table = {each["run"]: each for each in csv.DictReader(io.StringIO(call(logs, "--format", "csv")))}
    assert json.loads(table["train"]["tags"]) == ["baseline", "v2"]
    assert call(logs, "--format", "csv", "--columns", "run,note").splitlines()[-1] in (
        "train,from Keras",
        "ours,",
    )
    shown = [line.split() for line in call(logs, "show", "train").splitlines()]
    assert ["tags", "baseline", "v2"] in shown
    assert ["note", "from", "Keras"] in shown


def test_a_filter_finds_runs_by_tag(logs):
    call(logs, "tag", "ours", "baseline", "v2")
    call(logs, "tag", "train", "v2")
    found = listing.rows(logs)

    def chosen(text):
        return {row.run for row in query.select(found, text)}

    assert chosen("tag=baseline") == {"ours"}
    assert chosen("tag=v2") == {"ours", "train"}
    assert chosen("tag=v2 and tag!=baseline") == {"train"}
    assert chosen("tag=none") == set()
    with pytest.raises(UserError, match=r"no such tag\. Did you mean 'baseline'\?"):
        query.select(found, "tag=baselin")
    with pytest.raises(UserError, match=r"Did you mean 'tag'\?"):
        query.select(found, "tagg=v2")


def test_runs_without_a_tag_are_none(logs):
    call(logs, "tag", "train", "v2")
    assert [row.run for row in query.select(listing.rows(logs), "tag=none")] == ["ours"]


@pytest.mark.parametrize("name", ["two words", "a,b", "", "x" * 41, "-x", "None", "a\nb", "a=b", "(a)"])
@pytest.mark.parametrize("run", ["news/ours", "keras/train"])
def test_what_cannot_be_a_tag_is_refused_and_nothing_is_written(logs, run, name):
    with pytest.raises(UserError, match="can't be a tag"):
        remarks.tag(logs / run, ["good", name])
    assert remarks.read(logs / run).tags == []


def test_a_tag_that_is_not_there_cannot_be_removed(logs):
    call(logs, "tag", "ours", "baseline")
    with pytest.raises(UserError, match=r"no tag 'basline'\. Did you mean 'baseline'\?"):
        call(logs, "tag", "ours", "basline", "--remove")


def test_a_note_of_a_book_s_length_is_refused(logs):
    with pytest.raises(UserError, match="Expected at most"):
        remarks.note(logs / "keras" / "train", "x" * 10_001)


@pytest.mark.parametrize("run", ["news/ours", "keras/train"])
def test_tags_and_note_are_replaced_together_by_those_alone_who_know_what_is_there(logs, run):
    said = remarks.Remarks(tags=["a", "b", "a"], note=" what it is for ")
    for tags, note in ((["a,b"], ""), ([], "x" * 10_001)):
        with pytest.raises(UserError, match=r"can't be a tag|Expected at most"):
            remarks.replace(logs / run, remarks.Remarks(tags=tags, note=note), remarks.mark([], ""))
    kept = remarks.replace(logs / run, said, remarks.mark([], ""))
    assert kept == remarks.read(logs / run) == remarks.Remarks(tags=["a", "b"], note="what it is for")
    with pytest.raises(remarks.ChangedError, match="Now there: tags: a b; note: what it is for") as refused:
        remarks.replace(logs / run, remarks.Remarks(), remarks.mark([], ""))
    assert remarks.read(logs / run) == kept
    assert remarks.replace(logs / run, kept, "") == kept  # what is there already is no other's loss
    remarks.replace(logs / run, remarks.Remarks(), refused.value.now)
    assert remarks.read(logs / run) == remarks.Remarks()


@pytest.mark.parametrize("words", [["tag", "our5", "a"], ["note", "our5", "a"]])
def test_an_unknown_run_is_an_error_that_names_the_nearest(logs, words):
    with pytest.raises(UserError, match=r"No run 'our5'.*Did you mean 'ours'\?"):
        call(logs, *words)


def test_a_damaged_file_of_remarks_is_named_and_other_runs_are_shown(logs):
    (logs / "keras" / "train" / remarks.FILE).write_text("{")
    assert rows(logs)["train"].reason.endswith("Remove it.")
    assert rows(logs)["ours"].status == "finished"
    with pytest.raises(UserError, match="is damaged"):
        call(logs, "tag", "train", "a")


def work(folder, count):
    """Change the record all the time, as a run at work does."""
    held = lock.hold(folder)
    for number in range(count):
        record.update(folder, seconds=float(number))
    held.release()


def test_no_tag_is_lost_while_the_run_is_at_work(tmp_path):
    folder = make(tmp_path, "news/a", status="running")
    process = multiprocessing.get_context("fork").Process(target=work, args=(folder, 200))
    process.start()
    names = [f"tag{number}" for number in range(30)]
    for name in names:
        remarks.tag(folder, [name])
    process.join()
    known = record.read(folder)
    assert (known.tags, known.seconds) == (names, 199.0)
