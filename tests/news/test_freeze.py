from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny_models
from trainlab.errors import UserError
from trainlab.news.config import NewsConfig
from trainlab.news.experiment import train
from trainlab.news.model import NewsModel


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
    tokens = model.tokenize([["game game"], ["game"]]).all()
    assert model.training
    assert torch.equal(model(tokens), model(tokens))
    assert not [each for each in model.frozen() for part in each.modules() if part.training]


def test_the_frozen_run_goes_on_as_if_it_had_not_stopped(tiny: NewsConfig) -> None:
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
