"""A BERT of a few thousand random weights, read with its attention kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import tiny_models
from experiments.attention.config import AttentionConfig
from experiments.attention.data import readers
from experiments.attention.scores import mentions

if TYPE_CHECKING:
    from pathlib import Path

    from experiments.attention.capture import Reader

WORDS = ["play", "##ing", "the", "king", "queen", "waved", "and", "was", "good", "bad", ".", ","]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sentences = {word for each in mentions() for word in (each.pronoun, each.antecedent)}
    words = [*WORDS, *sorted(sentences - set(WORDS))]
    return tiny_models.bert(tmp_path_factory.mktemp("tiny-bert"), words)


@pytest.fixture
def reader(tiny_bert: Path) -> Reader:
    (found,) = readers(AttentionConfig(backbone=str(tiny_bert)))
    return found
