"""TensorBoard shows one value a step of a run that was resumed, with its data server and without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from trainlab.run import events
from trainlab.run.run import Run

DEADLINE = 60  # seconds for TensorBoard to show what is there


def log(run, steps, value=1.0):
    for step in steps:
        run.log({"train/loss": value}, step)


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """Runs that were resumed: {name: (folder, expected points)}."""
    logs = tmp_path_factory.mktemp("logs")
    with Run("news", {"a": 1}, name="once", logs=logs) as once:
        log(once, range(10))
    with Run("news", {"a": 1}, resume=once.folder) as run:
        run.rewind(6)
        log(run, range(6, 12), value=2.0)
    with Run("news", {"a": 1}, name="often", logs=logs) as often:
        log(often, range(10))
    for value, start in ((2.0, 8), (3.0, 5), (4.0, 6)):
        with Run("news", {"a": 1}, resume=often.folder) as run:
            run.rewind(start)
            log(run, range(start, 10), value=value)
    with Run("news", {"a": 1}, name="torn", logs=logs) as torn:
        log(torn, range(10))
    (path,) = events.files(torn.folder)
    path.write_bytes(path.read_bytes()[:-5])
    with Run("news", {"a": 1}, resume=torn.folder) as run:
        run.rewind(9)
        log(run, [9, 10], value=2.0)
    return logs, {
        once.name: [*[1.0] * 6, *[2.0] * 6],
        often.name: [*[1.0] * 5, *[3.0], *[4.0] * 4],
        torn.name: [*[1.0] * 9, *[2.0] * 2],
    }


@pytest.fixture(scope="module", params=["true", "false"], ids=["data server", "python"])
def tensorboard(request, curves, free_port):
    """A TensorBoard on these runs; a function that asks it."""
    port = free_port()
    command = [Path(sys.executable).with_name("tensorboard"), "--logdir", curves[0], "--port", str(port)]
    options = ["--host", "127.0.0.1", f"--load_fast={request.param}", "--reload_interval", "1"]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(run, tag):
        query = urllib.parse.urlencode({"run": f"news/{run}", "tag": tag})
        try:
            with opener.open(
                f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?{query}", timeout=5
            ) as answer:
                return [(step, value) for _, step, value in json.load(answer)]
        except OSError:
            return []

    yield ask
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=DEADLINE)


def wait_until_equal(look, expected):
    deadline = time.monotonic() + DEADLINE
    while (found := look()) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found == expected


def test_tensorboard_shows_one_value_a_step_with_its_data_server_and_without(curves, tensorboard):
    for name, values in curves[1].items():
        wait_until_equal(lambda name=name: tensorboard(name, "train/loss"), list(enumerate(values)))
        curve = events.read(curves[0] / "news" / name).curves["train/loss"]
        assert list(zip(curve.steps, curve.values, strict=True)) == list(enumerate(values))


def test_tensorboard_follows_a_run_that_is_resumed_while_it_looks(curves, tensorboard):
    logs = curves[0]
    with Run("news", name="live", logs=logs) as run:
        log(run, range(5))
    wait_until_equal(lambda: tensorboard(run.name, "train/loss"), [(step, 1.0) for step in range(5)])
    with Run("news", resume=run.folder) as again:
        again.rewind(3)
        log(again, range(3, 6), value=2.0)
    expected = [*((step, 1.0) for step in range(3)), *((step, 2.0) for step in range(3, 6))]
    wait_until_equal(lambda: tensorboard(run.name, "train/loss"), expected)
