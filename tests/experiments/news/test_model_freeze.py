from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny_models
from experiments.news import model as packed
from experiments.news.config import NewsConfig
from experiments.news.model import NewsModel
from experiments.news.train import train
from trainlab.errors import UserError


def changed(config: NewsConfig) -> set[str]:
    """Return the names of the backbone's weights that a training moves."""
    before = NewsModel.pretrained(config).backbone.state_dict()
    after = train(config).model.backbone.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_frozen_layers_and_embeddings_stay_as_they_were(tiny: NewsConfig) -> None:
    free, frozen = changed(tiny), changed(tiny.model_copy(update={"freeze": 1}))
    assert {name for name in free if not name.startswith(("embeddings", "encoder.layer.0."))} == frozen
    assert frozen < free


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_what_is_frozen_draws_no_dropout_in_training(kind: str, tmp_path: Path) -> None:
    backbone = getattr(tiny_models, kind)(tmp_path, ["game"])
    model = NewsModel.pretrained(NewsConfig(backbone=str(backbone), freeze=2)).train()
    tokens = model.tokenize([["game game"], ["game"]]).rows(range(2))
    assert model.training
    assert torch.equal(model(tokens), model(tokens))
    assert not [each for each in model.frozen() for part in each.modules() if part.training]


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
@pytest.mark.parametrize("text", ["title", "title+abstract"])
def test_what_frozen_layers_make_of_tokens_is_cached(kind: str, text: str, tmp_path: Path) -> None:
    words = ["game", "rain", "wind", "sun", "cup"]
    backbone = getattr(tiny_models, kind)(tmp_path, words)
    config = NewsConfig(backbone=str(backbone), freeze=1, text=text)
    model = NewsModel.pretrained(config).eval()
    items = [["game rain"], ["sun"], ["cup cup wind game"], ["wind rain"]]
    table = model.tokenize(items if text == "title" else [[title, "the sun"] for (title,) in items])
    cached = model.cache_frozen_layers(table)
    wanted = [2, 0, 3]
    rows, known = table.rows(wanted), cached.rows(wanted)
    assert known.hidden is not None
    assert len(known.hidden) == rows.mask.sum()
    packed.layers(model.backbone)[0].register_forward_pre_hook(lambda *_: pytest.fail("computed again"))
    vectors = model(known)
    vectors.pow(2).mean().backward()
    gradients = [each.grad.clone() for each in model.parameters() if each.grad is not None]
    model.zero_grad()
    packed.layers(model.backbone)[0]._forward_pre_hooks.clear()
    plain = model(rows)
    plain.pow(2).mean().backward()
    others = [each.grad for each in model.parameters() if each.grad is not None]
    torch.testing.assert_close(vectors, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients, others, atol=1e-5, rtol=1e-5)


def test_nothing_is_cached_where_nothing_is_frozen_or_memory_is_short(
    tiny: NewsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, plain, frozen = (
        NewsModel.pretrained(tiny.model_copy(update=each))
        for each in ({}, {"freeze": 1, "fast": False}, {"freeze": 1})
    )
    table = free.tokenize([["game"], ["rain"]])
    assert free.cache_frozen_layers(table) is table
    assert plain.cache_frozen_layers(table) is table
    assert frozen.cache_frozen_layers(table).hidden is not None
    monkeypatch.setattr("experiments.news.model.memory_limit", lambda: 2048)
    assert frozen.cache_frozen_layers(table) is table


def test_a_training_with_a_cache_gives_the_losses_of_one_that_does_not(
    tiny: NewsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.model_copy(update={"freeze": 1})
    cached = train(config).metrics["test"]["trained"]
    monkeypatch.setattr(NewsModel, "cache_frozen_layers", lambda _, table: table)
    assert train(config).metrics["test"]["trained"] == pytest.approx(cached, abs=1e-4)


def test_a_frozen_run_that_is_resumed_equals_one_that_did_not_stop(tiny: NewsConfig) -> None:
    config = tiny.model_copy(update={"freeze": 1})
    whole = train(config)
    train(config.model_copy(update={"epochs": 1}))
    assert train(config.model_copy(update={"resume": "last"})).metrics == whole.metrics


def test_more_layers_than_there_are_is_refused_before_there_is_a_run(
    tiny: NewsConfig, own_logs: Path
) -> None:
    with pytest.raises(UserError, match="has 2 layers"):
        train(tiny.model_copy(update={"freeze": 3}))
    assert not own_logs.exists()


def test_freezing_all_layers_of_a_network_without_a_head_is_refused(tmp_path: Path) -> None:
    backbone = tiny_models.bert(tmp_path, ["game"])
    with pytest.raises(UserError, match=r"nothing would be left to train.*freeze=1"):
        NewsConfig(backbone=str(backbone), freeze=2).check_machine()
    NewsConfig(backbone=str(backbone), freeze=2, loss="triplet").check_machine()
    NewsConfig(backbone=str(backbone), freeze=2, trained=False).check_machine()
    NewsConfig(backbone=str(backbone), freeze=1).check_machine()
