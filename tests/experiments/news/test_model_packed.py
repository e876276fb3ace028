from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, RobertaConfig

import tiny_models
from experiments.news import model as packed
from experiments.news.config import NewsConfig
from experiments.news.model import NewsModel
from experiments.news.train import TripletSet, train

WORDS = ["game", "team", "cup", "rain", "stock", "bank", "the", "in"]
ITEMS = [
    [" ".join(WORDS[:count]), " ".join(WORDS[-other:])] for count, other in ((4, 1), (1, 8), (8, 3), (4, 4))
]


@pytest.fixture(scope="module", params=["bert", "distilbert"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return getattr(tiny_models, request.param)(tmp_path_factory.mktemp(request.param), WORDS)


@pytest.fixture(autouse=True, params=[("cuda",), ("cpu",)], ids=["as on a CPU", "as on a GPU"])
def padded_on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "PADDED_ON", request.param)


def both(backbone: Path, pooling: str = "mean") -> tuple[NewsModel, NewsModel]:
    """The same network twice: with padding, and without."""
    settings = {"pooling": pooling, "text": "title+abstract", "loss": "triplet", "freeze": 0}
    config = NewsConfig.parse({"backbone": str(backbone)} | settings)
    torch.manual_seed(0)
    fast = NewsModel.pretrained(config).eval()
    plain = NewsModel.pretrained(config.model_copy(update={"fast": False})).eval()
    plain.load_state_dict(fast.state_dict())
    return plain, fast


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_without_padding_vectors_and_gradients_are_those_with_it(backbone: Path, pooling: str) -> None:
    plain, fast = both(backbone, pooling)
    weights = torch.linspace(-1, 1, 256)
    vectors = [model(model.tokenize(ITEMS).rows(range(4))) for model in (plain, fast)]
    for each in vectors:
        (each * weights).mean().backward()
    assert torch.allclose(*vectors, atol=1e-5)
    others = dict(fast.named_parameters())
    assert any(parameter.grad is not None for parameter in others.values())
    for name, parameter in plain.named_parameters():
        if parameter.grad is None:
            assert others[name].grad is None, name
        else:
            torch.testing.assert_close(others[name].grad, parameter.grad, atol=1e-5, rtol=1e-5)


def test_no_padding_reaches_the_linear_layers(backbone: Path) -> None:
    plain, fast = both(backbone)
    tokens = fast.tokenize(ITEMS).rows(range(4))
    seen = {}
    for model in (plain, fast):
        layer = next(each for each in model.backbone.modules() if isinstance(each, torch.nn.Linear))
        layer.register_forward_pre_hook(
            lambda _, given, model=model: seen.__setitem__(model, given[0].shape[:-1])
        )
        model(tokens)
    assert seen[fast].numel() == tokens.mask.sum() < seen[plain].numel()


def test_dropout_acts_in_training_alone(backbone: Path) -> None:
    _, fast = both(backbone)
    tokens = fast.tokenize(ITEMS).rows(range(4))
    assert torch.equal(fast(tokens), fast(tokens))
    fast.train()
    assert not torch.equal(fast(tokens), fast(tokens))


def test_dropout_of_attention_alone_acts_too(backbone: Path) -> None:
    _, fast = both(backbone)
    fast.train()
    for module in fast.modules():
        if isinstance(module, torch.nn.Dropout) and "Attention" not in type(module).__name__:
            module.p = 0.0
    tokens = fast.tokenize(ITEMS).rows(range(4))
    assert torch.equal(fast(tokens), fast(tokens))
    for module in fast.modules():
        if type(module).__name__.endswith("SelfAttention"):
            module.dropout.p = 0.5
    assert not torch.equal(fast(tokens), fast(tokens))


def test_a_padded_call_of_the_same_backbone_leaves_padding_out(backbone: Path) -> None:
    plain, fast = both(backbone)
    ids, mask = (each.flatten(0, 1) for each in fast.tokenize(ITEMS).rows(range(4))[:2])
    states = [model.backbone(input_ids=ids, attention_mask=mask).last_hidden_state for model in (plain, fast)]
    assert torch.allclose(*(each[mask.bool()] for each in states), atol=1e-6)


def test_another_architecture_keeps_its_own_attention() -> None:
    config = RobertaConfig(vocab_size=9, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    assert config.model_type not in packed.PACKABLE
    assert AutoModel.from_config(config, attn_implementation=None).config._attn_implementation == "sdpa"


@pytest.fixture
def without_dropout(article: NewsConfig, tmp_path: Path) -> NewsConfig:
    """Dropout draws by the shape of its input, and padding is part of that."""
    model = NewsModel.pretrained(article)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        setattr(model.backbone.config, name, 0.0)
    model.backbone.save_pretrained(tmp_path / "bert")
    for name in ("vocab.txt", "tokenizer_config.json"):
        (tmp_path / "bert" / name).write_bytes((Path(article.backbone) / name).read_bytes())
    return article.model_copy(update={"backbone": str(tmp_path / "bert")})


def losses(config: NewsConfig) -> list[float]:
    history = train(config).history()
    return (
        history[history["tag"].isin(["train/loss", "val/loss"])]
        .sort_values(["tag", "step"])["value"]
        .tolist()
    )


def test_both_ways_give_the_same_losses(without_dropout: NewsConfig) -> None:
    fast = losses(without_dropout)
    plain = losses(without_dropout.model_copy(update={"fast": False}))
    assert len(fast) == 12  # ten steps, two epochs
    assert fast == pytest.approx(plain, abs=1e-4)
    assert fast[-1] < fast[0]


def test_a_training_is_resumed_the_other_way(without_dropout: NewsConfig) -> None:
    whole = losses(without_dropout)
    train(without_dropout.model_copy(update={"epochs": 1}))
    resumed = losses(without_dropout.model_copy(update={"resume": "last", "fast": False}))
    assert resumed == pytest.approx(whole, abs=1e-4)


def test_accumulated_gradients_of_two_batches_are_those_of_one_twice_as_large(
    without_dropout: NewsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(TripletSet, "shuffled")  # else a batch's triplets depend on its size
    large = without_dropout.model_copy(update={"batch_size": 18, "test": 0})
    halves = large.model_copy(update={"batch_size": 9, "accumulate_grad_batches": 2})
    one, two = (train(config) for config in (large, halves))
    assert len(one.examples.training) % 18 == 0  # else the last step would be one of less
    assert two.metrics["validation"]["trained"] == pytest.approx(
        one.metrics["validation"]["trained"], abs=1e-4
    )
    curves = [result.history().query("tag == 'val/loss'") for result in (one, two)]
    assert curves[0]["step"].tolist() == curves[1]["step"].tolist()


def test_an_accumulating_training_that_is_resumed_equals_one_that_did_not_stop(
    without_dropout: NewsConfig,
) -> None:
    config = without_dropout.model_copy(update={"accumulate_grad_batches": 2})
    whole = losses(config)
    train(config.model_copy(update={"epochs": 1}))
    assert losses(config.model_copy(update={"resume": "last"})) == whole
