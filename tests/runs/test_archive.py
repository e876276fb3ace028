"""Runs in one file: packed and brought back as they were, on disks that fill up, among processes that end."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import zipfile

import pytest

from archives import ours_and_theirs, refused
from full_disk import largest_file
from runs_folder import call, content, make
from trainlab import files
from trainlab.cli import life
from trainlab.errors import UserError
from trainlab.run import lock, remarks, resuming
from trainlab.runs import archive, listing, trash

SMALL_DISK = 2 << 20  # bytes


@pytest.fixture
def logs(tmp_path):
    return ours_and_theirs(tmp_path / "logs")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "runs.zip"


@pytest.mark.parametrize("runs", [["news/a"], ["keras/deep/train"], ["a", "train"]])
def test_runs_ours_and_foreign_come_back_from_one_file_as_they_were(logs, file, runs):
    remarks.tag(logs / "keras" / "deep" / "train", ["v2"])
    before = content(logs)
    rows = {row.label: row for row in listing.rows(logs)}
    call(logs, "archive", *runs, "-o", file)
    assert content(logs) == before, "the runs stay"
    call(logs, "delete", "--purge", "--yes", *runs)
    call(logs, "restore", file)
    assert content(logs) == before
    assert {row.label: row for row in listing.rows(logs)} == rows


def test_an_archive_is_brought_to_another_machine(logs, file, tmp_path):
    call(logs, "archive", "a", "train", "-o", file)
    other = tmp_path / "other" / "logs"
    archive.unpack(file, other)
    assert content(other) == content(logs)


def test_the_same_runs_give_the_same_bytes_without_what_a_process_at_work_needs(logs, file):
    call(logs, "archive", "a", "train", "-o", file)
    first = file.read_bytes()
    with zipfile.ZipFile(file) as packed:
        names = packed.namelist()
        said = json.loads(packed.read(archive.MANIFEST))["runs"]
    assert sorted(said) == ["keras/deep/train", "news/a"]
    assert "runs/news/a/checkpoints/last.ckpt" in names
    file.unlink()
    for name in archive.LEFT_OUT:
        (logs / "news" / "a" / name).touch()
    lock.keep_reserve(logs / "news" / "a")
    os.utime(logs / "news" / "a" / "run.json", (0, 0))
    call(logs, "archive", "train", "a", "train", "-o", file)
    assert file.read_bytes() == first


def test_an_existing_file_is_not_overwritten(logs, file):
    file.write_text("precious")
    with pytest.raises(UserError, match="exists"):
        call(logs, "archive", "a", "-o", file)
    assert file.read_text() == "precious"


def test_a_file_inside_its_own_run_is_refused(logs):
    with pytest.raises(UserError, match="would lie in the run"):
        call(logs, "archive", "a", "-o", logs / "news" / "a" / "x.zip")


def test_a_run_that_is_at_work_and_an_unknown_one_are_refused(logs, file):
    held = lock.hold(logs / "news" / "a")
    with pytest.raises(UserError, match="still running"):
        call(logs, "archive", "train", "a", "-o", file)
    held.release()
    with pytest.raises(UserError, match=r"Did you mean 'train'\?"):
        call(logs, "archive", "a", "trian", "-o", file)
    assert not file.exists()


@pytest.mark.parametrize("kind", ["link", "folder link", "pipe", "backslash"])
def test_what_a_file_cannot_hold_is_named_rather_than_lost(logs, file, kind):
    folder = logs / "news" / "a"
    if kind == "pipe":
        os.mkfifo(folder / "odd")
    elif kind == "backslash":
        (folder / "o\\dd").touch()
    else:
        (folder / "odd").symlink_to(folder / ("run.json" if kind == "link" else "checkpoints"))
    with pytest.raises(UserError, match=r"Move it away|Rename it"):
        call(logs, "archive", "a", "-o", file)
    assert not file.exists()


def test_a_run_is_not_restored_over_another_and_neither_are_its_companions(logs, file):
    call(logs, "archive", "a", "train", "-o", file)
    call(logs, "delete", "--purge", "--yes", "train")
    refused(file, logs, "news/a is there already")


def test_a_damaged_archive_is_refused_or_harmless_whichever_byte_it_is(logs, file, tmp_path):
    call(logs, "archive", "train", "-o", file)
    whole, expected = file.read_bytes(), content(logs / "keras")
    other = tmp_path / "other"
    for place in range(0, len(whole), 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            archive.unpack(file, other)
        except UserError:
            assert content(other) == {}
        else:
            assert content(other / "keras") == expected  # a byte that says nothing, of a date say
            shutil.rmtree(other)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_truncated_archive_is_refused(logs, file, part):
    call(logs, "archive", "a", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(part * len(whole))])
    refused(file, logs, "is damaged")


def test_too_little_room_is_told_before_anything_is_written(logs, file, monkeypatch):
    call(logs, "archive", "a", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5}))
    with pytest.raises(UserError, match="bytes are needed, 5 are free"):
        call(logs, "archive", "train", "-o", file.with_name("other.zip"))
    assert not file.with_name("other.zip").exists()
    refused(file, logs, "bytes are needed, 5 are free")


def test_a_disk_that_fills_up_meanwhile_is_told_and_nothing_half_done_stays(logs, file):
    (logs / "news" / "a" / "noise").write_bytes(os.urandom(200_000))
    before = content(logs.parent)
    with largest_file(100_000), pytest.raises(UserError, match="can't be written: File too large"):
        call(logs, "archive", "a", "-o", file)
    assert content(logs.parent) == before
    call(logs, "archive", "a", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a")
    with largest_file(100_000):
        refused(file, logs, "can't be written: File too large")


def test_a_small_disk_that_is_really_full_is_told_and_nothing_stays(logs, file, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        (logs / "news" / "a" / "noise").write_bytes(os.urandom(2 * SMALL_DISK))
        with pytest.raises(UserError, match="bytes are needed"):
            call(logs, "archive", "a", "-o", place / "runs.zip")
        call(logs, "archive", "a", "-o", file)
        with pytest.raises(UserError, match="bytes are needed"):
            archive.unpack(file, place / "logs")
        assert content(place) == {}
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_what_an_unpacking_that_was_killed_has_left_is_seen_nowhere_and_goes_with_the_trash(logs, file):
    call(logs, "archive", "a", "train", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a", "train")
    process = multiprocessing.get_context("fork").Process(target=die_unpacked, args=(file, logs))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert listing.rows(logs) == []
    left = list(content(logs))
    assert any("run.json" in name for name in left)
    assert not any("tfevents" in name for name in left), "TensorBoard would show them"
    assert call(logs, "delete", "--purge") == "The trash is empty.\n"
    assert content(logs) == {}


def die_unpacked(file, logs):
    trash.new_entry = lambda *_: os._exit(9)
    archive.unpack(file, logs)


def test_a_run_that_appears_meanwhile_is_kept_and_nothing_else_changes(logs, file):
    call(logs, "archive", "a", "train", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a", "train")
    with pytest.raises(UserError, match="news/a is there already"):
        archive.unpack(file, logs, lambda _: make(logs, "news/a", seed=7))
    assert [(row.label, row.record.seed) for row in listing.rows(logs)] == [("news/a", 7)]
    assert not list((logs / trash.FOLDER).iterdir())


def test_of_a_large_archive_of_weights_the_size_is_asked_about_too(logs, file, monkeypatch):
    call(logs, "archive", "a", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a")
    monkeypatch.setattr(life, "LARGE", 10_000)
    refused(file, logs, "Nobody is here to ask: add --yes")
    call(logs, "restore", "--yes", file)


def linked(logs):
    """Give the run a second and a third name for its checkpoint, as a training does, and return that."""
    place = logs / "news" / "a" / "checkpoints"
    state = place / "step-00000003.ckpt"
    (place / "last.ckpt").rename(state)
    os.link(state, place / "last.ckpt")
    (place / "best.ckpt").write_bytes(os.urandom(5000))
    return state


@pytest.mark.parametrize("links", [True, False], ids=["links", "a disk without links"])
def test_a_file_of_several_names_is_packed_once_and_has_them_again(logs, file, monkeypatch, links):
    state = linked(logs)
    state.write_bytes(os.urandom(500_000))
    before = content(logs)
    call(logs, "archive", "a", "-o", file)
    assert file.stat().st_size < 600_000
    call(logs, "delete", "--purge", "--yes", "a")
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    call(logs, "restore", file)
    assert content(logs) == before
    assert state.samefile(state.with_name("last.ckpt")) == links


def test_weights_alone_are_packed_without_the_states_and_say_so(logs, file):
    linked(logs)
    call(logs, "archive", "--weights-only", "a", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a")
    call(logs, "restore", file)
    folder = logs / "news" / "a"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "best.ckpt",
        "weights-only.txt",
    ]
    with pytest.raises(UserError, match="can't be resumed"):
        resuming.starting_point(folder)


def test_a_run_without_best_weights_is_not_packed_without_its_states(logs, file):
    with pytest.raises(UserError, match="no best weights"):
        call(logs, "archive", "--weights-only", "a", "-o", file)
    assert not file.exists()
