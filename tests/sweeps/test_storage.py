"""Storage: a worker that sees another `logs/` is told so before it takes a trial."""

from __future__ import annotations

import pytest

from trainlab.errors import UserError
from trainlab.sweeps import storage, study

MINE, OTHER = "a" * 32, "b" * 32


def test_a_folder_is_marked_once(tmp_path):
    first = storage.mark(tmp_path)
    assert len(first) == 32
    assert storage.mark(tmp_path) == storage.read(tmp_path) == first


@pytest.mark.parametrize("content", [b"", b"x" * 32, b"a" * 33, b"a" * 1_000_000, b"\xff" * 32])
def test_a_mark_that_is_none_is_not_believed(tmp_path, content):
    (tmp_path / storage.FILE).write_bytes(content)
    assert storage.read(tmp_path) == ""
    with pytest.raises(UserError, match="another logs/"):
        storage.check(tmp_path, MINE, "the database")


def test_a_mark_is_read_from_a_file_alone(tmp_path):
    (tmp_path / "elsewhere").write_text(MINE)
    (tmp_path / storage.FILE).symlink_to(tmp_path / "elsewhere")
    assert storage.read(tmp_path) == ""


def test_a_study_that_says_nothing_is_let_be(tmp_path):
    storage.check(tmp_path, "", "the database")


def kept_by(monkeypatch, sweeps):
    monkeypatch.setattr(storage, "kept", lambda at: sweeps)


def marked(logs, name, said):
    (logs / ".sweeps" / name).mkdir(parents=True)
    (logs / ".sweeps" / name / storage.FILE).write_text(said)


def test_a_worker_whose_logs_hold_no_sweep_of_the_head_is_refused(tmp_path, monkeypatch):
    kept_by(monkeypatch, {"news": MINE, "films": OTHER})
    with pytest.raises(UserError, match=r"keeps films, news, and .* holds none of them"):
        storage.check_shared("head", tmp_path)
    marked(tmp_path, "news", OTHER)
    with pytest.raises(UserError, match="another logs/"):
        storage.check_shared("head", tmp_path)
    marked(tmp_path, "films", OTHER)
    storage.check_shared("head", tmp_path)


def test_a_head_without_sweeps_refuses_nobody(tmp_path, monkeypatch):
    kept_by(monkeypatch, {})
    storage.check_shared("head", tmp_path)
    kept_by(monkeypatch, {"older": ""})
    storage.check_shared("head", tmp_path)


def test_each_study_says_what_it_was_made_with(tmp_path):
    from trainlab.sweeps import database

    one = study.Study(database.file_options(tmp_path / "study.db"))
    with one.created("first", "min") as connection:
        one.note(connection, MINE)
    with one.created("second", "max"):
        pass
    assert one.notes() == {"first": MINE, "second": ""}
    one.close()


def test_a_head_that_does_not_answer_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1 can't be asked for its sweeps: .*refused"):
        storage.check_shared("127.0.0.1:1", tmp_path)
