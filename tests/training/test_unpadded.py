"""Padding is left out, and nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers

from trainlab.errors import UserError
from trainlab.training import unpadded as module
from trainlab.training.unpadded import packed, unpadded

BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
LENGTHS = (3, 9, 5, 3, 12, 1)


def made(kind: str) -> transformers.PreTrainedModel:
    """Return a small model without dropout, whose numbers would differ."""
    torch.manual_seed(0)
    if kind == "bert":
        sizes = BERT | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        return transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=50, **sizes))
    sizes = DISTILBERT | {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}
    config = transformers.DistilBertConfig(vocab_size=50, **sizes)
    return transformers.DistilBertForSequenceClassification(config)


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    ids = torch.randint(1, 50, mask.shape, generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1] * 3)}


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_losses_and_gradients_are_those_of_padded_batches(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = made(kind)
    ours = unpadded(copy.deepcopy(plain))
    widths = []
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        module.functional,
        "scaled_dot_product_attention",
        lambda query, *rest, **more: widths.append(tuple(query.shape[::2])) or attend(query, *rest, **more),
    )
    found = ours(**batch())
    assert widths == [(1, 1), (2, 3), (1, 5), (1, 9), (1, 12)] * 2, "texts of each length, without padding"
    expected = plain(**batch())
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-6, rtol=0)
    for network in (found, expected):
        network.loss.backward()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_hidden_states_are_padded_where_somebody_asks_for_them(kind: str) -> None:
    plain = made(kind).eval()
    ours = unpadded(copy.deepcopy(plain))
    expected, found = (each(**batch(), output_hidden_states=True).hidden_states for each in (plain, ours))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_batches_without_padding_or_with_some_on_the_left_stay_as_they_are() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    assert packed(mask) is not None
    assert packed(mask.flip(1)) is None
    assert packed(torch.ones(2, 3)) is None
    assert packed(None) is None


def test_any_other_model_is_refused() -> None:
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 50}
    with pytest.raises(UserError, match="bert and distilbert, not gpt2"):
        unpadded(transformers.GPT2Model(transformers.GPT2Config(**sizes)))
