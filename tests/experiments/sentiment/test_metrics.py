"""Figures of a classification, held against ones made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.sentiment import train
from experiments.sentiment.metrics import chance, interval, measure


def test_the_mean_over_both_classes_is_taken() -> None:
    # of the four positive reviews three are found, of the two negative ones one
    metrics = measure(np.array([1, 1, 1, 1, 0, 0]), np.array([0.9, 0.8, 0.5, 0.1, 0.7, 0.2]))
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["precision"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert metrics["recall"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert metrics["f1"] == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_a_class_that_is_never_answered_counts_as_nothing() -> None:
    assert measure(np.array([0, 1]), np.array([0.9, 0.9]))["precision"] == pytest.approx(0.25)


def test_the_interval_is_wilsons() -> None:
    # centre (p + z²/2n) / (1 + z²/n), half width z·sqrt(p(1-p)/n + z²/4n²) / (1 + z²/n), with z = 1.96
    assert interval(0.9, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert interval(1.0, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)


def test_chance_looks_at_what_one_system_alone_gets_right() -> None:
    labels, right, wrong = np.ones(12), np.full(12, 0.9), np.full(12, 0.1)
    assert chance(labels, right, right) == 1.0
    assert chance(labels, right, wrong) == pytest.approx(2 * 0.5**12)


def history(losses: list[float], accuracies: list[float], every: int) -> pd.DataFrame:
    rows = [
        (tag, every * (place + 1) - 1, value)
        for tag, values in (("val/loss", losses), ("val/accuracy", accuracies), ("train/loss", losses))
        for place, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["tag", "step", "value"])


def test_the_lesson_finds_the_best_steps_at_both_resolutions() -> None:
    curve = history([0.6, 0.3, 0.5, 0.4, 0.7], [0.6, 0.7, 0.8, 0.9, 0.9], every=10)
    lesson = train.lesson(curve, (10, 20))
    assert lesson["step"].to_dict() == {
        (10, "val/loss"): 20,
        (10, "val/accuracy"): 40,
        (20, "val/loss"): 20,
        (20, "val/accuracy"): 40,
    }  # the last step, 50, is as good, but later
    assert lesson.loc[(10, "val/loss"), "val/accuracy"] == 0.7
    assert train.plot_lesson(curve, (10, 20)).axes[0].get_title() == "val/loss"


def test_the_last_step_is_seen_at_each_resolution() -> None:
    lesson = train.lesson(history([0.6, 0.5, 0.4], [0.5, 0.5, 0.5], every=2), (2, 4))
    assert lesson.xs("val/loss", level="best by")["step"].tolist() == [6, 6]


def test_the_most_wrong_come_first_and_are_no_markup() -> None:
    answers = pd.DataFrame(
        {
            "text": ["right", "a | <b>little</b>", "very\nwrong", "right"],
            "label": [1, 1, 0, 0],
            "positive": [0.9, 0.4, 0.99, 0.2],
            "tfidf": [0.5] * 4,
        },
        index=[11, 12, 13, 14],
    )
    wrong = train.most_wrong(answers)
    assert wrong.index.tolist() == [13, 12]
    lines = train.as_markdown(wrong).splitlines()
    assert lines[2] == "| 13 | negative | 0.990 | very wrong |"
    assert r"a \| \<b\>little\</b\>" in lines[3]
    assert "No review" in train.as_markdown(wrong[:0])
