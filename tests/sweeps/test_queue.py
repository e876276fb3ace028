"""Trials as a queue: each is taken by one, ends once, and comes back when its owner is lost."""

from __future__ import annotations

import pytest

from trainlab.sweeps import definition
from trainlab.sweeps.queue import Owner, Queue

ME = Owner("host", 1, 1.0, "0", "mine")
OTHER = Owner("host", 2, 1.0, "0", "other's")
LISTS = {"margin": [1, 3, 5], "mining": [True, 1]}
RANGES = {"rate": {"low": 1e-5, "high": 1e-3, "log": True}, "layers": {"low": 1, "high": 9}}


@pytest.fixture
def queue_of(tmp_path, request):
    program = tmp_path / "train.py"
    program.write_text("print(1)\n")

    def made(**fields):
        method = fields.get("method", "grid")
        known = {"name": "margins", "program": str(program), "goal": "val/score", "mode": "max"}
        known |= {"method": method, "trials": 20, "space": LISTS if method == "grid" else RANGES}
        definition.create(definition.Definition(**known | fields), tmp_path / "logs")
        queue = Queue.create(definition.load(known["name"], tmp_path / "logs"), logs=tmp_path / "logs")
        request.addfinalizer(queue.close)
        return queue

    return made


def test_a_grid_waits_whole_with_its_settings(queue_of):
    trials = queue_of().trials()
    settings = [trial.settings for trial in trials]
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.state for trial in trials} == {"waiting"}
    assert settings[:2] == [{"margin": 1, "mining": True}, {"margin": 1, "mining": 1}]
    assert [type(each["mining"]) for each in settings[:2]] == [bool, int]


def test_a_lost_trial_comes_back_with_its_number_settings_and_runs(queue_of):
    queue = queue_of(method="tpe")
    taken = queue.take(ME)
    assert queue.started(taken.number, ME, "news/margins-000")
    assert queue.requeue(taken.number, ME, "host is gone")
    waiting = queue.trials()[0]
    assert (waiting.state, waiting.owner, waiting.reason) == ("waiting", None, "host is gone")
    again = queue.take(OTHER)
    assert (again.number, again.settings, again.runs) == (0, taken.settings, ("news/margins-000",))
    assert (again.owner, again.attempts) == (OTHER, 2)
