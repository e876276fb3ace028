"""What keeps TensorBoard going: it holds the port, leaves out what breaks the data server, and names it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from torch.utils.tensorboard import SummaryWriter

from project import CHECKOUT, module
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEEPER = CHECKOUT / "tensorboard/keeper.py"
keeper = module("tensorboard/keeper.py")

DEADLINE = 60.0  # seconds; a busy machine needs some of them


def write(folder: Path) -> Path:
    """Write a small run; return its event file."""
    with SummaryWriter(folder) as writer:
        writer.add_scalar("train/loss", 0.5, 1)
    [file] = folder.glob("*tfevents*")
    return file


def header(length: int) -> bytes:
    """Return what precedes a record's data."""
    return struct.pack("<QI", length, keeper.masked_crc(struct.pack("<Q", length)))


def test_a_socket_that_an_earlier_one_has_left_is_taken_over_and_is_nobody_else_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # its path may have 107 characters
    keeper.listening("./board.sock").close()
    with keeper.listening("./board.sock"), socket.socket(socket.AF_UNIX) as asked:
        asked.connect("board.sock")
    assert stat.S_IMODE((tmp_path / "board.sock").stat().st_mode) == 0o600
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="in use"):
        keeper.listening("./file")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "later").touch()
    assert stat.S_IMODE((tmp_path / "later").stat().st_mode) & 0o600 == 0o600
    (tmp_path / "folder").mkdir()
    assert (tmp_path / "folder").stat().st_mode & stat.S_IXUSR, "what is made later has the mode that it had"


@pytest.mark.parametrize("length", [2**63 - 1, 2**40, 5 * 2**30, keeper.LARGEST + 1])
def test_an_event_file_that_announces_too_much_is_found_with_the_place(tmp_path, length):
    file = write(tmp_path / "run")
    offset = file.stat().st_size
    assert keeper.oversized_record(file) is None
    with file.open("ab") as end:
        end.write(header(length) + b"x" * 100)
    assert f"at byte {offset} it announces a record of {length} bytes" in keeper.oversized_record(file)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"no event file at all", b"\xff" * 500, header(1000) + b"torn"]
)
def test_what_the_data_server_survives_is_left_in(tmp_path, content):
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(content)
    assert keeper.oversized_record(file) is None


def test_links_show_everything_but_the_file_left_out_and_follow_what_changes(tmp_path):
    logs = tmp_path / "logs"
    bad, good = write(logs / "e/bad/deep"), write(logs / "e/good")
    (logs / "notes.txt").touch()
    with bad.open("ab") as end:
        end.write(header(2**60))
    view = keeper.View(logs, 1000)
    assert view.folder == logs
    [told] = view.leave_out_what_breaks()
    assert str(bad.relative_to(logs)) in told
    assert view.leave_out_what_breaks() == [], "it is known already"
    try:
        assert (view.folder / good.relative_to(logs)).exists()
        assert (view.folder / "notes.txt").exists()
        assert not (view.folder / bad.relative_to(logs)).exists()
        new = [write(logs / name) for name in ("other", "e/new", "e/bad/new")] + [write(logs / "e/bad")]
        (logs / "notes.txt").unlink()
        view.update()
        assert all((view.folder / file.relative_to(logs)).exists() for file in new)
        assert not (view.folder / "notes.txt").is_symlink()
        worse = new[1]
        with worse.open("ab") as end:
            end.write(header(2**50))
        assert len(view.leave_out_what_breaks()) == 1
        assert not (view.folder / worse.relative_to(logs)).exists()
        assert (view.folder / new[2].relative_to(logs)).exists()
    finally:
        view.remove()
    assert good.exists() and bad.exists(), "nothing in logs/ is touched"


def test_links_that_lead_in_circles_end(tmp_path):
    (tmp_path / "a").mkdir()
    for name, target in (("a/up", ".."), ("a/here", "."), ("self", "self"), ("gone", "nowhere")):
        (tmp_path / name).symlink_to(target)
    file = write(tmp_path / "a/run")
    assert file in set(keeper.event_files(tmp_path))


@contextmanager
def kept(logs: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """TensorBoard, kept going, on a folder of runs."""
    command = [sys.executable, str(KEEPER), f"127.0.0.1:{port}", str(logs)]
    log = (logs.parent / "log").open("w")
    with log, subprocess.Popen(command, stderr=log, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(DEADLINE) == 128 + signal.SIGTERM


def shown(port: int) -> set[str]:
    """Return the runs that TensorBoard shows, none while it doesn't answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=5) as answer:
            return set(json.load(answer))
    except OSError:
        return set()


@pytest.mark.slow
def test_a_file_that_breaks_the_data_server_is_named_and_new_runs_still_appear(tmp_path, free_port):
    logs, port = tmp_path / "logs", free_port()
    write(logs / "e/first")
    with kept(logs, port):
        until(lambda: shown(port) == {"e/first"}, "the first run")
        for number, length in enumerate((2**63 - 1, 2**40)):  # one ends a thread, the other the whole process
            with write(logs / f"e/hostile{number}").open("ab") as end:
                end.write(header(length) + b"x" * 100)
            name = f"e/hostile{number}/events"
            until(lambda name=name: name in (tmp_path / "log").read_text(), "the file is named")
            write(logs / f"e/after{number}")
            until(lambda number=number: f"e/after{number}" in shown(port), "a new run appears")
        assert shown(port) >= {"e/first", "e/after0", "e/after1"}
    assert "is not shown: at byte" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("setting", "size"), [("2g", 2 << 30), ("500M", 500 << 20), ("64mb", 64 << 20), ("1024", 1024)]
)
def test_without_a_container_the_memory_is_limited_as_env_says(monkeypatch, setting, size):
    limits = []
    monkeypatch.setattr(keeper.resource, "setrlimit", lambda *limit: limits.append(limit))
    keeper.limit_memory(setting)
    keeper.limit_memory("")
    assert limits == [(keeper.resource.RLIMIT_DATA, (size, size))]
    with pytest.raises(SystemExit, match="TENSORBOARD_MEMORY=lots is no size"):
        keeper.limit_memory("lots")


def test_of_more_runs_than_may_be_open_the_newest_are_shown_and_the_number_is_said(tmp_path):
    logs = tmp_path / "logs"
    for age in range(20):
        file = write(logs / f"e{age % 3}/run{age}")
        os.utime(file, (1_000_000 - age, 1_000_000 - age))
    old = write(logs)  # an event file above all the others
    os.utime(old, (1, 1))
    view = keeper.View(logs, 21)
    assert view.leave_out_what_is_too_much() is None
    assert view.folder == logs
    view = keeper.View(logs, 10)
    try:
        told = view.leave_out_what_is_too_much()
        assert "logs/ holds 21 event files, and 10 may be open: the newest 9 are shown" in told
        assert {path.parent.name for path in keeper.event_files(view.folder)} == {
            f"run{age}" for age in range(9)
        }
        assert not view.is_full()
        write(logs / "e1/new")
        write(logs / "e4/new")
        view.update()
        assert view.is_full()
        assert "the newest 9" in view.leave_out_what_is_too_much()
        shown = {str(path.parent.relative_to(view.folder)) for path in keeper.event_files(view.folder)}
        assert {"e1/new", "e4/new", "e0/run0"} < shown and len(shown) == 9
    finally:
        view.remove()


def test_the_limit_of_open_files_is_raised_as_far_as_allowed(monkeypatch):
    for hard, limit in ((4096, 4096), (1 << 20, 1 << 16), (keeper.resource.RLIM_INFINITY, 1 << 16)):
        chosen = []
        monkeypatch.setattr(keeper.resource, "setrlimit", lambda *limit, chosen=chosen: chosen.append(limit))
        monkeypatch.setattr(keeper.resource, "getrlimit", lambda _, hard=hard: (1024, hard))
        assert keeper.raise_open_files() == limit
        assert chosen == [(keeper.resource.RLIMIT_NOFILE, (limit, hard))]


@pytest.mark.slow
def test_the_port_is_never_free_while_tensorboard_is_killed_again_and_again(tmp_path, free_port):
    logs, port = tmp_path / "logs", free_port()
    write(logs / "e/run")
    with kept(logs, port) as process:
        for _ in range(3):
            until(lambda: shown(port), "TensorBoard answers")
            [board] = keeper.children(process.pid)
            os.kill(board, signal.SIGKILL)
            with pytest.raises(OSError, match="in use"), socket.socket() as enemy:
                enemy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                enemy.bind(("127.0.0.1", port))
        until(lambda: shown(port), "TensorBoard answers")
        [board] = keeper.children(process.pid)
        os.kill(process.pid, signal.SIGSTOP)  # what waits is served by the system's queue meanwhile
        assert shown(port)
        os.kill(process.pid, signal.SIGCONT)
    assert (tmp_path / "log").read_text().count("TensorBoard starts again") == 3


def test_a_board_without_a_data_server_as_on_arm64_is_in_no_trouble():
    board = subprocess.Popen(["sleep", "60"])
    try:
        server = keeper.DataServer(board.pid)
        assert [server.trouble(), server.trouble()] == [None, None]
    finally:
        board.kill()
        board.wait()
