"""`trainlab serve` finds what is meant, or says what there is, and changes nothing where it refuses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

import served_bundles
import trainlab
from served_bundles import write
from trainlab import paths
from trainlab.cli import app, serve
from trainlab.errors import UserError
from trainlab.run import record
from trainlab.run.restoring import BEST
from trainlab.serving import served
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("onnx")

OTHER = {"card.json": b"{}"}


def chosen(*words: str) -> list[str]:
    """Return what the command chooses."""
    done = CliRunner().invoke(app, ["serve", *words, "--choose"])
    if done.exception is not None:
        raise done.exception
    return done.output.splitlines()


def run_with(*names: str) -> str:
    """Record a run that was exported as these bundles; return its name."""
    with trainlab.Run("news", {"lr": 1}, monitor=False) as run:
        run.log({"val/loss": 1.0}, 1)
    record.update(
        run.folder, exports=[{"folder": name, "kind": "sentiment", "digest": name} for name in names]
    )
    return run.folder.name


def test_a_bundle_is_meant_by_its_name_a_part_of_it_or_its_path() -> None:
    name = write("sentiment", "mood")
    for words in (name, "moo", str(paths.models() / name)):
        assert chosen(words) == [f"sentiment: {name}"]
        assert served.names() == [name]


def test_several_kinds_are_served_on_one_page() -> None:
    names = [write(kind, kind) for kind in served_bundles.MADE]
    assert chosen(*names) == [
        f"{kind}: {name}" for kind, name in zip(served_bundles.MADE, names, strict=True)
    ]
    assert served.names() == names


def test_a_run_is_meant_by_its_name_and_its_newest_bundle_is_served() -> None:
    old, new = write("sentiment", "old"), write("sentiment", "new", OTHER)
    run = run_with(old, new, "gone-1")
    assert chosen(run) == [f"sentiment: {new}"]
    assert chosen("last") == [f"sentiment: {new}"]


def test_a_run_s_name_that_its_bundles_begin_with_means_the_run() -> None:
    run = run_with()
    names = [write("sentiment", run, more) for more in ({}, OTHER)]
    record.update(paths.logs() / "news" / run, exports=[{"folder": names[0], "kind": "sentiment"}])
    assert chosen(run) == [f"sentiment: {names[0]}"]


def test_a_part_that_fits_one_bundle_and_other_runs_is_refused_with_both() -> None:
    run = run_with()
    name = write("sentiment", f"{run[:-1]}-old")
    with pytest.raises(UserError, match=f"means the bundle {name} and other runs: news/{run}"):
        chosen(run[:-1])


def test_a_part_that_fits_a_bundle_and_its_own_run_means_the_bundle() -> None:
    run = run_with()
    name = write("sentiment", run)
    assert chosen(run[:-1]) == [f"sentiment: {name}"]


def test_a_run_that_has_trained_on_since_its_export_is_served_as_it_was_and_that_is_said() -> None:
    run = run_with(name := write("sentiment", "mood"))
    folder = paths.logs() / "news" / run
    noted = {"folder": name, "kind": "sentiment", "digest": name}
    record.update(folder, exports=[{**noted, "at": "2020-01-01T00:00:00+00:00"}])
    assert chosen(run) == [f"sentiment: {name}"]
    (folder / BEST).parent.mkdir(parents=True, exist_ok=True)
    (folder / BEST).touch()
    said, served_line = chosen(run)
    assert f"trainlab export-model {run}" in said
    assert served_line == f"sentiment: {name}"
    os.utime(folder / BEST, (0, 0))
    assert chosen(run) == [f"sentiment: {name}"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing"], r"No bundle and no run 'nothing'\. Bundles in .*models: "),
        (["modo-"], r"Did you mean 'mood'"),
        (["mo"], r"'mo' means 2 bundles: "),
        (["mood", "mode"], "are both of the kind sentiment"),
        ([".."], "No bundle and no run"),
        (["last"], "the first run makes it"),
    ],
)
def test_what_is_not_meant_uniquely_is_refused_and_changes_nothing(words: list[str], told: str) -> None:
    names = [write("sentiment", "mood"), write("sentiment", "mode", OTHER)]
    served.choose(names[:1])
    with pytest.raises(UserError, match=told):
        chosen(*words)
    assert served.names() == names[:1]


def test_a_damaged_bundle_is_refused_and_changes_nothing() -> None:
    good, bad = write("sentiment", "good"), write("sentiment", "bad", OTHER)
    served.choose([good])
    (paths.models() / bad / "text.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="damaged or was replaced"):
        chosen(bad)
    assert served.names() == [good]


def test_in_an_empty_folder_the_sentence_says_what_there_is(own_logs: Path) -> None:
    with pytest.raises(
        UserError, match=r"No bundle and no run 'news'\. Bundles in .*: none\. Runs in .*: none\."
    ):
        chosen("news")
    assert not paths.models().exists()


def test_a_run_that_says_nothing_of_its_export_is_refused_with_what_would_help() -> None:
    with trainlab.Run("mine", {}, monitor=False) as run:
        run.log({"val/loss": 1.0}, 1)
    with pytest.raises(UserError, match="is a run of mine, which says nothing of how it is exported"):
        chosen(run.folder.name)


def test_a_port_that_is_taken_changes_nothing(free_port: Callable[[], int]) -> None:
    name = write("sentiment", "mood")
    with socket.create_server(("127.0.0.1", port := free_port())):
        done = CliRunner().invoke(app, ["serve", name, "--port", str(port)])
    assert "already in use" in str(done.exception)
    assert not (paths.models() / served.FILE).exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "my.host"])
def test_whoever_could_reach_it_is_asked_for_a_token(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVE_TOKEN", raising=False)
    done = CliRunner().invoke(app, ["serve", "mood", "--host", host])
    assert "whoever reaches this machine could ask" in str(done.exception)


def test_this_machine_alone_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVE_TOKEN", raising=False)
    for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        serve.check_open(host)
    monkeypatch.setenv("SERVE_TOKEN", "secret")
    serve.check_open("0.0.0.0")


def test_it_starts_the_server_in_its_own_place(tmp_path: Path, free_port: Callable[[], int]) -> None:
    name, port = write("sentiment", "mood"), free_port()
    (tmp_path / "trainlab").mkdir()  # a folder that happens to be called so
    (tmp_path / "trainlab" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("trainlab"), "serve", "mood", "--port", str(port)],
            cwd=tmp_path,
            env=os.environ,
            stdout=file,
            stderr=file,
        )
    try:
        until(lambda: f"serving at http://127.0.0.1:{port}" in log.read_text(), "a server")
        process.terminate()
        assert process.wait(30) == 0
        assert log.read_text().startswith(f"sentiment: {name}\n")
    finally:
        process.kill()
        process.wait()
