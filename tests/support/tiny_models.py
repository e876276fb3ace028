"""Models of a few thousand random weights, for tests to train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def bert(folder: Path, words: Sequence[str]) -> Path:
    """Write a BERT, and a WordPiece vocabulary of these words, into a folder; return that."""
    size = _vocabulary(folder, words)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)  # the same weights each time: what learns from them, learns again
    BertModel(BertConfig(vocab_size=size, **sizes)).save_pretrained(folder)
    return folder


def distilbert(folder: Path, words: Sequence[str]) -> Path:
    """Write a DistilBERT, and a WordPiece vocabulary of these words, into a folder; return that."""
    size = _vocabulary(folder, words)
    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=size, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
    DistilBertModel(config).save_pretrained(folder)
    return folder


def _vocabulary(folder: Path, words: Sequence[str]) -> int:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return len(vocabulary)
