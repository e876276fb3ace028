"""Reviews of a few words, and a BERT of a few thousand weights: what the tests train on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import tiny_models
from experiments.sentiment.config import SentimentConfig

GOOD = ["lovely", "warm", "funny", "clever", "moving"]
BAD = ["dull", "cold", "clumsy", "silly", "endless"]
WORDS = ["the", "film", "was", "and", "plot", "cast", "music", *GOOD, *BAD]


def reviews(count: int = 80) -> pd.DataFrame:
    """Return so many different reviews, every other one good, each of two words of its label."""
    rows = []
    for number in range(count):
        words = (BAD, GOOD)[number % 2]
        first, second, what = number // 2 % 5, number // 10 % 5, number // 50 % 3
        text = f"the {('film', 'plot', 'cast')[what]} was {words[first]} and {words[second]}"
        rows.append((text, number % 2))
    return pd.DataFrame(rows, columns=["text", "label"])


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of a few thousand random weights that knows these words."""
    return tiny_models.bert(tmp_path_factory.mktemp("tiny-bert"), WORDS)


@pytest.fixture(scope="session")
def reviews_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty different reviews."""
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    reviews().to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def tiny(tiny_bert: Path, reviews_csv: Path) -> SentimentConfig:
    """Settings that train in a second."""
    return SentimentConfig(
        data=str(reviews_csv),
        backbone=str(tiny_bert),
        batch_size=8,
        epochs=4,
        learning_rate=5e-3,
        warmup_steps=2,
        logging_steps=2,
        metric_for_best="val/loss",
        seed=1,
        num_workers=0,
        accelerator="cpu",
    )
