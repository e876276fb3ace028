"""A run that died without a word: what is said of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from project import CHECKOUT
from runs_folder import make
from trainlab import system
from trainlab.headless import execution
from trainlab.run import record
from trainlab.run.run import Run
from trainlab.runs import listing

GIB = 1 << 30


def reason(logs):
    (row,) = listing.rows(logs)
    assert row.status == "interrupted"
    return row.reason


@pytest.mark.parametrize(
    ("limit", "said"), [(8 << 30, "out of memory (limit 8.0 GiB)"), (None, "out of memory")]
)
def test_a_kill_that_the_kernel_has_counted_since_the_start_is_told(tmp_path, monkeypatch, limit, said):
    make(tmp_path, "news/a", status="running", home=record.boot_id(), oom_kills=2)
    monkeypatch.setattr(system, "oom_kills", lambda: 3)
    monkeypatch.setattr(system, "memory_limit", lambda: limit)
    assert reason(tmp_path) == said


@pytest.mark.parametrize(
    ("before", "now", "home"), [(2, 2, None), (None, 2, None), (2, None, None), (2, 3, "elsewhere")]
)
def test_without_a_count_from_the_same_place_nothing_is_claimed(tmp_path, monkeypatch, before, now, home):
    make(tmp_path, "news/a", status="running", home=home or record.boot_id(), oom_kills=before)
    monkeypatch.setattr(system, "oom_kills", lambda: now)
    assert "137" in reason(tmp_path)


def test_a_run_writes_down_what_is_compared_later(tmp_path):
    with Run("news", logs=tmp_path) as run:
        assert record.read(run.folder).oom_kills == system.oom_kills()
        assert record.read(run.folder).home == record.boot_id()


def test_a_run_offers_its_process_to_the_kernel_before_others(tmp_path):
    with Run("news", logs=tmp_path):
        assert int(Path("/proc/self/oom_score_adj").read_text()) >= record.FIRST_TO_GO


def test_a_score_that_is_higher_already_is_left_alone(tmp_path, monkeypatch):
    score = tmp_path / "oom_score_adj"
    score.write_text("900\n")
    monkeypatch.setattr(record, "SCORE", score)
    record.raise_oom_score()
    assert score.read_text() == "900\n"


@pytest.mark.parametrize(("before", "after"), [("0", "500"), ("600", "500"), ("900", "900")])
def test_jupyterlab_goes_before_a_training_that_was_started_in_it(tmp_path, monkeypatch, before, after):
    score = tmp_path / "oom_score_adj"
    score.write_text(f"{before}\n")
    monkeypatch.setattr(record, "SCORE", score)
    record.raise_oom_score()
    assert score.read_text().strip() == after
    record.raise_oom_score(0)
    assert score.read_text().strip() == after, "only what JupyterLab's terminal gave is taken back"


def test_what_watches_over_a_run_outlives_it_if_it_was_started_in_jupyterlab_s_terminal():
    code = (
        "from pathlib import Path\nfrom trainlab.run import record\n"
        "score = Path('/proc/self/oom_score_adj')\n"
        f"score.write_text('{record.OF_JUPYTERLAB}'); record.raise_oom_score(0)\n"
        "print(score.read_text().strip())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "0"


def test_the_server_s_own_score_is_the_one_that_is_known_here():
    settings = (CHECKOUT / "jupyter/jupyter_server_config.py").read_text()
    assert f'write_text("{record.OF_JUPYTERLAB}")' in settings
    assert record.OF_JUPYTERLAB > record.FIRST_TO_GO


@pytest.mark.parametrize(
    ("used", "batch"), [(7 * GIB, True), (5 * GIB, True), (GIB, False), (100 << 20, False)]
)
def test_a_smaller_batch_is_advised_only_where_the_run_took_most_of_the_memory(used, batch):
    told = execution.memory_advice(8 * GIB, used)
    assert ("smaller batch" in told) == batch
    assert "raise JUPYTER_MEMORY" in told


class Kills:
    """A memory watch that knows what it is told."""

    def __init__(self, known, kill):
        self.known, self._kill = known, kill

    def kill(self):
        return self._kill


@pytest.mark.parametrize(
    ("memory", "told"),
    [
        (Kills(True, None), "the kernel died (signal 9): not for memory"),
        (Kills(False, None), "the kernel died (signal 9): mostly the machine's memory was full"),
        (Kills(True, "killed at the memory limit of 8.0 GiB"), "out of memory: the kernel was killed at"),
    ],
)
def test_a_kernel_killed_by_hand_is_not_said_to_have_run_out_of_memory(memory, told):
    reason = execution.from_exit_code(-signal.SIGKILL, memory).reason
    assert reason.startswith(told)
    assert "batch" not in reason, "this process's own children took little"
