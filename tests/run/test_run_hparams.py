from __future__ import annotations

from trainlab.run import events
from trainlab.run.run import Run
from trainlab.training.config import TrainingConfig


class Settings(TrainingConfig):
    margin: float = 3.0


def columns(logs, config):
    with Run("news", config, logs=logs, monitor=False) as run:
        run.log({"val/loss": 1.0}, 0)
    return events.outcome(run.folder).config


def test_settings_that_change_nothing_in_what_is_learned_are_no_columns(tmp_path):
    found = columns(tmp_path, Settings())
    assert {"margin", "epochs", "seed", "precision"} <= set(found)
    assert not {"accelerator", "num_workers", "devices", "checkpoint_every", "keep", "tracker"} & set(found)


def test_those_that_were_changed_are_columns_all_the_same(tmp_path):
    found = columns(tmp_path, Settings.parse({"accelerator": "cpu", "keep": "3"}))
    assert (found["accelerator"], found["keep"]) == ("cpu", 3)
    assert "num_workers" not in found


def test_settings_without_a_class_are_all_columns(tmp_path):
    assert columns(tmp_path, {"accelerator": "auto", "margin": 5.0}) == {"accelerator": "auto", "margin": 5.0}
