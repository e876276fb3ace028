from __future__ import annotations

import math

import pytest

from experiments.captions import train as captions
from experiments.news import article
from experiments.news import train as news
from experiments.news.config import NewsConfig
from experiments.sentiment import train as sentiment
from trainlab.errors import UserError
from trainlab.run.metrics import Summary, directions_of, given_directions, well_known
from trainlab.training.config import FineTuneConfig, TrainingConfig


@pytest.mark.parametrize(
    "tag",
    [
        *("loss", "val/loss", "val_loss", "train/loss_epoch", "train/loss_step", "eval_loss", "epoch_loss"),
        *(
            "val/loss/dataloader_idx_1",
            "untrained/loss",
            "val/wer",
            "val/CER",
            "val/mae",
            "val_mse",
            "test/rmse",
        ),
        *(
            "ppl",
            "eval/perplexity",
            "val/nll",
            "fid",
            "val/kl",
            "val/error",
            "vitals/step_seconds",
            "error-rate",
        ),
    ],
)
def test_well_known_errors_and_costs_fall(tag):
    assert well_known(tag) == "min"


@pytest.mark.parametrize(
    "tag",
    [
        *("accuracy", "val/acc", "val_acc", "train/accuracy_epoch", "epoch_accuracy", "test/f1", "val/AUROC"),
        *("val/precision@10", "val/precision_at_10", "tfidf/mrr", "val/bleu", "val/exact_match", "ndcg@5"),
    ],
)
def test_well_known_scores_rise(tag):
    assert well_known(tag) == "max"


@pytest.mark.parametrize(
    "tag",
    [
        *("lossless_ratio", "val/errors_found", "seconds_saved", "val/wer_gain", "glossary", "accuracy_low"),
        *(
            "train/lr",
            "score",
            "",
            "val/",
            "loss/other",
            "val/precision_at_10_subcategory",
            "at_10",
            "ep_len_mean",
        ),
    ],
)
def test_a_part_of_a_name_says_nothing(tag):
    assert well_known(tag) is None


def test_every_metric_that_an_experiment_calls_important_or_chooses_by_has_a_direction():
    for experiment in (news, sentiment, captions):
        summary = Summary(given_directions(experiment.METRICS))
        assert all(summary.direction(tag) for tag in experiment.METRICS)
    assert set(article.LOSSES.values()) == {"min"}
    for monitored in (NewsConfig().monitor, TrainingConfig().monitor, FineTuneConfig().metric_for_best):
        assert well_known(monitored)


def test_what_was_said_wins_over_the_table_and_what_nobody_said_has_no_best():
    summary = Summary({"val/loss": "max", "score": "min"})
    for step, value in enumerate([2.0, 1.0, 3.0, math.nan]):
        for tag in ("val/loss", "score", "other", "accuracy"):
            summary.add(tag, value, step)
    assert {tag: point["step"] for tag, point in summary.best.items()} == {
        "val/loss": 2,
        "score": 1,
        "accuracy": 2,
    }
    assert summary.snapshot()["directions"] == {"val/loss": "max", "score": "min", "accuracy": "max"}


@pytest.mark.parametrize("direction", ["up", "", None, 1, "MIN"])
def test_only_min_and_max_are_directions(direction):
    with pytest.raises(UserError, match="Expected 'min' or 'max'"):
        given_directions({"val/wer": direction})


def test_a_direction_is_said_of_a_metric():
    assert directions_of("best.val/x", "max") == directions_of("val/x", "max") == {"val/x": "max"}
    assert directions_of("", "auto") == {}
    with pytest.raises(UserError, match="mode=min says nothing without the metric"):
        directions_of("", "min")
