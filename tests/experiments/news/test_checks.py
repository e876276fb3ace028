"""The checks find what can go wrong in the news experiment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments.news.checks import NewsSubject, subject
from experiments.news.config import NewsConfig
from experiments.news.model import NewsModel, pool
from experiments.news.tokens import Tokens
from experiments.news.train import NewsData
from trainlab.checks.harness import Finding
from trainlab.checks.run import run_all
from trainlab.errors import UserError


class Quick(NewsSubject):
    steps = 8
    overfit_steps = 20


@pytest.fixture(scope="module")
def findings(article: NewsConfig) -> dict[int, Finding]:
    return {each.number: each for each in run_all(Quick(article), [1, 2, 3, 4, 9, 10, 11, 12, 13])}


@pytest.mark.parametrize("number", [1, 2, 3, 9, 10, 11, 12, 13])
def test_the_network_passes(findings: dict[int, Finding], number: int) -> None:
    assert findings[number].status == "passed", findings[number].found


def test_a_triplet_loss_has_no_class_prior(findings: dict[int, Finding]) -> None:
    assert findings[4].status == "skipped"
    assert findings[4].found.startswith("not applicable: a triplet loss has no classes")


def test_title_and_abstract_pass_too(article: NewsConfig) -> None:
    both = article.model_copy(update={"text": "title+abstract"})
    for finding in run_all(Quick(both), [9, 11, 13]):
        assert finding.status == "passed", finding.found


def one(planted: NewsSubject, number: int) -> Finding:
    (finding,) = run_all(planted, [number])
    return finding


class Planted(Quick):
    """A subject whose module is of another class than the experiment's."""

    kind: type[NewsModel] = NewsModel

    def _model(self) -> NewsModel:
        return self.kind.pretrained(self.config)


class TenTimes(NewsModel):
    def training_step(self, batch: Any) -> Tensor:
        return 10 * super().training_step(batch)


class AnotherMargin(NewsModel):
    def training_step(self, batch: Any) -> Tensor:
        self.hparams["margin"] = 1.0
        return super().training_step(batch)


@pytest.mark.parametrize("kind", [TenTimes, AnotherMargin])
def test_another_scale_of_the_loss_is_found(article: NewsConfig, kind: type[NewsModel]) -> None:
    planted = Planted(article)
    planted.kind = kind
    assert one(planted, 3).status == "failed"


class SeesPadding(NewsModel):
    """Attends to padding as to words, and takes the mean over all of it."""

    def pooled(self, tokens: Tokens) -> Tensor:
        return super().pooled(Tokens(tokens.ids, torch.ones_like(tokens.mask)))


class OutOfOrder(NewsModel):
    """Forgets to put the texts back into the batch's order."""

    def pooled(self, tokens: Tokens) -> Tensor:
        ids, mask = tokens.ids.flatten(0, 1), tokens.mask.flatten(0, 1)
        order = mask.sum(-1).argsort(stable=True, descending=True)
        states = self.backbone(input_ids=ids[order], attention_mask=mask[order]).last_hidden_state
        return pool(states, mask[order], "mean").view(len(tokens.ids), -1)


@pytest.mark.parametrize("kind", [SeesPadding, OutOfOrder])
def test_a_fast_path_that_differs_is_found(article: NewsConfig, kind: type[NewsModel]) -> None:
    planted = Planted(article.model_copy(update={"text": "title+abstract"}))  # of different lengths
    planted.kind = kind
    assert one(planted, 13).status == "failed"


class ShiftedIds(Quick):
    def _data(self) -> NewsData:
        data = super()._data()
        shifted = replace(data.tokens, ids=np.minimum(data.tokens.ids + 1, 20))
        return NewsData(data.examples, shifted, data.config)


def test_ids_shifted_by_one_are_found(article: NewsConfig) -> None:
    finding = one(ShiftedIds(article), 9)
    assert finding.status == "failed"
    assert "for instance" in finding.found


def test_a_split_by_triplet_is_found_to_share_its_items(article: NewsConfig) -> None:
    finding = one(Quick(article.model_copy(update={"split": "triplet"})), 1)
    assert finding.status == "failed"


def test_an_untrained_experiment_is_refused() -> None:
    with pytest.raises(UserError, match="trained=false"):
        subject({"trained": "false"})


def test_mined_triplets_are_refused() -> None:
    with pytest.raises(UserError, match="mining=all"):
        subject({"mining": "all"})


def test_settings_win_over_the_small_ones() -> None:
    assert subject({"margin": "5", "max_tokens": "12"}).config.max_tokens == 12
    assert subject({"margin": "5"}).margin == 5


def test_another_loss_is_refused() -> None:
    with pytest.raises(UserError, match="loss=contrastive"):
        subject({"loss": "contrastive"})


def test_all_three_parts_are_looked_through_for_duplicates(findings: dict[int, Finding]) -> None:
    assert [f"{part}: " in findings[1].found for part in ("train", "validation", "test")] == [True] * 3
