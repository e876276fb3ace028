from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from runs_folder import make, points
from trainlab.run import events
from trainlab.runs import listing
from trainlab.runs import listing as remembered

LONG_AGO = 1_700_000_000


def foreign(folder: Path, values: list[float], when: int = LONG_AGO) -> None:
    with SummaryWriter(str(folder)) as writer:
        for step, value in enumerate(values):
            writer.add_scalar("val/loss", value, step)
    for path in events.files(folder):
        os.utime(path, (when, when))


def last(logs: Path) -> dict[str, float]:
    return {row.label: row.last["val/loss"] for row in listing.rows(logs)}


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the folders whose event files are read."""
    names: list[str] = []
    outcome = events.outcome

    def watched(folder: Path) -> events.Outcome:
        names.append(folder.name)
        return outcome(folder)

    monkeypatch.setattr(events, "outcome", watched)
    return names


def test_event_files_that_have_not_changed_are_read_once(tmp_path, looked_at):
    foreign(tmp_path / "a", [3.0, 1.0, 2.0])
    foreign(tmp_path / "b", [float("nan")])
    before = listing.rows(tmp_path)
    assert sorted(looked_at) == ["a", "b"]
    assert str(listing.rows(tmp_path)) == str(before)
    assert sorted(looked_at) == ["a", "b"]


def test_a_run_that_is_being_written_is_read_again(tmp_path, looked_at):
    with SummaryWriter(str(tmp_path / "a")) as writer:
        for step, value in enumerate([3.0, 2.0]):
            writer.add_scalar("val/loss", value, step)
            writer.flush()
            assert last(tmp_path) == {"a": value}
    assert last(tmp_path) == {"a": 2.0}
    assert looked_at == ["a", "a", "a"]


def test_a_further_event_file_and_a_changed_one_count_at_once(tmp_path):
    foreign(tmp_path / "a", [3.0])
    assert last(tmp_path) == {"a": 3.0}
    foreign(tmp_path / "a", [3.0, 2.0], when=LONG_AGO + 1)
    assert last(tmp_path) == {"a": 2.0}
    (first, *_) = events.files(tmp_path / "a")
    foreign(tmp_path / "other", [7.0])
    (other,) = events.files(tmp_path / "other")
    for path in events.files(tmp_path / "a"):
        path.unlink()
    other.replace(first)
    assert last(tmp_path) == {"a": 7.0}


def test_a_deleted_run_is_forgotten(tmp_path):
    foreign(tmp_path / "a", [3.0])
    foreign(tmp_path / "b", [2.0])
    listing.rows(tmp_path)
    for path in events.files(tmp_path / "a"):
        path.unlink()
    assert last(tmp_path) == {"b": 2.0}
    assert set(json.loads((tmp_path / remembered.FILE).read_text())["outcomes"]) == {"b"}


def test_our_ended_runs_need_no_event_files(tmp_path, looked_at):
    make(tmp_path, "news/a", last=points(val_loss=2.0), best=points(val_loss=1.0))
    assert last(tmp_path) == {"news/a": 2.0}
    assert looked_at == []
    assert not (tmp_path / remembered.FILE).exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b"{}",
        b'{"version": 0, "outcomes": {}}',
        b'{"version": 2, "outcomes": []}',
        b'{"version": 2, "outcomes": {"a": 7}}',
        b'{"version": 2, "outcomes": {"a": {"marks": [], "outcome": {"last": 5}}}}',
        b'{"version": 2, "outcomes": {"a": {"outcome": {}}}}',
        b"[" * 200_000,
        b'{"version": 2, "outcomes": {"a": {"marks": [], "outcome": {"started": "' + b"9" * 5000 + b'"}}}}',
    ],
)
def test_a_broken_memory_is_made_anew(tmp_path, content):
    foreign(tmp_path / "a", [3.0])
    (tmp_path / remembered.FILE).write_bytes(content)
    assert last(tmp_path) == {"a": 3.0}
    assert "a" in json.loads((tmp_path / remembered.FILE).read_text())["outcomes"]


def test_damaged_event_files_are_read_each_time_and_named(tmp_path, looked_at):
    foreign(tmp_path / "a", [3.0])
    (path,) = events.files(tmp_path / "a")
    with path.open("ab") as file:
        file.write(b"garbage in an event file")
    os.utime(path, (LONG_AGO, LONG_AGO))
    for _ in range(2):
        (row,) = listing.rows(tmp_path)
        assert (row.last, len(row.damaged)) == ({"val/loss": 3.0}, 1)
    assert looked_at == ["a", "a"]


def test_logs_that_can_not_be_written_are_listed_all_the_same(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError("read-only")

    foreign(tmp_path / "a", [3.0])
    monkeypatch.setattr("trainlab.files.write", refused)
    assert last(tmp_path) == {"a": 3.0}
    assert not (tmp_path / remembered.FILE).exists()
