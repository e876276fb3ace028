"""`trainlab update`: the stack's files of a lab that was made by an older version."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING

import pytest

from trainlab.cli import lab as cli
from trainlab.errors import UserError
from trainlab.lab import create, update

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SRC = "src"  # of a lab

VERB = "stack/verb"


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    return create.new(tmp_path / "lab").folder


def made_by_older(lab: Path, **older: str | None) -> None:
    """Make it a lab of version 0.1.0, whose stack had these texts; None: the file was not there."""
    changed = {name.replace("__", "/"): text for name, text in older.items()}
    (new,) = lab.glob("jupyter/wheels/trainlab-*.whl")
    with (
        zipfile.ZipFile(new) as source,
        zipfile.ZipFile(new.with_name("trainlab-0.1.0-py3-none-any.whl"), "w") as old,
    ):
        for entry in source.infolist():
            name = entry.filename.removeprefix("trainlab/lab/files/")
            if name not in changed:
                old.writestr(entry, source.read(entry))
        for name, text in changed.items():
            if text is not None:
                old.writestr(f"trainlab/lab/files/{name}", text)
                (lab / name).write_text(text)
            else:
                (lab / name).unlink()
    new.unlink()


def test_a_lab_of_this_version_is_up_to_date(lab: Path) -> None:
    assert update.plan(lab).nothing


def test_what_the_user_left_alone_becomes_the_new_version(lab: Path) -> None:
    new = (lab / VERB).read_text()
    made_by_older(lab, stack__verb="#!/bin/sh\necho old\n", stack__gone="old\n")
    planned = update.plan(lab)
    assert "-echo old" in planned.diff() and "+++ /dev/null" in planned.diff()
    assert (lab / VERB).read_text() == "#!/bin/sh\necho old\n", "planning writes nothing"
    planned.apply()
    assert (lab / VERB).read_text() == new and os.access(lab / VERB, os.X_OK)
    assert not (lab / "stack/gone").exists()
    assert [path.name for path in lab.glob("jupyter/wheels/*.whl")] == [planned.wheel[0]]
    assert update.plan(lab).nothing


def test_changes_of_both_are_merged(lab: Path) -> None:
    lines = (lab / VERB).read_text().splitlines(keepends=True)
    older = [*lines[:1], "# an old comment\n", *lines[3:]]
    made_by_older(lab, stack__verb="".join(older))
    (lab / VERB).write_text("".join(older) + "# mine\n")
    planned = update.plan(lab)
    planned.apply()
    assert (lab / VERB).read_text() == "".join(lines) + "# mine\n"
    assert not planned.kept


def test_changes_that_meet_are_left_to_the_user(lab: Path) -> None:
    new = (lab / "Makefile").read_bytes()
    made_by_older(lab, Makefile="old:\n")
    (lab / "Makefile").write_text("mine:\n")
    planned = update.plan(lab)
    planned.apply()
    assert (lab / "Makefile").read_text() == "mine:\n"
    assert (lab / "Makefile.new").read_bytes() == new
    assert "same lines" in planned.kept["Makefile"]


def test_what_the_user_deleted_stays_deleted_and_what_is_theirs_is_never_touched(lab: Path) -> None:
    made_by_older(lab, stack__verb="old\n")
    (lab / VERB).unlink()
    (lab / f"{SRC}/lab/train.py").write_text("mine\n")
    planned = update.plan(lab)
    planned.apply()
    assert not (lab / VERB).exists() and planned.kept[VERB] == "you deleted it"
    assert (lab / f"{SRC}/lab/train.py").read_text() == "mine\n"


def test_a_newer_lab_and_a_folder_that_is_none_are_refused(lab: Path, tmp_path: Path) -> None:
    (wheel,) = lab.glob("jupyter/wheels/trainlab-*.whl")
    wheel.rename(wheel.with_name("trainlab-99.0-py3-none-any.whl"))
    with pytest.raises(UserError, match=r"This lab has trainlab 99\.0"):
        update.plan(lab)
    with pytest.raises(UserError, match="is no lab"):
        update.plan(tmp_path)


def test_nothing_is_written_through_a_link_nor_over_a_folder(lab: Path, tmp_path: Path) -> None:
    made_by_older(
        lab, Makefile="old:\n", stack__verb="old\n", local__install="old\n", tensorboard__health="old\n"
    )
    outside = tmp_path / "outside"
    outside.mkdir()
    (lab / "Makefile").rename(outside / "Makefile")
    (lab / "Makefile").symlink_to(outside / "Makefile")
    (lab / "stack").rename(outside / "stack")
    (lab / "stack").symlink_to(outside / "stack")
    (lab / "local/install").unlink()
    (lab / "local/install").mkdir()
    planned = update.plan(lab)
    planned.apply()
    assert (outside / "Makefile").read_text() == "old:\n" and (outside / VERB).read_text() == "old\n"
    assert (lab / "Makefile").is_symlink() and (lab / "local/install").is_dir()
    assert set(planned.kept) == {"Makefile", VERB, "local/install"}
    assert (lab / "tensorboard/health").read_text() != "old\n", "the others are written all the same"


def test_a_file_where_a_new_folder_belongs_is_left_alone(lab: Path) -> None:
    made_by_older(lab, **{f"tensorboard__{each.name}": None for each in lab.glob("tensorboard/[!.]*")})
    assert not any(lab.glob("tensorboard/*"))
    (lab / "tensorboard").rmdir()
    (lab / "tensorboard").write_text("mine")
    planned = update.plan(lab)
    planned.apply()
    assert (lab / "tensorboard").read_text() == "mine"
    assert "no folder" in planned.kept["tensorboard/health"]


def test_what_an_earlier_update_left_to_merge_is_not_overwritten(lab: Path) -> None:
    made_by_older(lab, Makefile="old:\n")
    (lab / "Makefile").write_text("mine:\n")
    (lab / "Makefile.new").write_text("half merged:\n")
    with pytest.raises(UserError, match=r"Makefile\.new is there already"):
        update.plan(lab)
    assert (lab / "Makefile.new").read_text() == "half merged:\n"


def test_what_was_changed_after_it_was_shown_is_not_overwritten(lab: Path) -> None:
    made_by_older(lab, Makefile="old:\n", stack__verb="old\n")
    planned = update.plan(lab)
    (lab / VERB).write_text("mine\n")
    with pytest.raises(UserError, match="Changed since it was shown: stack/verb"):
        planned.apply()
    assert (lab / VERB).read_text() == "mine\n" and (lab / "Makefile").read_text() == "old:\n"


def test_an_update_that_was_broken_off_can_be_done_again(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for steps in range(4):
        made_by_older(lab, Makefile="old:\n", stack__verb="old\n")
        planned = update.plan(lab)
        left = iter(range(steps))

        def full(path: Path, body: bytes, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise OSError(28, "No space left on device")
            path.write_bytes(body)

        with monkeypatch.context() as patched:
            patched.setattr(update.files, "write", full)
            if steps == 3:  # all is written, and the old wheel still there
                patched.setattr(type(lab), "unlink", lambda path, missing_ok=False: full(path, b""))
            with pytest.raises(UserError, match="No space left"):
                planned.apply()
        update.plan(lab).apply()
        assert update.plan(lab).nothing
        assert (lab / VERB).read_text() != "old\n"


def test_without_git_it_says_that_it_could_not_merge(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_by_older(lab, stack__verb="old\n")
    (lab / VERB).write_text("old\nmine\n")
    monkeypatch.setenv("PATH", "/nowhere")
    planned = update.plan(lab)
    assert "no git" in planned.kept[VERB]
    assert planned.write[f"{VERB}.new"]


def test_a_wheel_with_a_strange_name_is_said(lab: Path) -> None:
    (wheel,) = lab.glob("jupyter/wheels/trainlab-*.whl")
    wheel.rename(wheel.with_name("trainlab-newest.whl"))
    with pytest.raises(UserError, match="no name of a wheel"):
        update.plan(lab)


def test_no_escape_sequence_of_a_lab_from_elsewhere_reaches_the_terminal(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_by_older(lab, stack__verb="old \x1b[2J\n")
    monkeypatch.chdir(lab)
    cli.update(yes=True)
    said = capsys.readouterr().out
    assert "-old ?[2J" in said and "\x1b" not in said


def test_without_a_terminal_it_says_what_would_change_and_writes_nothing(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab)
    made_by_older(lab, stack__verb="old\n")
    with pytest.raises(UserError, match="Would change: 1 files, as above"):
        cli.update()
    assert (lab / VERB).read_text() == "old\n"
    cli.update(yes=True)
    made_by_older(lab)
    with pytest.raises(UserError, match=r"Would change: trainlab-.*whl, and no file of the stack\. .*--yes"):
        cli.update()


def test_lines_that_end_as_on_windows_are_no_change_and_stay_so(lab: Path) -> None:
    new = (lab / "Makefile").read_bytes()
    made_by_older(lab, Makefile="old:\n")
    (lab / "Makefile").write_bytes(b"old:\r\n")
    planned = update.plan(lab)
    planned.apply()
    assert (lab / "Makefile").read_bytes() == new.replace(b"\n", b"\r\n")
    assert not planned.kept
