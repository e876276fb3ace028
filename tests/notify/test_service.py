"""The command, as the stack runs it: a process that watches and tells, is ended and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

import trainlab
from message_server import serving
from trainlab.notify import service, watch
from waiting import until

pytest.importorskip("apprise")
QUICK = """
import sys
from trainlab.notify import send, service, watch
service.GLANCE, watch.WALK, watch.WALK_SHARE, send.PAUSE, service._ATTENDS_EVERY = 0.1, 0.1, 0, 0.2, 0.1
from trainlab.cli import main
main()
"""


@contextmanager
def watching(logs, addresses, output):
    """Run the command until the block ends, and let SIGTERM end it."""
    environment = os.environ | {"NOTIFY": addresses, "TRAINLAB_ROOT": str(logs.parent)}
    with output.open("ab") as log:
        command = [sys.executable, "-c", QUICK, "notify", "--logs", str(logs)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGKILL), output.read_text()
    finally:
        process.kill()


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


def finish(logs, name, reason=None):
    run = trainlab.Run("news", name=name, logs=logs, monitor=False)
    run.finish("failed" if reason else "finished", reason)


@pytest.mark.slow
def test_ends_are_told_once_over_restarts_and_the_address_stands_nowhere(logs, tmp_path):
    output = tmp_path / "output"
    with serving() as server, serving(500) as broken:
        address = server.address("T0pSecret99")
        both = f"{broken.address('T0pSecret88')} {address}"
        finish(logs, "before")
        with watching(logs, both, output):
            until((logs / watch.FILE).exists, "it has looked")
            finish(logs, "one", f"cannot tell {address} nor T0pSecret99")
            until(lambda: server.messages, "the first message")
            until(lambda: b'"channels":[0]' in (logs / watch.FILE).read_bytes(), "it is kept as sent")
        finish(logs, "two")
        broken.answer = 200
        with watching(logs, both, output):
            until(lambda: len(server.messages) == 2 and broken.messages, "the rest")
            until(lambda: b'"waiting":[]' in (logs / watch.FILE).read_bytes(), "nothing waits")
        with watching(logs, both, output) as process:
            until(lambda: output.read_text().count("watching the runs") == 3, "it watches")
            environ = subprocess.run(
                ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
            ).stdout
            assert environ == "", "nothing is sent again"
    assert len(server.messages) == 2
    first, second = (each["message"] for each in server.messages)
    assert "-one: failed. cannot tell *** nor ***" in first
    assert "-two: finished" in second
    assert "before" not in first + second
    told = "".join(each["message"] for each in broken.messages)
    assert "-one: failed" in told
    assert "-two: finished" in told
    assert b"T0pSecret" not in (logs / watch.FILE).read_bytes() + output.read_bytes()


@pytest.mark.slow
def test_two_watchers_of_one_folder_tell_once_and_the_second_takes_over(logs, tmp_path):
    with serving() as server, watching(logs, server.address(), tmp_path / "second") as second:
        until((logs / watch.FILE).exists, "one has looked")
        with watching(logs, server.address(), tmp_path / "third"):
            until(lambda: "somebody else tells already" in (tmp_path / "third").read_text(), "it waits")
            finish(logs, "one")
            until(lambda: server.messages, "told")
            until(lambda: b'"waiting":[]' in (logs / watch.FILE).read_bytes(), "it is kept as told")
            second.kill()
            second.wait()
            until(lambda: "watching the runs" in (tmp_path / "third").read_text(), "it watches")
            finish(logs, "two")
            until(lambda: "-two" in server.messages[-1]["message"], "told by the other")
    assert sum("-one" in each["message"] for each in server.messages) == 1


@pytest.mark.slow
def test_a_folder_that_is_gone_for_a_while_ends_nothing(logs, tmp_path, monkeypatch):
    output = tmp_path / "output"
    with serving() as server, watching(logs, server.address(), output):
        until((logs / watch.FILE).exists, "it has looked")
        logs.rename(tmp_path / "elsewhere")
        until(lambda: "is not there" in output.read_text(), "it says so")
    assert service.GLANCE < service._WORST
