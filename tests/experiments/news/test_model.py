from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from experiments.news.config import NewsConfig
from experiments.news.model import Batch, Group, NewsModel, build_head, contrastive, pool
from experiments.news.train import TripletSet
from trainlab.run import checkpoint
from trainlab.run.restoring import restore

ITEMS = [
    ["game in the cup"],
    ["rain"],
    ["stock market bank fund price"],
    ["the team win the game in the day"],
]


@pytest.fixture(scope="module")
def model(article: NewsConfig) -> NewsModel:
    torch.manual_seed(0)
    return NewsModel.pretrained(article).eval()


def widths(head: torch.nn.Sequential) -> list[tuple[int, int]]:
    return [(each.in_features, each.out_features) for each in head if isinstance(each, torch.nn.Linear)]


def test_the_heads_are_the_articles() -> None:
    assert widths(build_head(768, 1)) == [(768, 512), (512, 256)]
    assert widths(build_head(768, 2)) == [(1536, 1024), (1024, 512), (512, 256)]
    assert [type(each).__name__ for each in build_head(768, 1)] == ["Linear", "GELU", "Linear"]


def test_pooling_leaves_padding_out() -> None:
    states = torch.tensor([[[1.0], [3.0], [100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool(states, mask, "mean").item() == 2
    assert pool(states, mask, "cls").item() == 1


def test_tokens_are_the_backbones_own_and_cut(tiny: NewsConfig, tiny_bert: Path) -> None:
    model = NewsModel.pretrained(tiny.model_copy(update={"max_tokens": 5}))
    tokens = model.tokenize(ITEMS).rows(range(4))
    theirs = AutoTokenizer.from_pretrained(tiny_bert)
    expected = theirs([text for (text,) in ITEMS], truncation=True, max_length=5, padding=True)
    assert tokens.ids.squeeze(1).tolist() == expected["input_ids"]
    assert tokens.mask.squeeze(1).tolist() == expected["attention_mask"]
    assert tokens.ids.shape == (4, 1, 5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("text", ["title", "title+abstract"])
def test_many_at_once_equal_one_by_one(
    article: NewsConfig, pooling: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.news.model.PADDED_AT_ONCE", 3)
    model = NewsModel.pretrained(article.model_copy(update={"pooling": pooling, "text": text})).eval()
    items = ITEMS if text == "title" else [[title, "the day"] for (title,) in ITEMS]
    together = model.embed(model.tokenize(items))
    alone = torch.cat([model.embed(model.tokenize([item])) for item in items])
    assert together.shape == (4, 256)
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_batch_encodes_each_item_once_and_loses_nothing(
    model: NewsModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "log", lambda *args, **kwargs: None)
    table = model.tokenize(ITEMS)
    tokens = table.rows(range(4))
    triplets = torch.tensor([[0, 3, 1], [3, 0, 2], [0, 3, 2]])
    drawn = TripletSet(table, triplets.numpy(), np.array([0, 1, 1, 0]))
    assert len(drawn.__getitems__([0, 2]).tokens.ids) == 4
    assert len(drawn.__getitems__([0, 0]).tokens.ids) == 3
    vectors = model(tokens)
    a, p, n = vectors[triplets].unbind(1)
    slow = torch.relu((a - p).norm(dim=1) - (a - n).norm(dim=1) + model.hparams["margin"]).mean()
    fast = model.training_step(Batch(tokens, triplets))
    assert torch.allclose(fast, slow, atol=1e-4)


def test_a_batch_of_several_items_leaks_nothing_between_them(model: NewsModel) -> None:
    tokens = model.tokenize(ITEMS).rows(range(4))
    before = model(tokens)
    other = tokens.ids.clone()
    other[1] = tokens.ids[0]
    after = model(tokens._replace(ids=other))
    assert torch.equal(before[[0, 2, 3]], after[[0, 2, 3]])
    assert not torch.equal(before[1], after[1])


def test_embedding_leaves_the_module_in_its_mode(model: NewsModel) -> None:
    model.train()
    first = model.embed(model.tokenize(ITEMS))
    assert model.training
    assert torch.equal(first, model.embed(model.tokenize(ITEMS)))
    model.eval()


def test_a_checkpoint_restores_without_backbone_and_hub(
    model: NewsModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    checkpoint.save(state, tmp_path / "best.ckpt")
    monkeypatch.setattr("trainlab.hub.locate", None)
    restored = restore(NewsModel, tmp_path / "best.ckpt")
    assert np.array_equal(model.tokenize(ITEMS).ids, restored.tokenize(ITEMS).ids)
    assert torch.equal(model.embed(model.tokenize(ITEMS)), restored.embed(restored.tokenize(ITEMS)))


@pytest.mark.parametrize("loss", ["contrastive", "triplet"])
def test_an_untrained_model_embeds_as_its_backbone(tiny: NewsConfig, loss: str) -> None:
    model = NewsModel.pretrained(tiny.model_copy(update={"trained": False, "loss": loss}))
    tokens = model.tokenize(ITEMS)
    raw = model.embed_raw(tokens)
    expected = raw / raw.norm(dim=1, keepdim=True) if loss == "contrastive" else raw
    assert torch.allclose(model.embed(tokens), expected, atol=1e-6)


def test_a_checkpoint_of_before_there_was_another_loss_keeps_its_head(article: NewsConfig) -> None:
    known = dict(NewsModel.pretrained(article).hparams)
    del known["loss"], known["temperature"], known["subcategories"]
    assert isinstance(NewsModel(**known).head, torch.nn.Sequential)


def test_the_head_has_its_own_learning_rate(model: NewsModel) -> None:
    groups = model.configure_optimizers().param_groups
    assert [group["lr"] for group in groups] == [
        model.hparams["learning_rate"],
        model.hparams["head_learning_rate"],
    ]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


@pytest.mark.slow
def test_the_bundled_minilm_knows_what_is_alike() -> None:
    model = NewsModel.pretrained(NewsConfig(trained=False))
    titles = ["Storm warning for the coast", "Hurricane nears the shore", "Bank raises interest rates"]
    storm, hurricane, bank = model.embed(model.tokenize([[title] for title in titles]))
    assert storm.shape == (384,)
    assert torch.dist(storm, hurricane) < torch.dist(storm, bank)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_second_label_has_its_share_of_the_loss(
    tiny: NewsConfig, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = NewsModel.pretrained(tiny.model_copy(update={"subcategories": share})).eval()
    monkeypatch.setattr(model, "log", lambda *args, **kwargs: None)
    tokens = model.tokenize(ITEMS).rows(range(4))
    labels, finer = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 0])
    vectors = model(tokens)
    parts = [contrastive(vectors, each, tiny.temperature) for each in (labels, finer)]
    expected = (1 - share) * parts[0] + share * parts[1]
    torch.testing.assert_close(model.training_step(Group(tokens, labels, finer)), expected)
