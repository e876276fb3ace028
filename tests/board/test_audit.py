"""What is written down of each action, and what never is."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from runs_folder import make
from trainlab.board import audit
from trainlab.errors import UserError
from trainlab.run import find


def lines(logs):
    return [json.loads(each) for each in (logs / audit.FOLDER / audit.FILE).read_text().splitlines()]


def write(logs, action="stop", runs=("news/a",), settings=None, outcome="done"):
    with audit.noted(logs, action, runs) as line:
        line.settings, line.outcome = settings or {}, outcome


def test_an_action_is_one_line_with_its_time_runs_settings_and_outcome(tmp_path):
    write(tmp_path, "start", ["news/a\nb"], {"margin": "5"}, "started\nwell")
    (line,) = lines(tmp_path)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "action": "start",
        "runs": ["news/a\nb"],
        "count": 1,
        "settings": {"margin": "5"},
        "outcome": "started\nwell",
    }


def test_a_refusal_and_a_failure_are_written_down_and_go_on_up(tmp_path):
    for error in (UserError("it is running"), ZeroDivisionError("of a bug")):
        with pytest.raises(type(error)), audit.noted(tmp_path, "delete", ["news/a"]):
            raise error
    assert [each["outcome"] for each in lines(tmp_path)] == [
        "refused: it is running",
        "failed: ZeroDivisionError",
    ]


def test_no_secret_stands_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    told = {
        "api_key": "hunter2hunter2",
        "data": "https://me:hunter2hunter2@host/x",
        "note": "0123456789abcdef",
    }
    write(tmp_path, settings=told, outcome="refused: 0123456789abcdef")
    text = (tmp_path / audit.FOLDER / audit.FILE).read_text()
    assert "hunter2" not in text
    assert "0123456789abcdef" not in text
    assert lines(tmp_path)[0]["settings"]["api_key"] == "***"


def test_a_line_is_bounded_whatever_was_sent(tmp_path):
    write(
        tmp_path, runs=["r" * 10_000] * 1000, settings={f"{n}{'k' * 999}": "v" * 10_000 for n in range(999)}
    )
    assert (tmp_path / audit.FOLDER / audit.FILE).stat().st_size < 50_000
    assert lines(tmp_path)[0]["count"] == 1000


def test_the_file_makes_room_and_the_one_before_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "LARGEST", 500)
    for number in range(20):
        write(tmp_path, outcome=str(number))
    kept = [*(tmp_path / audit.FOLDER).iterdir()]
    assert {each.name for each in kept} == {audit.FILE, "audit-before.jsonl"}
    assert sum(each.stat().st_size for each in kept) < 1600
    assert lines(tmp_path)[-1]["outcome"] == "19"


def test_lines_of_many_at_once_are_whole_and_none_is_lost(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: write(tmp_path, outcome=f"{number} " * 100), range(200)))
    assert {each["outcome"].split()[0] for each in lines(tmp_path)} == {str(each) for each in range(200)}


def test_what_can_t_be_written_down_is_done_all_the_same_and_nothing_is_written_through_a_link(
    tmp_path, caplog
):
    (tmp_path / audit.FOLDER).mkdir()
    (tmp_path / audit.FOLDER / audit.FILE).symlink_to(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        write(tmp_path)
    assert "stop of news/a can't be written down" in caplog.text
    assert not (tmp_path / "elsewhere").exists()


def test_the_board_s_own_files_are_no_runs(tmp_path):
    make(tmp_path, "news/a")
    make(tmp_path, f"{audit.FOLDER}/news/b")
    assert list(find.known(tmp_path)) == ["news/a"]
