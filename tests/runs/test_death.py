"""A run that died without a word: what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runs_folder import make
from trainlab import limits
from trainlab.runs import death, listing
from trainlab.runs.run import Run


def reason(logs):
    (row,) = listing.rows(logs)
    assert row.status == "interrupted"
    return row.reason


@pytest.mark.parametrize(
    ("limit", "said"), [(8 << 30, "out of memory (limit 8.0 GiB)"), (None, "out of memory")]
)
def test_a_kill_that_the_kernel_has_counted_since_the_start_is_told(tmp_path, monkeypatch, limit, said):
    make(tmp_path, "news/a", status="running", home=death.home(), oom_kills=2)
    monkeypatch.setattr(limits, "oom_kills", lambda: 3)
    monkeypatch.setattr(limits, "memory_limit", lambda: limit)
    assert reason(tmp_path) == said


@pytest.mark.parametrize(
    ("before", "now", "home"), [(2, 2, None), (None, 2, None), (2, None, None), (2, 3, "elsewhere")]
)
def test_without_a_count_from_the_same_place_nothing_is_claimed(tmp_path, monkeypatch, before, now, home):
    make(tmp_path, "news/a", status="running", home=home or death.home(), oom_kills=before)
    monkeypatch.setattr(limits, "oom_kills", lambda: now)
    assert "137" in reason(tmp_path)


def test_a_run_writes_down_what_is_compared_later(tmp_path):
    with Run("news", logs=tmp_path) as run:
        assert run._record.oom_kills == limits.oom_kills()
        assert run._record.home == death.home()


def test_a_run_offers_its_process_to_the_kernel_before_others(tmp_path):
    with Run("news", logs=tmp_path):
        assert int(Path("/proc/self/oom_score_adj").read_text()) >= death.FIRST_TO_GO


def test_a_score_that_is_higher_already_is_left_alone(tmp_path, monkeypatch):
    score = tmp_path / "oom_score_adj"
    score.write_text("900\n")
    monkeypatch.setattr(death, "_SCORE", score)
    death.go_first()
    assert score.read_text() == "900\n"
