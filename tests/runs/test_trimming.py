from __future__ import annotations

import os

import pytest
from typer.testing import CliRunner

from runs_folder import foreign, make
from trainlab.cli import life
from trainlab.cli.runs import app
from trainlab.errors import UserError
from trainlab.run import checkpoint, lock, resuming
from trainlab.runs import trash

NUMBERS = {"numbers": list(range(1000))}


@pytest.fixture
def folder(tmp_path):
    """A run that is over, with two states, a second name for the newer one, and its best weights."""
    folder = foreign(make(tmp_path / "logs", "news/a"))
    place = folder / checkpoint.FOLDER
    for step in (1, 2):
        checkpoint.save(NUMBERS | {"step": step}, place / f"{checkpoint.STEP}{step:08}.ckpt")
    checkpoint.alias(place / f"{checkpoint.STEP}00000002.ckpt", checkpoint.LAST)
    checkpoint.save({"step": 1}, place / "best.ckpt")
    return folder


def call(folder, *words, **options):
    return CliRunner().invoke(app, ["--logs", str(folder.parents[1]), "trim", *words], **options)


def trimmed(folder, *words):
    done = call(folder, *words, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def names(folder):
    return sorted(path.name for path in (folder / checkpoint.FOLDER).iterdir())


def test_a_trimmed_run_keeps_its_best_weights_alone_and_says_what_it_freed(folder):
    before = trash.size(folder)
    said = trimmed(folder, "a", "--yes")
    assert names(folder) == ["best.ckpt", "best.ckpt.sha256", checkpoint.WEIGHTS_ONLY]
    assert checkpoint.load(folder / checkpoint.FOLDER / "best.ckpt") == {"step": 1}
    freed = (
        before - trash.size(folder) + (folder / checkpoint.FOLDER / checkpoint.WEIGHTS_ONLY).stat().st_size
    )
    assert f"{freed / 1e6:,.1f} MB freed. It can't be resumed" in said


def test_a_trimmed_run_is_not_trained_again_from_the_start_by_a_resume(folder):
    trimmed(folder, "a", "--yes")
    with pytest.raises(UserError, match=r"holds its best weights alone.*can't be resumed"):
        resuming.starting_point(folder)


def test_it_asks_and_without_a_terminal_is_refused(folder, monkeypatch):
    before = names(folder)
    with pytest.raises(UserError, match=r"would be deleted permanently\. best\.ckpt stays.*add --yes"):
        trimmed(folder, "a")
    monkeypatch.setattr(life.sys, "stdin", type("Terminal", (), {"isatty": lambda _: True})())
    monkeypatch.setattr(life.typer, "confirm", lambda *_, **__: (_ for _ in ()).throw(SystemExit(1)))
    assert call(folder, "a").exit_code == 1
    assert names(folder) == before


def test_a_run_at_work_and_one_without_whole_best_weights_keep_everything(folder):
    before = names(folder)
    held = lock.hold(folder)
    with pytest.raises(UserError, match="still running"):
        trimmed(folder, "a", "--yes")
    held.release()
    best = folder / checkpoint.FOLDER / "best.ckpt"
    whole = best.read_bytes()
    best.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="damaged"):
        trimmed(folder, "a", "--yes")
    assert names(folder) == before
    best.unlink()
    with pytest.raises(UserError, match="no best weights"):
        trimmed(folder, "a", "--yes")


def test_a_run_that_has_no_states_has_nothing_to_trim(folder):
    trimmed(folder, "a", "--yes")
    before = names(folder)
    assert "nothing to trim" in trimmed(folder, "a")
    assert names(folder) == before


def test_a_file_of_several_names_counts_once_in_every_size(folder, tmp_path):
    (folder / "one").write_bytes(os.urandom(2_000_000))
    for name in ("two", "three"):
        os.link(folder / "one", folder / name)
    runner, logs = CliRunner(), str(folder.parents[1])
    runner.invoke(app, ["--logs", logs, "delete", "a"], catch_exceptions=False)
    assert "2.0 MB" in runner.invoke(app, ["--logs", logs, "trash"], catch_exceptions=False).stdout
    with pytest.raises(UserError, match=r"\(2\.0 MB\) would be deleted permanently"):
        runner.invoke(app, ["--logs", logs, "delete", "--purge"], catch_exceptions=False)
