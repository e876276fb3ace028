from __future__ import annotations

import multiprocessing
import os
import pty
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from runs_folder import call, content, foreign, make
from trainlab.errors import UserError
from trainlab.run import events, find, lock
from trainlab.runs import listing, trash
from trainlab.runs import trash as moving


@pytest.fixture
def logs(tmp_path):
    """Two runs of ours, and a foreign one with another inside."""
    for name in ("a", "b"):
        folder = foreign(make(tmp_path, f"news/{name}"))
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").write_bytes(name.encode() * 1000)
    foreign(tmp_path / "keras" / "train")
    foreign(tmp_path / "keras" / "train" / "inner")
    return tmp_path


def labels(logs):
    return {row.label for row in listing.rows(logs)}


def seen_by_tensorboard(logs):
    return sorted(parent for parent, _, names in os.walk(logs) if any("tfevents" in name for name in names))


@pytest.mark.parametrize(
    ("run", "left"),
    [("news/a", {"news/b", "keras/train", "keras/train/inner"}), ("train", {"news/a", "news/b"})],
)
def test_a_deleted_run_ours_or_foreign_is_gone_from_sight_and_comes_back_whole(logs, run, left):
    before = content(logs)
    call(logs, "delete", run)
    assert labels(logs) == left
    assert not [place for place in seen_by_tensorboard(logs) if trash.FOLDER in place]
    with pytest.raises(UserError, match="No run"):
        find.find("news/a" if run == "news/a" else "keras/train", logs)
    call(logs, "restore", run)
    assert content(logs) == before
    assert not list((logs / trash.FOLDER).iterdir())


def test_the_trash_lists_what_is_in_it_with_sizes(logs):
    assert call(logs, "trash") == ""
    (logs / "news" / "a" / "large").write_bytes(bytes(2_000_000))
    call(logs, "delete", "news/a")
    call(logs, "delete", "keras/train")
    lines = [line.split() for line in call(logs, "trash").splitlines()]
    assert [line[0] for line in lines] == ["keras/train", "news/a"]
    assert lines[1][1:3] == ["2.0", "MB"]


def test_a_run_inside_another_goes_with_it(logs):
    shown = call(logs, "delete", "keras/train/inner", "keras/train", "keras/train")
    assert shown.startswith("In the trash: keras/train, and 1 inside it.")
    assert list(trash.entries(logs)) == ["keras/train"]


def test_a_run_that_is_at_work_is_refused_and_no_other_is_deleted(logs):
    before = content(logs)
    for name in (lock.RUN, lock.RUNNER):
        held = lock.hold(logs / "news" / "a", name)
        for words in (["delete", "news/b", "news/a"], ["delete", "--purge", "--yes", "news/b", "news/a"]):
            with pytest.raises(UserError, match=r"a is still running: .* stop it"):
                call(logs, *words)
        held.release()
    (logs / "news" / "a" / lock.RUNNER).unlink()
    assert content(logs) == before


def test_a_run_at_work_inside_a_foreign_one_is_refused_too(logs):
    inner = make(logs, "keras/train/ours", status="running")
    held = lock.hold(inner)
    with pytest.raises(UserError, match="ours is still running"):
        call(logs, "delete", "keras/train")
    held.release()
    call(logs, "delete", "keras/train")


def test_an_unknown_or_ambiguous_run_is_an_error_that_names_others_and_nothing_is_deleted(logs):
    make(logs, "news/a2")
    for words in (["delete", "news/b", "news/a22"], ["delete", "--purge", "--yes", "news/b", "news/a22"]):
        with pytest.raises(UserError, match=r"Did you mean 'news/a2'\?"):
            call(logs, *words)
    with pytest.raises(UserError, match="means 3 runs"):
        call(logs, "delete", "news/")
    with pytest.raises(UserError, match="Which runs"):
        call(logs, "delete")
    assert len(labels(logs)) == 5
    call(logs, "delete", "news/a2")
    with pytest.raises(UserError, match=r"No run 'news/a3' in .*\.trash\. Did you mean 'news/a2'\?"):
        call(logs, "restore", "news/a3")


def test_a_run_does_not_come_back_over_another(logs):
    call(logs, "delete", "news/a")
    make(logs, "news/a", seed=7)
    before = content(logs)
    with pytest.raises(UserError, match="news/a is there already"):
        call(logs, "restore", "news/a")
    assert content(logs) == before


def test_what_was_deleted_twice_under_one_name_can_be_told_apart(logs):
    first = content(logs / "news" / "a")
    call(logs, "delete", "news/a")
    make(logs, "news/a", seed=7)
    call(logs, "delete", "news/a")
    with pytest.raises(UserError, match="means 2 runs: news/a@a-2, news/a@a"):
        call(logs, "restore", "news/a")
    call(logs, "restore", "news/a@a")
    assert content(logs / "news" / "a") == first


def test_a_purge_of_one_deleted_run_leaves_the_others(logs):
    call(logs, "delete", "news/a", "keras/train")
    call(logs, "delete", "--purge", "--yes", "train")
    assert list(trash.entries(logs)) == ["news/a"]
    call(logs, "delete", "--purge", "--yes")
    assert not list((logs / trash.FOLDER).iterdir())
    assert labels(logs) == {"news/b"}
    assert call(logs, "delete", "--purge") == "The trash is empty.\n"


def test_a_purge_ends_a_run_that_was_not_deleted_before(logs):
    call(logs, "delete", "--purge", "--yes", "news/a")
    assert labels(logs) == {"news/b", "keras/train", "keras/train/inner"}
    assert not (logs / trash.FOLDER).exists()


def test_a_purge_never_guesses_between_a_deleted_run_and_another(logs):
    call(logs, "delete", "news/a")
    make(logs, "news/a")
    with pytest.raises(UserError, match=r"means 2 runs: news/a, \.trash/news/a"):
        call(logs, "delete", "--purge", "--yes", "a")
    call(logs, "delete", "--purge", "--yes", ".trash/news/a")
    assert "news/a" in labels(logs)


def test_a_purge_asks_and_without_a_terminal_is_refused(logs):
    call(logs, "delete", "news/a")
    with pytest.raises(UserError, match="add --yes"):
        call(logs, "delete", "--purge")
    for answer, left in (("n", ["news/a"]), ("y", [])):
        code, shown = answered(["--logs", str(logs), "delete", "--purge"], answer)
        assert "news/a" in shown
        assert "Delete permanently?" in shown
        assert code == (answer == "n")
        assert list(trash.entries(logs)) == left


def answered(words, answer):
    """Run the command at a terminal, and answer its question."""
    ours, theirs = pty.openpty()
    command = Path(sys.executable).with_name("trainlab")
    with subprocess.Popen([command, "runs", *words], stdin=theirs, stdout=subprocess.PIPE) as process:
        os.close(theirs)
        os.write(ours, f"{answer}\n".encode())
        shown, _ = process.communicate(timeout=60)
        os.close(ours)
    return process.returncode, shown.decode()


def test_a_disk_that_refuses_leaves_the_run_as_it_was(logs, monkeypatch):
    before = content(logs)

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    with monkeypatch.context() as patched, pytest.raises(UserError, match="cross-device"):
        patched.setattr(trash.Path, "replace", refuse)
        trash.delete(logs / "news" / "a", logs)
    assert content(logs) == before
    entry = trash.delete(logs / "news" / "a", logs)
    with monkeypatch.context() as patched, pytest.raises(UserError, match="cross-device"):
        patched.setattr(trash.Path, "replace", refuse)
        trash.restore(entry)
    assert not (logs / "news" / "a").exists()
    trash.restore(entry)
    assert content(logs) == before


def die_half_way(folder, logs):
    hide = moving.hide_from_tensorboard
    moving.hide_from_tensorboard = lambda folder: (hide(folder), os._exit(9))
    trash.delete(folder, logs)


@pytest.mark.parametrize("words", [["restore", "keras/train"], ["delete", "--purge", "--yes"]])
def test_a_run_whose_deletion_died_half_way_comes_back(logs, words):
    before = content(logs)
    process = multiprocessing.get_context("fork").Process(
        target=die_half_way, args=(logs / "keras" / "train", logs)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    assert not events.files(logs / "keras" / "train")
    call(logs, *words)
    assert content(logs) == before


def test_links_other_folders_and_logs_itself_are_refused(logs, tmp_path_factory):
    elsewhere = make(tmp_path_factory.mktemp("other"), "news/a")
    (logs / "linked").symlink_to(logs / "news" / "a")
    foreign(logs)
    trash.delete(logs / "news" / "b", logs)
    for run, said in (
        (str(elsewhere), "Name the folder"),
        (str(logs / "linked"), "a link"),
        (str(logs), "itself"),
        (str(logs / trash.FOLDER / "b" / "run"), "not in the table"),
        (str(foreign(logs / ".exp" / "run1")), r"Rename \.exp without the dot"),
    ):
        with pytest.raises(UserError, match=said):
            call(logs, "delete", run)


def test_hidden_names_are_those_that_hiding_gives(tmp_path):
    folder = foreign(tmp_path / "a")
    (path,) = folder.iterdir()
    moving.hide_from_tensorboard(folder)
    assert [each.name for each in folder.iterdir()] == [moving.hidden(PurePosixPath(path.name)).name]
    moving.hide_from_tensorboard(folder, back=True)
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("label", ["../../out", "/tmp/out", "news/../../out", ".git/hooks", ""])
def test_an_entry_that_would_come_back_outside_of_logs_is_none(logs, label):
    entry = trash.delete(logs / "news" / "a", logs)
    about = entry.place / "trashed.json"
    about.write_text(about.read_text().replace("news/a", label))
    assert trash.entries(logs) == {}
    with pytest.raises(UserError, match="No run"):
        call(logs, "restore", "out")
    assert entry.folder.exists()
