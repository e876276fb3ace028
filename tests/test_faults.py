"""Faults of processes and disks, injected: what a run and its checkpoints are worth afterwards.

Each line of the table of faults has its test here, or among its module's tests; those of containers are in
test_stack_faults.py.
"""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
import torch

from trainlab.errors import UserError
from trainlab.run import checkpoint, events, lock, record, resuming
from trainlab.run.run import Run
from trainlab.runs import listing

KILLS = 40
LONGEST_LIFE = 0.06  # seconds until a saving process is killed, in the midst of one of some ten saves
WEIGHTS = torch.arange(200_000.0)  # 800 kB, so that a save is mostly writing
KEEP = 2
DISK = 2 << 20  # bytes
DEADLINE = 60  # seconds for a script


def forked(work):
    """Call `work` over and over in a child process, and kill that at a random moment after the first time."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        while True:
            work()
            os.write(writing, b".")
    os.read(reading, 1)
    time.sleep(random.uniform(0, LONGEST_LIFE))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)


def test_a_checkpoint_survives_forty_kills_while_it_is_saved(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.save({"saved": 0, "weights": WEIGHTS}, path)
    saved = 0

    def save():
        nonlocal saved
        saved += 1
        checkpoint.save({"saved": saved, "weights": WEIGHTS}, path)

    found = []
    for _ in range(KILLS):
        forked(save)
        known = checkpoint.load(path)
        assert torch.equal(known["weights"], WEIGHTS)
        found.append(known["saved"])
        saved = found[-1]
    assert found == sorted(set(found)), "each is newer than the one before"


def test_a_training_s_checkpoints_survive_forty_kills_while_they_are_saved_named_and_pruned(tmp_path, capsys):
    folder = tmp_path / checkpoint.FOLDER
    step = 0

    def save():
        nonlocal step
        step += 1
        path = folder / f"{checkpoint.STEP}{step:08d}.ckpt"
        checkpoint.save({"global_step": step, "weights": WEIGHTS}, path)
        checkpoint.alias(path, checkpoint.LAST)
        for old in sorted(folder.glob(f"{checkpoint.STEP}*.ckpt"))[:-KEEP]:
            checkpoint.remove(old)

    save()
    steps = [step]
    for _ in range(KILLS):
        forked(save)
        newest = checkpoint.newest(tmp_path)
        known = checkpoint.load(newest)
        assert torch.equal(known["weights"], WEIGHTS)
        assert newest.stem == f"{checkpoint.STEP}{known['global_step']:08d}"
        assert known["global_step"] - checkpoint.load(folder / checkpoint.LAST)["global_step"] in (0, 1)
        steps.append(known["global_step"])
        step = steps[-1]
        resuming.sweep(tmp_path)
        assert not list(folder.glob(".*"))
    assert steps == sorted(set(steps)), "each is newer than the one before"
    assert capsys.readouterr().out == "", "nothing is damaged"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with little room."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def script(body, logs):
    """Run a plain script on a folder of runs; its error, if it has one, is on its standard error."""
    start = "import sys, torch, trainlab\nfrom pathlib import Path\nfrom trainlab.run import checkpoint\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{start}logs = Path(sys.argv[1])\n{textwrap.dedent(body)}", logs],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    (row,) = listing.rows(logs)
    return done, row


FILL = """
def fill():
    with (logs / "other").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
"""


def assert_one_error(done, row, folder):
    assert done.returncode == 1
    assert done.stderr.startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("No space left on device") == 1
    assert "arning" not in done.stderr
    assert (row.status, record.read(folder).status) == ("failed", "failed")
    assert "No space left on device" in row.reason
    assert [path.name for path in folder.rglob(".*") if path.name != lock.RUN] == []


def test_a_full_disk_while_a_checkpoint_is_saved_is_one_error_and_the_old_one_loads(small_disk):
    done, row = script(
        f"""
        with trainlab.Run("news", logs=logs) as run:
            run.log({{"train/loss": 1.0}}, 1)
            path, second = (run.checkpoints / f"step-0000000{{step}}.ckpt" for step in (1, 2))
            checkpoint.save({{"step": 1, "weights": torch.ones(1000)}}, path)
            checkpoint.alias(path, "last.ckpt")
            checkpoint.save({{"step": 2, "weights": torch.ones({DISK} // 4)}}, second)
        """,
        small_disk,
    )
    assert "step-00000002.ckpt can't be written" in done.stderr
    assert_one_error(done, row, row.folder)
    assert sorted(path.name for path in (row.folder / "checkpoints").glob("*.ckpt")) == [
        "last.ckpt",
        "step-00000001.ckpt",
    ]
    assert checkpoint.load(checkpoint.newest(row.folder))["step"] == 1


def test_a_full_disk_while_events_are_written_is_one_error_and_the_run_goes_on_when_there_is_room(small_disk):
    done, row = script(
        FILL
        + textwrap.dedent("""
        with trainlab.Run("news", {"margin": 3}, logs=logs) as run:
            checkpoint.save({"step": 10}, run.checkpoints / "step-00000010.ckpt")
            for step in range(100_000):
                run.log({"train/loss": 1.0 / (step + 1)}, step)
                if step == 10:
                    fill()
        """),
        small_disk,
    )
    assert_one_error(done, row, row.folder)
    assert row.last["train/loss"] < 0.1
    (small_disk / "other").unlink()
    with Run("news", {"margin": 3}, resume=row.folder) as run:
        assert checkpoint.load(run.checkpoint)["step"] == 10
        run.rewind(10)
        run.log({"train/loss": 0.05}, 10)
    assert events.read(row.folder).curves["train/loss"].steps == list(range(11))
    assert record.read(row.folder).status == "finished"


@pytest.fixture
def anybody_s():
    """A folder that any user may look into and write to, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        yield Path(place)


GOING_ON = """
def go_on():
    for step in range(1, 2000):
        run.log({"train/loss": 1.0}, step)
        time.sleep(0.01)
"""
MOVED = 'run.folder.parent.rename(logs / "elsewhere")'
REPLACED = MOVED + '\n(logs / "news").write_text("a file")'
DELETED = "shutil.rmtree(run.folder.parent)"
FORBIDDEN = """
    for path in (run.folder, *run.folder.iterdir()):
        os.chown(path, 65534, 65534)
    os.setuid(65534)  # root may write everywhere
    run.folder.chmod(0o555)
"""


def mishap(what, then, logs):
    """Run a script whose folder something happens to; `then` is what it does afterwards."""
    what = textwrap.indent(textwrap.dedent(what).strip(), "    ")
    start = "import os, shutil, sys, time, trainlab\nfrom pathlib import Path\nlogs = Path(sys.argv[1])\n"
    run = "with trainlab.Run('news', {'margin': 3}, logs=logs) as run:\n    run.log({'train/loss': 2.0}, 0)"
    return subprocess.run(
        [sys.executable, "-c", f"{start}{GOING_ON}\n{run}\n{what}\n    {then}", logs],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.parametrize(
    ("what", "then", "told"),
    [
        (MOVED, "go_on()", "is no longer there: it was moved"),
        (REPLACED, "go_on()", "is no longer there: it was moved"),
        (DELETED, "pass", "is no longer there: it was moved"),
        (FORBIDDEN, "go_on()", "Permission denied"),
        (FORBIDDEN, "pass", "Permission denied"),
    ],
)
def test_a_folder_that_is_lost_or_closed_ends_its_run_with_one_sentence(anybody_s, what, then, told):
    if what == FORBIDDEN and os.getuid() != 0:
        pytest.skip("only root can become another user")
    done = mishap(what, then, anybody_s)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert "/news/" in done.stderr
    assert told in done.stderr


def test_a_moved_run_can_be_put_back_and_gone_on_with(tmp_path):
    mishap(MOVED, "go_on()", tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / "news")
    (row,) = listing.rows(tmp_path)
    assert row.status == "interrupted"
    with Run("news", {"margin": 3}, resume="last", logs=tmp_path, monitor=False) as run:
        run.log({"train/loss": 1.0}, 0)
    assert record.read(run.folder).status == "finished"


def run_with_checkpoints(logs, steps=(10, 20)):
    with Run("news", {"margin": 3}, logs=logs, monitor=False) as run:
        for step in range(max(steps) + 5):
            run.log({"train/loss": 1.0}, step)
        for step in steps:
            path = run.checkpoints / f"step-{step:08d}.ckpt"
            checkpoint.save({"global_step": step, "weights": WEIGHTS[:1000]}, path)
            checkpoint.alias(path, checkpoint.LAST)
    return run.folder


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with path.open("r+b") as file:  # in place: `last.ckpt` is the same file
        file.write(content)


@pytest.mark.parametrize("damage", [truncate, empty, flip])
def test_of_a_damaged_checkpoint_a_warning_tells_and_the_one_before_is_used(tmp_path, capsys, damage):
    folder = run_with_checkpoints(tmp_path)
    newest = folder / "checkpoints" / "step-00000020.ckpt"
    damage(newest)
    with Run("news", {"margin": 3}, resume=folder) as run:
        assert run.checkpoint.name == "step-00000010.ckpt"
        run.rewind(checkpoint.load(run.checkpoint)["global_step"], run.checkpoint)
    assert f"warning: {newest} is damaged" in capsys.readouterr().out
    assert record.read(folder).last["train/loss"].step == 9
    before = record.read(folder)
    with pytest.raises(UserError, match=f"{newest.name} is damaged"):
        Run("news", {"margin": 3}, resume=newest)
    assert record.read(folder) == before
    assert not lock.alive(folder)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_with_their_names(tmp_path):
    folder = run_with_checkpoints(tmp_path)
    for path in (folder / "checkpoints").glob("step-*.ckpt"):
        empty(path)
    with pytest.raises(UserError, match=r"step-00000020\.ckpt, step-00000010\.ckpt in .* are damaged"):
        Run("news", {"margin": 3}, resume=folder)
    assert record.read(folder).status == "finished"


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("pwned"),)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_hostile_checkpoint_is_refused_and_nothing_of_it_is_executed(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    folder = run_with_checkpoints(tmp_path)
    path = folder / "checkpoints" / "step-00000030.ckpt"
    state = {"state_dict": Hostile(), "global_step": 30}
    torch.save(state, path) if form == "torch" else path.write_bytes(pickle.dumps(state))
    subprocess.run(f"sha256sum {path.name} > {path.name}.sha256", shell=True, cwd=path.parent, check=True)
    with Run("news", {"margin": 3}, resume=folder) as run, pytest.raises(checkpoint.CheckpointError):
        checkpoint.load(run.checkpoint)
    assert not (tmp_path / "pwned").exists()


def test_a_checkpoint_of_another_configuration_is_refused_with_both_values(tmp_path):
    folder = run_with_checkpoints(tmp_path)
    for reference in (folder, folder / "checkpoints" / "step-00000010.ckpt"):
        with pytest.raises(UserError, match=r"margin: the run has 3, given is 5\."):
            Run("news", {"margin": 5}, resume=reference)


def tear(path):
    os.truncate(path, path.stat().st_size - 5)


def litter(path):
    path.write_bytes(b"this is no event file at all")


@pytest.mark.parametrize(("damage", "steps"), [(tear, 9), (litter, 0), (empty, 0)])
def test_a_damaged_event_file_hides_nothing_else_and_a_resume_opens_a_new_one(tmp_path, damage, steps):
    with Run("news", logs=tmp_path, monitor=False) as run:
        for step in range(10):
            run.log({"train/loss": 1.0}, step)
    record.update(run.folder, status="running", last={}, best={})  # as a kill leaves it
    shutil.copytree(run.folder, run.folder.with_name("other"))
    (old,) = events.files(run.folder)
    damage(old)
    rows = {row.run: row for row in listing.rows(tmp_path)}
    assert [row.status for row in rows.values()] == ["interrupted", "interrupted"]
    assert rows["other"].last == {"train/loss": 1.0}
    assert rows[run.name].last == ({"train/loss": 1.0} if steps else {})
    assert (str(old) in rows[run.name].reason) == (damage is litter)
    content = old.read_bytes()
    with Run("news", resume=run.folder, monitor=False) as again:
        again.rewind(8)
        again.log({"train/loss": 2.0}, 8)
    assert old.read_bytes() == content
    assert len(events.files(run.folder)) == 2
    row = listing.read(run.folder, tmp_path)
    assert (row.status, row.last["train/loss"]) == ("finished", 2.0)
    assert events.read(run.folder).curves["train/loss"].steps == [*range(min(8, steps)), 8]


def test_a_copied_or_renamed_run_is_listed_by_its_folder_and_only_the_original_is_running(tmp_path):
    with Run("news", logs=tmp_path, monitor=False) as run:
        run.log({"train/loss": 1.0}, 1)
        copy = shutil.copytree(run.folder, tmp_path / "kept" / "copy")
        rows = {row.label: row for row in listing.rows(tmp_path)}
        assert {label: row.status for label, row in rows.items()} == {
            f"news/{run.name}": "running",
            "kept/copy": "interrupted",
        }
        assert rows["kept/copy"].last == {"train/loss": 1.0}
        assert rows["kept/copy"].seconds < DEADLINE
    renamed = run.folder.rename(tmp_path / "kept" / "renamed")
    assert sorted((row.label, row.status) for row in listing.rows(tmp_path)) == [
        ("kept/copy", "interrupted"),
        ("kept/renamed", "finished"),
    ]
    for folder in (copy, renamed):
        with Run("kept", resume=folder.name, logs=tmp_path, monitor=False) as again:
            assert again.folder == folder
    assert {row.status for row in listing.rows(tmp_path)} == {"finished"}


def test_a_clock_that_is_set_back_while_a_run_works_leaves_the_table_right(tmp_path, monkeypatch):
    yesterday = time.time() - 86_400
    with Run("news", logs=tmp_path, monitor=False) as run:
        run.log({"train/loss": 2.0}, 1)
        monkeypatch.setattr(time, "time", lambda: yesterday)
        run.log({"train/loss": 1.0}, 2)
        assert listing.rows(tmp_path)[0].seconds >= 0
    record.update(run.folder, status="running", seconds=None)
    (row,) = listing.rows(tmp_path)
    assert (row.status, row.last, row.seconds) == ("interrupted", {"train/loss": 1.0}, 0.0)
    (foreign,) = (tmp_path / "news").iterdir()
    (foreign / "run.json").unlink()
    (row,) = listing.rows(tmp_path)
    assert (row.last, row.seconds) == ({"train/loss": 1.0}, 0.0)
