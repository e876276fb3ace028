from __future__ import annotations

import json
import os
import shutil
import time

import pytest

from runs_folder import foreign, make, points
from trainlab.board import live
from trainlab.board.live import Live
from trainlab.run import lock, record
from trainlab.runs import listing, trash

LONG_AGO = 1e9


@pytest.fixture
def read(monkeypatch):
    """Return the labels of the runs that were read."""
    seen = []
    reading = listing.read

    def counted(folder, logs, *rest):
        seen.append(folder.relative_to(logs).as_posix())
        return reading(folder, logs, *rest)

    monkeypatch.setattr(listing, "read", counted)
    return seen


@pytest.fixture
def logs(tmp_path):
    """Two runs of ours and a foreign one."""
    make(tmp_path, "news/a", minutes_ago=5, last=points(val_loss=2.0), best=points(val_loss=1.0))
    make(tmp_path, "news/b", minutes_ago=9)
    foreign(tmp_path / "others" / "c")
    return tmp_path


@pytest.fixture
def rows(logs, monkeypatch):
    """Return a live table that looks each time it is asked, and to which nothing is young."""
    monkeypatch.setattr(live, "PAUSE", -1.0)
    monkeypatch.setattr(live, "SHARE", 0)
    monkeypatch.setattr(live, "YOUNG", -60.0)
    return Live(logs)


def statuses(rows):
    return {row.label: row.status for row in rows.rows()}


def named(rows, run):
    return next(row for row in rows.rows() if row.run == run)


def test_all_runs_are_there_the_newest_first_as_the_listing_has_them(rows, logs):
    assert rows.rows() == listing.rows(logs)


def test_nothing_is_read_again_that_has_not_changed(rows, read):
    version, first = rows.state()
    assert sorted(read) == ["news/a", "news/b", "others/c"]
    read.clear()
    assert rows.state() == (version, first)
    assert rows.rows() is first
    assert not read


def test_the_disk_is_looked_at_once_in_a_pause_however_many_ask(rows, read, monkeypatch):
    monkeypatch.setattr(live, "PAUSE", 1000.0)
    for _ in range(50):
        rows.rows()
    assert len(read) == 3


def test_without_anybody_who_asks_nothing_runs(rows):
    import threading

    before = threading.active_count()
    rows.rows()
    assert threading.active_count() == before


def test_a_changed_run_alone_is_read_again(rows, read, logs):
    version, _ = rows.state()
    read.clear()
    record.write(logs / "news/a", record.changed(record.read(logs / "news/a"), note="good"))
    assert {row.note for row in rows.rows()} == {"good", ""}
    assert read == ["news/a"]
    assert rows.state()[0] == version + 1


def test_what_has_changed_just_now_is_read_once_more(rows, read, logs, monkeypatch):
    monkeypatch.setattr(live, "YOUNG", 3600.0)
    rows.rows()
    read.clear()
    version = rows.state()[0]
    assert len(read) == 3
    assert rows.state()[0] == version  # and is no change


def test_curves_that_grow_in_place_are_seen(rows, read, logs):
    rows.rows()
    (curves,) = (logs / "others/c").glob("*tfevents*")
    more = foreign(logs / ".cache/more", count=9)
    read.clear()
    curves.write_bytes(next(more.iterdir()).read_bytes())
    assert named(rows, "c").last == {"val/loss": pytest.approx(1 / 9)}
    assert read == ["others/c"]


def test_a_run_that_starts_moves_and_ends_is_followed(rows, logs):
    rows.rows()
    folder = make(logs, "news/new", minutes_ago=1, status="running")
    held = lock.hold(folder)
    assert statuses(rows)["news/new"] == "running"
    first = named(rows, "new").seconds
    foreign(folder, count=2)
    assert named(rows, "new").last == {"val/loss": 0.5}
    deadline = time.monotonic() + 10
    while named(rows, "new").seconds == first:  # its time goes on, without another point
        assert time.monotonic() < deadline
    record.write(folder, record.changed(record.read(folder), status="finished", seconds=60.0))
    held.release()
    assert statuses(rows)["news/new"] == "finished"


def test_a_running_run_is_not_read_again_while_nothing_comes_from_it(rows, read, logs):
    folder = make(logs, "news/new", status="running")
    held = lock.hold(folder)
    rows.rows()
    read.clear()
    version = rows.state()[0]
    assert rows.state()[0] > version  # its time has changed
    assert not read
    held.release()


def test_a_run_that_dies_without_a_word_is_seen(rows, logs):
    folder = make(logs, "news/new", status="running")
    held = lock.hold(folder)
    assert statuses(rows)["news/new"] == "running"
    held.release()
    assert statuses(rows)["news/new"] == "interrupted"


def test_a_long_run_s_curves_are_read_for_a_part_of_the_time(rows, read, logs, monkeypatch):
    folder = make(logs, "news/new", status="running")
    held = lock.hold(folder)
    monkeypatch.setattr(live, "SHARE", 1e9)  # a reading of a millisecond allows the next in days
    rows.rows()
    read.clear()
    foreign(folder)
    rows.rows()
    assert not read
    record.write(folder, record.changed(record.read(folder), status="failed"))
    held.release()
    assert statuses(rows)["news/new"] == "failed"  # its end is no matter of patience


def test_a_deleted_run_is_gone_and_a_restored_one_is_back(rows, logs):
    rows.rows()
    entry = trash.delete(logs / "news/a", logs)
    assert "news/a" not in statuses(rows)
    trash.restore(entry)
    assert statuses(rows)["news/a"] == "finished"


def test_a_run_that_vanishes_between_two_searches_is_gone_at_once(rows, logs, monkeypatch):
    rows.rows()
    monkeypatch.setattr(rows, "_next_search", float("inf"))
    shutil.rmtree(logs / "news/a")
    assert set(statuses(rows)) == {"news/b", "others/c"}


def test_a_damaged_run_says_so_and_a_mended_one_too(rows, logs):
    rows.rows()
    good = (logs / "news/a/run.json").read_bytes()
    (logs / "news/a/run.json").write_text("{")
    assert statuses(rows)["news/a"] == listing.UNREADABLE
    (logs / "news/a/run.json").write_bytes(good)
    assert statuses(rows)["news/a"] == "finished"


def test_a_new_experiment_is_found(rows, logs):
    rows.rows()
    make(logs, "words/first")
    assert "words/first" in statuses(rows)


def test_a_folder_that_becomes_a_run_later_is_found_after_a_while(rows, logs, monkeypatch):
    (logs / "news/later").mkdir()
    made = make(logs / ".cache", "news/later")
    rows.rows()
    rows.rows()  # what the first has remembered in the folder is a change too
    shutil.copy(made / "run.json", logs / "news/later")
    assert "news/later" not in statuses(rows)  # no folder that holds runs has changed
    monkeypatch.setattr(live, "SEARCH", 0.0)
    assert "news/later" in statuses(rows)


def test_a_search_that_takes_long_is_seldom_repeated_but_after_an_action_at_once(rows, logs, monkeypatch):
    monkeypatch.setattr(live, "SHARE", 1e9)
    rows.rows()
    make(logs, "news/new")
    assert "news/new" not in statuses(rows)
    rows.look_again()
    assert "news/new" in statuses(rows)


def test_the_outcomes_of_foreign_runs_are_remembered_as_the_listing_does(rows, logs):
    for path in (logs / "others/c").iterdir():
        os.utime(path, (LONG_AGO, LONG_AGO))
    rows.rows()
    assert "others/c" in json.loads((logs / listing.FILE).read_text())["outcomes"]
