"""The experiment learns, and leaves a run."""

import pytest

import trainlab
from my_lab.config import SpiralsConfig
from my_lab.train import train
from trainlab.errors import UserError


def test_the_network_learns_to_tell_the_spirals_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINLAB_LOGS", str(tmp_path))
    run = train(SpiralsConfig(epochs=15, seed=1))
    curve = trainlab.scalars(run.folder).query("tag == 'val/loss'")["value"]
    assert len(curve) == 15
    assert curve.iloc[-1] < 0.5 * curve.iloc[0]


def test_a_wrong_setting_is_refused_before_anything_starts():
    with pytest.raises(UserError, match="learning_rate"):
        SpiralsConfig.parse({"learning_rate": "fast"})
