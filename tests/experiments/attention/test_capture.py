"""The attention of each text, as the network computes it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from experiments.attention.capture import Reader
from trainlab.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

SHORT, LONG = "the king", "the queen waved and the king was good ."


def test_each_token_spreads_all_of_its_attention(reader: Reader) -> None:
    for attention in reader.read([SHORT, LONG]):
        assert torch.allclose(attention.weights.sum(-1), torch.ones(attention.weights.shape[:3]), atol=1e-6)


def test_padding_is_ignored(reader: Reader) -> None:
    (alone,) = reader.read([SHORT])
    beside_a_longer_one, _ = reader.read([SHORT, LONG])
    assert beside_a_longer_one.tokens == alone.tokens == ["[CLS]", "the", "king", "[SEP]"]
    assert torch.allclose(beside_a_longer_one.weights, alone.weights, atol=1e-6)
    assert torch.allclose(beside_a_longer_one.keys, alone.keys, atol=1e-6)


def test_tokens_line_up_with_the_pieces_of_words(reader: Reader) -> None:
    (attention,) = reader.read(["the king playing ."])
    assert attention.tokens == ["[CLS]", "the", "king", "play", "##ing", ".", "[SEP]"]
    assert attention.pieces(9, 16) == [3, 4]
    assert attention.special.tolist() == [True, *[False] * 5, True]
    assert attention.separators.nonzero().flatten().tolist() == [6]
    assert attention.weights.shape[2:] == (7, 7)


def test_the_weights_come_out_of_the_queries_and_the_keys(reader: Reader) -> None:
    (attention,) = reader.read([LONG])
    size = attention.queries.shape[-1]
    products = attention.queries @ attention.keys.transpose(2, 3) / math.sqrt(size)
    assert torch.allclose(products.softmax(-1), attention.weights, atol=1e-5)


def test_texts_longer_than_what_is_read_are_cut(tiny_bert: Path, reader: Reader) -> None:
    short = Reader("short", reader.model, reader.tokenizer, 5)
    (attention,) = short.read(["the king " * 50_000])
    assert attention.tokens == ["[CLS]", "the", "king", "the", "[SEP]"]


def test_distilberts_layers_are_found_by_their_names() -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(vocab_size=2, n_layers=3, dim=8, n_heads=2, hidden_dim=8)
    tokenizer = Tokenizer(WordLevel({"the": 0, "[UNK]": 1}, unk_token="[UNK]"))
    (attention,) = Reader("distil", DistilBertModel(config), tokenizer, 8).read(["the"])
    assert attention.weights.shape == (3, 2, 1, 1)
    assert attention.queries.shape == (3, 2, 1, 4)


def test_a_network_of_another_kind_is_named(reader: Reader) -> None:
    from transformers import GPT2Config, GPT2Model

    network = GPT2Model(GPT2Config(vocab_size=2, n_layer=1, n_embd=8, n_head=2))
    with pytest.raises(UserError, match=r"other: .* gpt2 .* Expected an encoder"):
        Reader("other", network, reader.tokenizer, 8)
