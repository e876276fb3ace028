"""Commands in the background."""

from __future__ import annotations

import os

import pytest

from lab import processes
from trainlab.errors import UserError
from trainlab.headless import jobs
from waiting import until


def ended(place, name):
    return until(lambda: (job := jobs.read(place, name)).state != "running" and job, "its end")


def test_a_command_that_succeeds_is_done_and_one_that_refuses_has_failed(tmp_path):
    for words, state, said in (
        (["--version"], "done", "trainlab "),
        (["runs", "show", "none"], "failed", "error: "),
    ):
        name = jobs.named("try")
        jobs.begin(tmp_path / "jobs", name, words)
        job = ended(tmp_path / "jobs", name)
        assert job.state == state
        assert said in job.output


def test_one_that_was_killed_has_failed_and_until_then_it_runs(tmp_path, monkeypatch):
    pytest.importorskip("fastapi")
    monkeypatch.setenv("JUPYTER_TOKEN", "secret-token")
    name = jobs.named("board")
    jobs.begin(tmp_path, name, ["board", "--port", "0", "--logs", str(tmp_path / "logs")])
    until(lambda: "http://" in jobs.read(tmp_path, name).output, "its address")
    assert jobs.read(tmp_path, name).state == "running"
    (process,) = processes(str(tmp_path / "logs"))
    assert "JUPYTER_TOKEN" not in process.environ()
    assert os.getsid(process.pid) == process.pid, "our terminal's end does not reach it"
    process.kill()
    assert ended(tmp_path, name).state == "failed"


def test_what_a_command_printed_steers_no_terminal_and_hides_no_line(tmp_path):
    (tmp_path / "a.log").write_bytes(b"1 %\r50 %\r\x1b[2Jdone\n\xff\n[done]\n")
    assert jobs.read(tmp_path, "a").output == "?[2Jdone\n\ufffd\n[done]"


@pytest.mark.parametrize("name", ["../a", "b", "", "link"])
def test_no_other_file_is_read(tmp_path, name):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "a.log").write_text("of somebody else's")
    (tmp_path / "jobs" / "link.log").symlink_to(tmp_path / "a.log")
    with pytest.raises(UserError):
        jobs.read(tmp_path / "jobs", name)
