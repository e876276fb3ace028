"""What a real TensorBoard shows of runs, over HTTP, while they are still going."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest

from runs_folder import foreign, make
from trainlab.run import events, record
from trainlab.run.run import Run
from trainlab.runs import archive, trash

WAIT = 60  # seconds for a server to start, and to read what has been written


class Server:
    def __init__(self, port):
        self.address = f"http://127.0.0.1:{port}"

    def get(self, path, body=None, **query):
        url = f"{self.address}/data/{path}?{urllib.parse.urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read()

    def json(self, path, body=None, **query):
        return json.loads(self.get(path, body, **query))


def wait_for(condition):
    deadline = time.monotonic() + WAIT
    while True:
        try:
            if found := condition():
                return found
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        assert time.monotonic() < deadline, "TensorBoard has not shown it in time"
        time.sleep(0.2)


@contextmanager
def serving(logs, port, *options):
    """Start a TensorBoard that looks for what is new every second, and stop it."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", str(port)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        [*command, "--reload_interval", "1", *options], stdout=quiet, stderr=quiet
    ) as process:
        try:
            yield Server(port)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def shown(tmp_path_factory, free_port):
    """Two runs of two experiments at work, and a TensorBoard that has read them."""
    logs = tmp_path_factory.mktemp("logs")
    port = free_port()
    said = {"logs": logs, "monitor": False}  # whose curves would be there where the server takes its time
    first = Run("news", {"margin": 5.0, "text": "title"}, metrics=["val/loss"], **said)
    second = Run("sentiment", {"batch": 16, "best": True, "note": None}, metrics=["val/accuracy"], **said)
    for step in range(3):
        first.log({"val/loss": 1 / (step + 1)}, step)
        second.log({"val/accuracy": step / 3}, step)
    titles = [["A\ttab", "news"], ["A\nline", "news"], ["", "sports"]]
    first.log_embedding("titles/untrained", np.eye(3), titles, ["title", "category"], step=0)
    first.log_embedding("titles/trained", np.eye(3), titles, ["title", "category"], step=3)
    first.writer.flush()
    second.writer.flush()
    with serving(logs, port) as server:
        try:
            tags = {f"news/{first.name}", f"sentiment/{second.name}"}
            wait_for(lambda: tags <= set(server.json("runs")))
            yield server, first, second
        finally:
            first.finish()
            second.finish()


def sessions(server):
    body = {
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [{"metric": {"tag": "val/loss"}}, {"metric": {"tag": "val/accuracy"}}],
        "startIndex": 0,
        "sliceSize": 100,
    }
    groups = server.json("plugin/hparams/session_groups", body).get("sessionGroups", [])
    return {each["name"]: (group, each) for group in groups for each in group["sessions"]}


def test_each_running_run_is_one_session_with_its_hyperparameters_and_metrics(shown):
    server, first, second = shown
    names = {f"news/{first.name}", f"sentiment/{second.name}"}
    found = wait_for(lambda: len(each := sessions(server)) >= 2 and each)
    assert set(found) == names
    group, session = found[f"news/{first.name}"]
    assert group["hparams"] == {"margin": 5.0, "text": "title"}
    assert [metric["name"]["tag"] for metric in session["metricValues"]] == ["val/loss"]
    group, session = found[f"sentiment/{second.name}"]
    assert group["hparams"] == {"batch": 16.0, "best": True}
    assert [metric["name"]["tag"] for metric in session["metricValues"]] == ["val/accuracy"]


def test_one_experiment_does_not_hide_the_columns_of_another(shown):
    server, *_ = shown
    experiment = server.json("plugin/hparams/experiment", {"includeMetrics": True})
    assert {each["name"] for each in experiment["hparamInfos"]} == {"margin", "text", "batch", "best"}
    assert {each["name"]["tag"] for each in experiment["metricInfos"]} == {"val/loss", "val/accuracy"}


def test_no_run_appears_that_nobody_started(shown):
    server, first, second = shown
    assert set(server.json("runs")) == {f"news/{first.name}", f"sentiment/{second.name}"}


def test_the_projector_shows_each_embedding_with_its_metadata(shown):
    server, first, _ = shown
    run = f"news/{first.name}"
    wait_for(lambda: run in server.json("plugin/projector/runs"))
    info = server.json("plugin/projector/info", run=run)
    names = [each["tensorName"] for each in info["embeddings"]]
    assert names == ["titles/untrained:00000", "titles/trained:00003"]
    for name in names:
        lines = server.get("plugin/projector/metadata", run=run, name=name).decode().splitlines()
        assert lines == ["title\tcategory", "A tab\tnews", "A line\tnews", "-\tsports"]
        vectors = np.frombuffer(server.get("plugin/projector/tensor", run=run, name=name), np.float32)
        assert vectors.tolist() == np.eye(3).ravel().tolist()


@pytest.mark.parametrize("loading", ["auto", "false"])  # with its data server where there is one, and without
def test_deleted_runs_vanish_and_restored_ones_come_back_without_a_restart(tmp_path, free_port, loading):
    logs = tmp_path / "logs"
    for label in ("news/a", "news/b"):
        foreign(make(logs, label))
    foreign(logs / "keras" / "train")
    everything = {"news/a", "news/b", "keras/train"}
    with serving(logs, free_port(), "--load_fast", loading) as server:

        def shows(expected):
            wait_for(lambda: set(server.json("plugin/scalars/tags")) == expected)
            return set(server.json("runs")) == expected

        assert shows(everything)
        entries = [trash.delete(logs / label, logs) for label in ("news/a", "keras/train")]
        assert shows({"news/b"})
        for entry in entries:
            trash.restore(entry)
        assert shows(everything)
        archive.pack([logs / "news" / "b"], tmp_path / "b.zip", logs)
        trash.purge(trash.delete(logs / "news" / "b", logs))
        assert shows(everything - {"news/b"})
        archive.unpack(tmp_path / "b.zip", logs)
        assert shows(everything)


def test_an_embedding_of_a_resumed_run_is_listed_once(tmp_path):
    with Run("news", logs=tmp_path) as run:
        for step in (0, 3, 0):
            run.log_embedding("titles", np.eye(3), step=step)
    assert (run.folder / "projector_config.pbtxt").read_text().count("embeddings {") == 2


def test_a_trial_has_its_sweep_and_its_number_among_the_hyperparameters(tmp_path):
    with Run("news", {"margin": 5.0}, logs=tmp_path, monitor=False) as run:
        run.log({"val/loss": 1.0}, 0)
    record.update(run.folder, sweep={"name": "margins", "trial": 7, "attempts": 1})
    with Run("news", {"margin": 5.0}, logs=tmp_path, monitor=False, resume=run.folder):
        pass
    assert events.outcome(run.folder).config == {"margin": 5.0, "sweep": "margins", "trial": 7}
