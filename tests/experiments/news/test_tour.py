"""What the tour of training shows, beside `tests/test_notebooks.py`, which runs it whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import trainlab
from experiments.news import tour
from trainlab.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def recorded(logs: Path, values: list[float]) -> Path:
    with trainlab.Run("drawn", logs=logs) as run:
        for step, value in enumerate(values):
            run.log({"train/loss": value}, step)
    return run.folder


def test_the_size_and_what_is_changed_become_the_news_settings() -> None:
    config = tour.TourConfig(class_size=6).news(learning_rate=0.01)
    assert (config.class_size, config.batch_size, config.learning_rate) == (6, 32, 0.01)


def test_curves_are_the_same_only_where_each_value_is(tmp_path: Path) -> None:
    first, second, third = (recorded(tmp_path, values) for values in ([3.0, 2.0], [3.0, 2.0], [3.0, 2.5]))
    assert tour.same_curve(first, second, "train/loss")
    assert not tour.same_curve(first, third, "train/loss")
    assert not tour.same_curve(first, second, "val/loss"), "no curve is no proof"


def test_the_last_half_of_a_curve_counts(tmp_path: Path) -> None:
    frame = tour.last({"one": recorded(tmp_path, [100.0, 90.0, 2.0, 4.0])}, ["train/loss"])
    assert frame.loc["one", "train/loss"] == 3.0


@pytest.mark.slow
def test_a_training_that_ends_before_it_is_killed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINLAB_LOGS", str(tmp_path))
    with pytest.raises(UserError, match="saved step 10, and ended before that"):
        tour.killed(tour.TourConfig().news(data="nowhere"), 10)
