"""A run goes on in its own folder, under its own settings, and its curves show one value a step."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from trainlab.config import Config
from trainlab.errors import UserError
from trainlab.run import checkpoint, events, lock, record, resuming
from trainlab.run import run as run_module
from trainlab.run.run import Run
from trainlab.run.writing import EventFile
from trainlab.runs import listing

SRC = Path(run_module.__file__).parents[2]
DEADLINE = 60  # seconds for another process to reach its place


class Settings(Config):
    margin: float = 3.0
    epochs: int = 3
    accelerator: str = "auto"

    ALIASES: ClassVar = {"device": "accelerator"}
    MAY_CHANGE: ClassVar = frozenset({"epochs", "accelerator"})


class Resumable(Settings):
    resume: str = Field("", exclude=True)


def log(run, steps, value=1.0, tag="train/loss"):
    for step in steps:
        run.log({tag: value}, step)


def save(run, step):
    path = run.checkpoints / f"step-{step:08d}.ckpt"
    checkpoint.save({"global_step": step}, path)
    checkpoint.alias(path, "last.ckpt")
    return path


def trained(logs, steps=10, saved=(3, 6), config=None):
    """Record a run that has logged `steps` points and saved checkpoints; return its folder."""
    with Run("news", config or Settings(), logs=logs) as run:
        log(run, range(steps))
        for step in saved:
            save(run, step)
    return run.folder


def points(folder, tag="train/loss"):
    curve = events.read(folder).curves[tag]
    return list(zip(curve.steps, curve.values, strict=True))


def refuse(*_):
    raise OSError(28, "No space left on device")


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_goes_on_in_its_own_folder_with_a_new_event_file(tmp_path):
    folder = trained(tmp_path)
    before = record.read(folder)
    with Run("news", Settings(epochs=10), resume=folder.name, logs=tmp_path) as run:
        assert (run.folder, run.resumed, run.checkpoint) == (
            folder,
            True,
            folder / "checkpoints/step-00000006.ckpt",
        )
        assert record.read(folder).status == "running"
        assert record.read(folder).ended is None
        run.rewind(6, run.checkpoint)
        log(run, range(6, 12), value=0.5)
    assert points(folder) == [(step, 1.0) for step in range(6)] + [(step, 0.5) for step in range(6, 12)]
    after = record.read(folder)
    assert (after.status, after.config["epochs"], after.started) == ("finished", 10, before.started)
    assert after.last["train/loss"].step == 11
    assert after.best["train/loss"].value == 0.5
    (session,) = after.resumes
    assert (session.step, session.checkpoint) == (6, "checkpoints/step-00000006.ckpt")
    assert session.at > before.ended
    assert len(events.files(folder)) == 2
    assert [row.label for row in listing.rows(tmp_path)] == [f"news/{folder.name}"]


def test_what_was_best_after_the_checkpoint_is_forgotten_with_its_step(tmp_path):
    with Run("news", logs=tmp_path) as run:
        for step, loss in enumerate([3.0, 2.0, 1.0]):
            run.log({"val/loss": loss}, step)
    with Run("news", resume=run.folder) as run:
        run.rewind(2)
    found = record.read(run.folder)
    assert (found.last["val/loss"].value, found.best["val/loss"].step) == (2.0, 1)


def test_a_config_may_name_the_run_itself_and_an_empty_reference_means_a_new_one(tmp_path):
    folder = trained(tmp_path)
    with Run("news", Resumable(resume="last"), logs=tmp_path) as run:
        assert run.folder == folder
    assert record.read(folder).config == Settings().model_dump()
    with Run("news", Resumable(resume="last"), resume="", logs=tmp_path) as run:
        assert (run.folder != folder, run.resumed, run.checkpoint) == (True, False, None)


def test_last_is_the_newest_run_of_the_same_experiment(tmp_path):
    folder = trained(tmp_path)
    Run("captions", logs=tmp_path).finish()
    with Run("news", Settings(), resume="last", logs=tmp_path) as run:
        assert run.folder == folder
    with pytest.raises(UserError, match=r"No run of sentiment in .*trainlab run sentiment"):
        Run("sentiment", resume="last", logs=tmp_path)


def test_other_settings_are_refused_by_name_with_both_values_and_nothing_is_changed(tmp_path):
    folder = trained(tmp_path)
    before = content(folder)
    with pytest.raises(UserError, match=r"margin: the run has 3\.0, given is 5\.0\.") as caught:
        Run("news", Settings(margin=5, epochs=9), resume="last", logs=tmp_path)
    assert "epochs:" not in str(caught.value)
    assert "may be given anew: accelerator, epochs." in str(caught.value)
    assert content(folder) == before
    assert not lock.alive(folder)


@pytest.mark.parametrize(
    "now",
    [{"sha256": "b" * 64, "rows": 9}, {"sha256": "a" * 64, "test_sha256": "c" * 64}],
    ids=["a file with another content", "a test part that the run did not know"],
)
def test_other_data_is_refused_with_both_digests_and_nothing_is_changed(tmp_path, now):
    with Run("news", Settings(), data={"sha256": "a" * 64, "rows": 9}, logs=tmp_path) as run:
        log(run, range(3))
    before = content(run.folder)
    with pytest.raises(UserError, match=r"learned from other data: \w*sha256 .* then, .* now") as caught:
        Run("news", Settings(), data=now, resume="last", logs=tmp_path)
    assert "start a new run" in str(caught.value)
    assert content(run.folder) == before
    assert not lock.alive(run.folder)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"sha256": "a", "path": "/here/news.tsv"}, {"sha256": "a", "path": "/there/news.tsv"}),
        ({"rows": 9}, {"rows": 10}),  # no digest: more data may be what is wanted
        (None, {"sha256": "a"}),
        ({"sha256": "a"}, None),
    ],
)
def test_data_goes_on_where_its_digest_is_the_same_or_was_not_recorded(tmp_path, before, now):
    with Run("news", Settings(), data=before, logs=tmp_path) as run:
        log(run, range(3))
    with Run("news", Settings(), data=now, resume="last", logs=tmp_path) as again:
        assert again.folder == run.folder


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"margin": 3.0, "epochs": 3, "device": "cpu"}, {"margin": 3, "accelerator": "auto"}),
        ({}, {"margin": 3.0}),
        ({"margin": 3.0, "no longer a setting": 1}, {}),
    ],
)
def test_settings_are_compared_under_todays_names_and_with_defaults(before, now):
    resuming.check_same(Settings, before, now)


@pytest.mark.parametrize("length", resuming.LENGTHS)
def test_without_a_class_of_settings_what_says_how_long_may_be_given_anew_and_nothing_else(length):
    resuming.check_same(None, {length: 3, "lr": 0.1}, {length: 5, "lr": 0.1})
    with pytest.raises(UserError, match=r"lr: the run has 0\.1, given is 0\.2\."):
        resuming.check_same(None, {length: 3, "lr": 0.1}, {length: 5, "lr": 0.2})


def test_another_experiment_s_run_is_refused_by_path_too(tmp_path):
    with Run("captions", {"words": 9}, logs=tmp_path) as run:
        pass
    with pytest.raises(UserError, match=r"is of captions, not of news: its settings words have no meaning"):
        Run("news", Settings(), resume=run.folder)
    assert record.read(run.folder).resumes == []


def test_a_run_that_lies_under_its_notebook_s_name_goes_on_by_its_path(tmp_path):
    folder = trained(tmp_path)
    (tmp_path / "tour").mkdir()
    folder = folder.rename(tmp_path / "tour" / folder.name)
    record.update(folder, experiment="tour")
    Run("news", Settings(), resume=folder).finish()


def test_a_run_that_could_not_start_is_not_left_locked(tmp_path, monkeypatch):
    folder = trained(tmp_path)
    monkeypatch.setattr(EventFile, "start_session", refuse)
    with pytest.raises(UserError, match="No space left on device"):
        Run("news", Settings(), resume=folder)
    monkeypatch.undo()
    Run("news", Settings(), resume=folder).finish()


def test_a_run_left_open_in_this_process_is_refused_with_the_way_out(tmp_path):
    run = Run("news", Settings(), logs=tmp_path)
    with pytest.raises(UserError, match=r"call the run's finish\(\), or restart the kernel"):
        Run("news", Settings(), resume=run.folder)
    run.finish()


def test_litter_of_a_killed_process_is_swept_up_and_nothing_else(tmp_path):
    folder = trained(tmp_path)
    litter = [".run.json.0123abcd.tmp", "checkpoints/.last.ckpt.0123abcd.tmp", "checkpoints/gone.ckpt.sha256"]
    kept = [".notes.tmp", "checkpoints/step-00000003.ckpt.sha256"]
    for name in [*litter, kept[0]]:
        (folder / name).touch()
    Run("news", Settings(), resume=folder).finish()
    assert [(folder / name).exists() for name in [*litter, *kept]] == [False] * 3 + [True] * 2


def test_plain_settings_must_all_be_equal():
    resuming.check_same(None, {"a": 1, "b": (1, 2)}, {"a": 1, "b": [1, 2]})
    with pytest.raises(
        UserError, match=r"a: the run has 1, given is 2\.\nc: the run has 'nothing', given is 3"
    ):
        resuming.check_same(None, {"a": 1}, {"a": 2, "c": 3})


def test_a_plain_loop_may_be_given_more_steps():
    resuming.check_same(None, {"lr": 1, "max_steps": 100}, {"lr": 1, "max_steps": 200})


def test_a_setting_that_is_not_allowed_any_more_is_still_compared():
    with pytest.raises(UserError, match=r"margin: the run has 'wide', given is 3\.0"):
        resuming.check_same(Settings, {"margin": "wide"}, {})


def test_a_run_at_work_is_refused_with_its_process_and_its_host(tmp_path):
    with Run("news", Settings(), logs=tmp_path) as run:
        who = f"process {os.getpid()} on {record.read(run.folder).host}"
        with pytest.raises(UserError, match=f"still running: {who}"):
            Run("news", Settings(), resume=run.folder)
    assert record.read(run.folder).resumes == []


def test_a_run_under_a_headless_runner_is_refused_too(tmp_path):
    folder = trained(tmp_path)
    held = lock.hold(folder, lock.RUNNER)
    with pytest.raises(UserError, match="still running"):
        Run("news", Settings(), resume=folder)
    held.release()
    Run("news", Settings(), resume=folder).finish()


HOLD = """
import sys, time
from pathlib import Path
from trainlab import Run
run = Run("news", resume=Path(sys.argv[1]))
run.rewind(5)
run.log({"train/loss": 7.0}, 5)
print("held", flush=True)
time.sleep(600)
"""


def test_the_second_of_two_that_resume_is_refused_until_the_first_is_killed(tmp_path):
    with Run("news", logs=tmp_path) as run:
        log(run, range(10))
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, run.folder],
        env=os.environ | {"PYTHONPATH": str(SRC)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert [first.stdout.readline() for _ in range(2)][1] == "held\n"  # after a warning
        with pytest.raises(UserError, match=f"still running: process {first.pid}"):
            Run("news", resume=run.folder)
    finally:
        first.kill()
        first.wait()
    (row,) = listing.rows(tmp_path)
    assert (row.status, row.last["train/loss"]) == ("interrupted", 7.0)
    with Run("news", resume=run.folder) as second:
        second.rewind(6)
        second.log({"train/loss": 8.0}, 6)
    assert points(run.folder) == [*((step, 1.0) for step in range(5)), (5, 7.0), (6, 8.0)]
    assert [session.step for session in record.read(run.folder).resumes] == [5, 6]


def test_a_checkpoint_may_be_named_itself(tmp_path):
    folder = trained(tmp_path)
    chosen = folder / "checkpoints" / "step-00000003.ckpt"
    with Run("news", Settings(), resume=str(chosen)) as run:
        assert (run.folder, run.checkpoint) == (folder, chosen)


@pytest.mark.parametrize("name", ["step-00000009.ckpt", "best.ckpt"])
def test_a_checkpoint_that_is_missing_or_holds_weights_alone_is_refused(tmp_path, name):
    folder = trained(tmp_path)
    shutil.copy(folder / "checkpoints" / "last.ckpt", folder / "checkpoints" / "best.ckpt")
    with pytest.raises(UserError, match=r"no such checkpoint|not what a training can go on from"):
        Run("news", Settings(), resume=folder / "checkpoints" / name)


def test_a_run_without_a_checkpoint_starts_again_with_a_warning(tmp_path, capsys):
    folder = trained(tmp_path, saved=())
    with Run("news", Settings(), resume="last", logs=tmp_path) as run:
        assert run.checkpoint is None
        assert "has no checkpoint: the training starts again" in capsys.readouterr().out
        assert not run.has("train/loss", 0), "what is there is not counted: it will be taken back"
        log(run, [0, 1], value=2.0)
    assert points(folder) == [(0, 2.0), (1, 2.0)]
    assert record.read(folder).resumes[0].step == 0


def test_folders_that_we_did_not_record_cannot_go_on(tmp_path):
    folder = trained(tmp_path)
    (folder / "run.json").unlink()
    with pytest.raises(UserError, match=r"has no run\.json"):
        Run("news", Settings(), resume=folder)


def test_a_renamed_run_goes_on_under_its_new_name(tmp_path):
    folder = trained(tmp_path)
    folder = folder.rename(folder.with_name("best-so-far"))
    with Run("news", Settings(), resume="best-so", logs=tmp_path) as run:
        assert (run.name, record.read(folder).run) == ("best-so-far", "best-so-far")


def test_the_seconds_of_all_sessions_are_summed_without_the_time_between(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(run_module.time, "monotonic", lambda: clock[0])
    with Run("news", logs=tmp_path) as run:
        clock[0] += 5
    clock[0] += 1000
    with Run("news", resume=run.folder):
        clock[0] += 7
    assert record.read(run.folder).seconds == 12.0
    assert listing.rows(tmp_path)[0].seconds == 12.0


def test_a_clock_that_was_set_back_gives_no_negative_seconds_and_no_older_event_file(tmp_path):
    folder = trained(tmp_path, saved=())
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    record.update(folder, started=tomorrow, ended=tomorrow)  # by the clock as it was then
    for path in events.files(folder):
        path.rename(
            path.with_name(path.name.replace(str(events.written_at(path)), f"{tomorrow.timestamp():.0f}"))
        )
    with Run("news", Settings(), resume=folder) as run:
        run.rewind(4)
        log(run, [4, 5], value=2.0)
    assert points(folder) == [*((step, 1.0) for step in range(4)), (4, 2.0), (5, 2.0)]
    names = [path.name for path in events.files(folder)]
    assert names == sorted(names)
    assert 0 <= record.read(folder).seconds < DEADLINE
    assert record.write_end(folder, "finished").seconds >= 0


def test_event_files_of_one_second_keep_their_order(tmp_path):
    folder = trained(tmp_path, steps=3, saved=())
    for value in range(2, 13):
        with Run("news", Settings(), resume=folder) as run:
            run.rewind(1)
            log(run, [1, 2], value=float(value))
    files = [path.name for path in events.files(folder)]
    assert len(files) == 12
    assert files == sorted(files)
    assert points(folder) == [(0, 1.0), (1, 12.0), (2, 12.0)]


def test_the_adopted_folder_of_a_resume_is_a_resumed_run(tmp_path, monkeypatch):
    folder = trained(tmp_path)
    record.reopen(folder, notebook="news.ipynb")
    monkeypatch.setenv(run_module.ADOPT, str(folder))
    runner = lock.hold(folder, lock.RUNNER)
    with Run("news", Resumable(resume=folder.name), logs=tmp_path) as run:
        assert (run.resumed, run.folder, run.checkpoint.name) == (True, folder, "step-00000006.ckpt")
        run.rewind(6, run.checkpoint)
    runner.release()
    found = record.read(folder)
    assert [session.step for session in found.resumes] == [6]
    assert found.status == "running", "only the runner knows whether the later cells run"


def test_a_run_that_goes_on_in_a_headless_notebook_leaves_that_notebook_s_folder_to_the_next(
    tmp_path, monkeypatch
):
    folder = trained(tmp_path)
    own = tmp_path / "tour" / "20261120-153012"
    own.mkdir(parents=True)
    record.create(own, "tour")
    monkeypatch.setenv(run_module.ADOPT, str(own))
    with Run("news", Settings(), resume=folder) as run:
        assert run.folder == folder
    with Run("news", Settings(), logs=tmp_path) as run:
        assert run.folder == own


def test_an_adopted_folder_with_other_settings_is_refused(tmp_path, monkeypatch):
    folder = trained(tmp_path)
    monkeypatch.setenv(run_module.ADOPT, str(folder))
    with pytest.raises(UserError, match="margin"):
        Run("news", Resumable(margin=4, resume=folder.name), logs=tmp_path)
    assert not lock.alive(folder)


def test_secrets_among_the_settings_are_not_recorded_and_not_compared(tmp_path):
    with Run("news", {"api_key": "the-first-key", "margin": 1.0}, logs=tmp_path) as run:
        run.log({"loss": 1.0}, 1)
    assert record.read(run.folder).config == {"api_key": "***", "margin": 1.0}
    assert run.config["api_key"] == "the-first-key"
    with Run("news", {"api_key": "another-key", "margin": 1.0}, logs=tmp_path, resume="last") as again:
        assert again.folder == run.folder
    with pytest.raises(UserError, match=r"margin: the run has 1.0, given is 2.0"):
        Run("news", {"api_key": "another-key", "margin": 2.0}, logs=tmp_path, resume="last")
    for path in run.folder.rglob("*"):
        assert b"first-key" not in path.read_bytes()
