"""`tracker=csv`: the same points as in the event files, for each trainer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import ddp_work
import noisy_tuning
import trainlab
from trainlab.runs.frames import scalars
from trainlab.trackers import Point, Subject
from trainlab.trackers.csv import FILE, Table, read
from trainlab.training.config import FineTuneConfig

COLUMNS = ["tag", "step"]


def same(run: trainlab.Run) -> bool:
    """Tell whether file and event files hold the same points, those of the machine too."""
    own = pd.DataFrame(read(run.folder / FILE)).sort_values(COLUMNS)
    events = scalars(run.folder).sort_values(COLUMNS)
    assert len(own) > 10
    return own[COLUMNS].values.tolist() == events[COLUMNS].values.tolist() and own[
        "value"
    ].tolist() == pytest.approx(events["value"].tolist(), rel=1e-6, nan_ok=True)


def test_lightnings_curves_are_all_there(tmp_path: Path) -> None:
    run, _ = ddp_work.train(tmp_path, 1, tracker="csv")
    assert same(run)


@pytest.mark.slow
def test_so_are_those_of_two_processes(tmp_path: Path) -> None:
    run, _ = ddp_work.train(tmp_path, 2, tracker="csv")
    assert same(run)


def test_so_are_those_of_the_transformers_trainer(tmp_path: Path) -> None:
    with trainlab.Run("tuned", FineTuneConfig(tracker="csv"), logs=tmp_path) as run:
        noisy_tuning.tune(run)
    assert same(run)


def test_a_resumed_training_leaves_one_value_a_step(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ddp_work.train(tmp_path, 1, ddp_work.interrupt, tracker="csv")
    (folder,) = tmp_path.glob("line/*")
    run, _ = ddp_work.train(tmp_path, 1, resume=folder.name, tracker="csv")
    found = pd.DataFrame(read(run.folder / FILE))
    assert not found.duplicated(COLUMNS).any()
    assert same(run)


def test_a_line_that_was_cut_off_is_none_and_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    table = Table()
    table.start(Subject(tmp_path, tmp_path, "exp", "run"))
    points = [Point(0, 1.5, "a, b", 0.1), Point(1, 2.5, "é", float("inf")), Point(2, 3.5, "c", 1e-300)]
    table.log(points)
    table.finish("finished", None)
    with (tmp_path / FILE).open("a") as file:
        file.write("3,4.5")
    assert read(tmp_path / FILE) == points
