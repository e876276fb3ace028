from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter
from typer.testing import CliRunner

import trainlab
from runs_folder import make, points
from trainlab.cli.runs import app
from trainlab.errors import UserError
from trainlab.run import events, find, lock, record
from trainlab.run.run import Run
from trainlab.runs import listing, trash
from trainlab.runs.listing import UNKNOWN, UNREADABLE
from trainlab.trackers.wandb import FOLDER as WANDB

GARBAGE = b"this is no event file at all"


def statuses(logs):
    return {row.label: row.status for row in listing.rows(logs)}


def reasons(logs):
    return {row.label: row.reason for row in listing.rows(logs)}


def foreign(folder, **scalars):
    with SummaryWriter(str(folder)) as writer:
        for tag, values in scalars.items():
            for step, value in enumerate(values):
                writer.add_scalar(tag.replace("_", "/"), value, step)


def test_our_runs_and_foreign_ones_are_listed_the_newest_first(tmp_path):
    make(tmp_path, "news/a", minutes_ago=5, last=points(val_loss=2.0), best=points(val_loss=1.0))
    make(tmp_path, "news/b", minutes_ago=9)
    foreign(tmp_path / "lightning" / "lightning_logs" / "version_0", val_loss=[3, 1, 2])
    found = listing.rows(tmp_path)
    assert [row.label for row in found] == ["lightning/lightning_logs/version_0", "news/a", "news/b"]
    assert [row.status for row in found] == [UNKNOWN, "finished", "finished"]
    assert (found[0].experiment, found[0].run) == ("lightning/lightning_logs", "version_0")
    assert (found[0].last, found[0].best) == ({"val/loss": 2.0}, {"val/loss": 1.0})
    assert (found[1].last, found[1].best) == ({"val/loss": 2.0}, {"val/loss": 1.0})


def test_event_files_right_in_logs_are_a_run_too(tmp_path):
    foreign(tmp_path, a=[1])
    assert [row.label for row in listing.rows(tmp_path)] == ["."]


def test_a_running_run_is_alive_while_its_lock_or_the_runners_is_held(tmp_path):
    folder = make(tmp_path, "news/a", status="running", minutes_ago=1)
    for name in (lock.RUN, lock.RUNNER):
        held = lock.hold(folder, name)
        (row,) = listing.rows(tmp_path)
        assert (row.status, row.reason) == ("running", None)
        assert 60 <= row.seconds < 120
        held.release()
    (row,) = listing.rows(tmp_path)
    assert (row.status, row.reason) == ("interrupted", record.UNKNOWN)
    assert row.seconds >= 59


def test_a_second_holder_is_refused(tmp_path):
    held = lock.hold(tmp_path)
    assert held is not None
    assert lock.hold(tmp_path) is None
    held.release()
    assert lock.hold(tmp_path) is not None


def test_metrics_of_somebody_elses_writer_in_our_run_are_found(tmp_path):
    folder = make(tmp_path, "own/notebook")
    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar("val/loss", 0.5, 1)
        writer.add_hparams({"lr": 0.1}, {}, run_name=".")
    (row,) = listing.rows(tmp_path)
    assert (row.last, row.config) == ({"val/loss": 0.5}, {"lr": 0.1})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"config": ' + b"[" * 900 + b"]" * 900 + b"}", "more than 50 lists and objects inside each other"),
        (b'{"config": ' + b"[" * 45 + b"]" * 45 + b"}", "experiment: field required"),
        (b"[]", "not a run's record"),
        (b"null", "not a run's record"),
        (b'{"loss": 1}', "experiment: field required"),
        (
            b'{"experiment": "a", "run": "b", "status": "gone", "started": "2026-11-20T15:30:12Z"}',
            "status: input",
        ),
        (b'{"experiment": "a", "run": "b", "status": "failed", "started": "yesterday"}', "started: input"),
        (
            b'{"experiment": "a", "run": "b", "status": "failed", "started": "2026-11-20T15:30:12"}',
            "started: ",
        ),
    ],
)
def test_an_edited_or_foreign_record_makes_that_run_unreadable_and_no_other(tmp_path, content, reason):
    make(tmp_path, "news/good")
    (tmp_path / "news" / "bad").mkdir()
    (tmp_path / "news" / "bad" / "run.json").write_bytes(content)
    assert statuses(tmp_path) == {"news/good": "finished", "news/bad": UNREADABLE}
    assert reason in reasons(tmp_path)["news/bad"]
    assert "news/bad/run.json" in reasons(tmp_path)["news/bad"]


def test_garbage_in_an_event_file_is_named_and_everything_else_is_shown(tmp_path):
    make(tmp_path, "news/good")
    ours = make(tmp_path, "news/ours", last=points(val_loss=1.0))
    silent = make(tmp_path, "news/silent", status="running")
    foreign(silent, val_loss=[3.0])
    foreign(tmp_path / "partly", val_loss=[2.0])
    for folder in (ours, silent, tmp_path / "partly", tmp_path / "foreign"):
        folder.mkdir(exist_ok=True)
        (folder / "events.out.tfevents.1.host").write_bytes(GARBAGE)
        (folder / "events.out.tfevents.2.host").touch()
    assert statuses(tmp_path) == {
        "news/good": "finished",
        "news/ours": "finished",
        "news/silent": "interrupted",
        "partly": UNKNOWN,
        "foreign": UNREADABLE,
    }
    last = {row.label: row.last.get("val/loss") for row in listing.rows(tmp_path)}
    assert (last["news/ours"], last["news/silent"], last["partly"]) == (1.0, 3.0, 2.0)
    for label in ("news/ours", "news/silent", "partly", "foreign"):
        assert f"{label}/events.out.tfevents.1.host: no event at byte 0" in reasons(tmp_path)[label]
    shown = CliRunner().invoke(app, ["--logs", str(tmp_path)]).stdout
    assert f"news/ours: {ours}/events.out.tfevents.1.host: no event at byte 0" in shown


def test_scalars_of_a_run_with_a_damaged_file_are_the_others_with_a_warning(tmp_path):
    foreign(tmp_path / "partly", val_loss=[2.0])
    (tmp_path / "partly" / "events.out.tfevents.1.host").write_bytes(GARBAGE)
    with pytest.warns(UserWarning, match="no event at byte 0"):
        assert trainlab.scalars(tmp_path / "partly")["value"].tolist() == [2.0]


def as_somebody_else(work):
    """Return what `work` returns in a forked child that is not root, who may read everything."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        return json.load(answer)


def test_folders_without_permission_are_listed_with_the_reason():
    with tempfile.TemporaryDirectory() as name:
        logs = Path(name)
        logs.chmod(0o755)
        _, file, folder = make(logs, "n/good"), make(logs, "n/file"), make(logs, "n/folder")
        (file / "run.json").chmod(0)
        folder.chmod(0)
        rows = as_somebody_else(lambda: [(row.label, row.status, row.reason) for row in listing.rows(logs)])
        folder.chmod(0o755)
    assert sorted(rows) == [
        ["n/file", UNREADABLE, f"{file}/run.json: Permission denied."],
        ["n/folder", UNREADABLE, f"{folder}: Permission denied."],
        ["n/good", "finished", None],
    ]


def test_logs_may_be_a_link_a_link_within_them_is_followed_and_a_circle_ends(tmp_path):
    make(tmp_path / "disk", "store/.hidden/a")
    (tmp_path / "logs").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "linked").symlink_to(tmp_path / "disk" / "store" / ".hidden")
    (tmp_path / "disk" / "store" / "circle").symlink_to("..")
    (tmp_path / "disk" / "broken").symlink_to("nowhere")
    assert statuses(tmp_path / "logs") == {"linked/a": "finished"}


def test_a_link_out_of_logs_is_named_once_and_not_followed(tmp_path):
    make(tmp_path / "elsewhere", "news/a")
    make(tmp_path, "logs/news/good")
    (tmp_path / "logs" / "disk").symlink_to(tmp_path / "elsewhere")
    assert statuses(tmp_path / "logs") == {"news/good": "finished", "disk": UNREADABLE}
    sentence = f"disk is a link to {tmp_path}/elsewhere, out of the folder of runs: not followed."
    shown = CliRunner().invoke(app, ["--logs", str(tmp_path / "logs")]).stdout
    assert shown.count(sentence) == 1


@pytest.mark.parametrize("hidden", [trash.FOLDER, WANDB, ".cache", ".ipynb_checkpoints", ".git"])
def test_deleted_runs_and_caches_and_folders_without_runs_are_not_listed(tmp_path, hidden):
    make(tmp_path, f"{hidden}/a")
    make(tmp_path, f"news/{hidden}/a")
    foreign(tmp_path / hidden / "deep" / "train", loss=[1.0])
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    assert listing.rows(tmp_path) == []


def test_a_hidden_folder_of_a_users_own_is_listed_under_its_name(tmp_path):
    foreign(tmp_path / ".exp" / "run1", loss=[1.0])
    foreign(tmp_path / "news" / ".run2", loss=[1.0])
    make(tmp_path, ".mine/a")
    assert {row.label for row in listing.rows(tmp_path)} == {".exp/run1", "news/.run2", ".mine/a"}
    assert {row.experiment for row in listing.rows(tmp_path)} == {".exp", "news", ".mine"}
    assert find.find(".exp/run1", tmp_path) == tmp_path / ".exp" / "run1"


def test_a_missing_logs_folder_is_an_error_for_people(tmp_path):
    with pytest.raises(UserError, match="--logs DIR"):
        listing.rows(tmp_path / "none")


def test_an_unknown_experiment_is_an_error_that_names_the_nearest(tmp_path):
    make(tmp_path, "news/a")
    make(tmp_path, "sentiment/b")
    assert [row.label for row in listing.rows(tmp_path, "news")] == ["news/a"]
    with pytest.raises(UserError, match=r"'new' .*Did you mean 'news'\? There: news, sentiment"):
        listing.rows(tmp_path, "new")


def test_the_table_is_a_data_frame_with_a_column_for_everything(tmp_path):
    make(tmp_path, "news/a", config={"margin": 5.0}, last=points(val_loss=2.0), best=points(val_loss=1.0))
    make(tmp_path, "news/b", minutes_ago=1, config={"size": 3})
    frame = trainlab.table(tmp_path)
    assert list(frame["run"]) == ["a", "b"]
    assert str(frame["started"].dt.tz) == "UTC"
    assert frame.loc[0, ["config.margin", "best.val/loss", "last.val/loss"]].tolist() == [5.0, 1.0, 2.0]
    assert math.isnan(frame.loc[1, "config.margin"])
    assert trainlab.table(tmp_path, "news").shape == frame.shape


def test_the_table_of_no_runs_is_an_empty_data_frame(tmp_path):
    assert trainlab.table(tmp_path).empty
    assert "status" in trainlab.table(tmp_path).columns


def test_scalars_are_a_data_frame_of_points(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINLAB_LOGS", str(tmp_path))
    foreign(tmp_path / "torch" / "one", val_loss=[3, 1], train_loss=[2])
    frame = trainlab.scalars("one")
    assert list(frame.columns) == ["tag", "step", "wall_time", "value"]
    assert frame[["tag", "step", "value"]].to_numpy().tolist() == [
        ["train/loss", 0, 2.0],
        ["val/loss", 0, 3.0],
        ["val/loss", 1, 1.0],
    ]
    assert list(trainlab.scalars(make(tmp_path, "news/silent")).columns) == list(frame.columns)


def test_importing_the_package_loads_neither_torch_nor_pandas():
    code = "import sys, trainlab.runs, trainlab.cli.runs; print({'torch', 'pandas'} & set(sys.modules))"
    source = str(Path(listing.__file__).parents[2])
    answer = subprocess.check_output(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": source}, text=True
    )
    assert answer == "set()\n"


def test_listing_reads_no_more_than_it_needs(tmp_path, monkeypatch):
    folder = make(tmp_path, "news/a", last=points(val_loss=2.0))
    foreign(folder, val_loss=[1.0])
    monkeypatch.setattr(listing.events, "read", lambda _: pytest.fail("a finished run's record says it all"))
    assert statuses(tmp_path) == {"news/a": "finished"}


def test_find_knows_names_parts_paths_and_last(tmp_path):
    a = make(tmp_path, "news/20261120-153012-margin5", minutes_ago=5)
    b = make(tmp_path, "news/20261120-153012-margin50", minutes_ago=1)
    assert trainlab.find("20261120-153012-margin5", tmp_path) == a, (
        "a whole name goes before a part of another"
    )
    assert trainlab.find("news/20261120-153012-margin50", tmp_path) == b
    assert trainlab.find("50", tmp_path) == b
    assert trainlab.find(a, tmp_path) == a
    assert trainlab.find(str(a)) == a
    assert trainlab.find("last", tmp_path) == b


def test_the_last_run_is_found_without_its_event_files(tmp_path, monkeypatch):
    make(tmp_path, "news/old", minutes_ago=5)
    theirs = tmp_path / "theirs"
    foreign(theirs, loss=[1.0])
    (tmp_path / "news" / "broken").mkdir()
    (tmp_path / "news" / "broken" / "run.json").write_text("{")
    make(tmp_path, "news/ahead", minutes_ago=-3 * 24 * 60)  # by a clock that was wrong
    monkeypatch.setattr(events, "_opened", lambda _: pytest.fail("an event file was opened"))
    assert trainlab.find("last", tmp_path) == theirs
    assert trainlab.find("last", tmp_path, "news").name == "old"
    for path in theirs.iterdir():
        path.rename(path.with_name(f"events.out.tfevents.{1_700_000_000}.theirs"))
    assert trainlab.find("last", tmp_path).name == "old"


def test_the_way_in_is_three_functions_of_the_package(tmp_path):
    folder = make(tmp_path, "news/a", last=points(val_loss=2.0))
    foreign(folder, val_loss=[3.0, 2.0])
    assert trainlab.table(tmp_path)["last.val/loss"].tolist() == [2.0]
    assert trainlab.scalars(trainlab.find("a", tmp_path))["value"].tolist() == [3.0, 2.0]


def test_find_says_which_runs_a_part_may_mean(tmp_path):
    make(tmp_path, "news/margin5")
    make(tmp_path, "news/margin10")
    with pytest.raises(UserError, match=r"'margin' means 2 runs: news/margin5, news/margin10"):
        trainlab.find("margin", tmp_path)
    with pytest.raises(UserError, match=r"No run 'marg1n5'.*Did you mean 'margin5'\?"):
        trainlab.find("marg1n5", tmp_path)
    with pytest.raises(UserError, match="There: none"):
        trainlab.find("x", _empty(tmp_path))
    with pytest.raises(UserError, match="Start one"):
        trainlab.find("last", _empty(tmp_path))


def _empty(tmp_path):
    (tmp_path / "nothing").mkdir(exist_ok=True)
    return tmp_path / "nothing"


def test_a_record_that_was_written_is_read_as_it_was(tmp_path):
    folder = make(tmp_path, "news/a", config={"margin": 5.0}, last=points(val_loss=2.0))
    first = record.read(folder)
    assert record.update(folder, owner="x").model_extra == {"owner": "x"}
    assert record.read(folder).model_dump(exclude={"owner"}) == first.model_dump()


def test_the_best_of_a_metric_whose_direction_nobody_said_is_not_claimed(tmp_path):
    foreign(tmp_path / "theirs", val_score=[3.0, 1.0, 2.0], val_wer=[0.9, 0.2, 0.5])
    (row,) = listing.rows(tmp_path)
    assert (row.last["val/score"], row.best) == (2.0, {"val/wer": pytest.approx(0.2)})
    assert row.best_steps == {"val/wer": 1}
    for way, value, step in (("min", 1.0, 1), ("max", 3.0, 0)):
        (row,) = listing.rows(tmp_path, directions={"val/score": way})
        assert (row.best["val/score"], row.best_steps["val/score"]) == (value, step)


def test_the_direction_that_a_run_has_said_is_read_again(tmp_path):
    with Run("ours", metrics={"val/score": "min"}, logs=tmp_path, monitor=False) as run:
        for step, value in enumerate([3.0, 1.0, 2.0]):
            run.log({"val/score": value}, step)
        run.update()
        (row,) = listing.rows(tmp_path)
        assert (row.status, row.best["val/score"]) == ("running", 1.0)
    (row,) = listing.rows(tmp_path)
    assert (row.status, row.best, row.best_steps) == ("finished", {"val/score": 1.0}, {"val/score": 1})
    assert record.read(run.folder).directions == {"val/score": "min"}
    (row,) = listing.rows(tmp_path, directions={"val/score": "max"})
    assert row.best == {"val/score": 3.0}


def older(logs, label, best, last):
    """Make a run recorded before directions were."""
    make(logs, label, best=points(**best), last=points(**last))
    path = logs / label / "run.json"
    content = json.loads(path.read_text())
    del content["directions"]
    path.write_text(json.dumps(content))


def test_older_records_say_their_best_unless_it_was_guessed_wrongly(tmp_path):
    best = {"val_loss": 1.0, "val_wer": 0.9, "val_score": 5.0}  # wer was taken as rising
    older(tmp_path, "news/a", best, {"val_loss": 2.0, "val_wer": 0.2, "val_score": 4.0})
    (row,) = listing.rows(tmp_path)
    assert (row.status, row.last["val/wer"], row.best) == ("finished", 0.2, {"val/loss": 1.0})
    foreign(tmp_path / "news" / "a", val_loss=[1.0, 2.0], val_wer=[0.9, 0.1, 0.2], val_score=[5.0, 4.0])
    (row,) = listing.rows(tmp_path)
    assert row.best == {"val/loss": 1.0, "val/wer": pytest.approx(0.1)}, "from the event files"


def test_a_direction_that_is_none_makes_that_record_unreadable_and_no_other(tmp_path):
    make(tmp_path, "news/a")
    make(tmp_path, "news/b")
    path = tmp_path / "news" / "b" / "run.json"
    path.write_text(path.read_text().replace('"directions": {}', '"directions": {"val/loss": "up"}'))
    assert statuses(tmp_path) == {"news/a": "finished", "news/b": UNREADABLE}


@pytest.mark.parametrize("wall_time", [1e300, math.nan, -1e18, 1.7e12, 0.0])
def test_an_impossible_time_hides_neither_values_nor_other_times(tmp_path, wall_time):
    make(tmp_path, "news/good")
    with SummaryWriter(str(tmp_path / "foreign")) as writer:
        writer.add_scalar("val/loss", 0.5, 1, walltime=wall_time)
    path = next((tmp_path / "foreign").iterdir())
    (whole,) = [row for row in listing.rows(tmp_path) if row.run == "foreign"]
    assert (whole.status, whole.best, whole.seconds) == (listing.UNKNOWN, {"val/loss": 0.5}, None)
    assert whole.started is not None, "the first record's time is possible"
    content = path.read_bytes()
    (first,) = struct.unpack("<Q", content[:8])
    path.write_bytes(content[16 + first :])
    (row,) = [row for row in listing.rows(tmp_path) if row.run == "foreign"]
    assert (row.status, row.reason, row.best) == (listing.UNKNOWN, None, {"val/loss": 0.5})
    assert (row.started, row.seconds) == (None, None)
    assert listing.rows(tmp_path)[0].status == "finished"


def test_names_of_any_bytes_are_listed(tmp_path):
    (tmp_path / os.fsdecode(b"news/\xff\x1b[31m")).mkdir(parents=True)
    make(tmp_path, os.fsdecode(b"news/\xff\x1b[31m/a"))
    for words in (["table"], ["csv"], ["json"], ["markdown"]):
        done = CliRunner().invoke(app, ["--logs", str(tmp_path), "--format", *words], catch_exceptions=False)
        assert done.exit_code == 0
        assert words == ["csv"] or "\x1b" not in done.stdout


def test_before_the_first_run_it_is_said_that_there_is_none_yet(tmp_path):
    with pytest.raises(UserError, match="is not there yet: the first run makes it"):
        listing.rows(tmp_path / "logs")
