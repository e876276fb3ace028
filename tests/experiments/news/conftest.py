"""News of a few words, and a BERT of a few thousand weights: what the tests train on."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_models
from experiments.news import tokens
from experiments.news.config import NewsConfig
from experiments.news.train import Result, train

CATEGORIES = {
    "sports": ["game", "team", "coach", "win", "cup"],
    "finance": ["stock", "market", "bank", "fund", "price"],
    "weather": ["rain", "storm", "snow", "wind", "sun"],
}
WORDS = [word for words in CATEGORIES.values() for word in words]


def line(number: int, category: str, title: str, abstract: str = "", subcategory: str = "") -> str:
    return f"N{number}\t{category}\t{subcategory or category}\t{title}\t{abstract}\t\t[]\t[]\n"


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of a few thousand random weights that knows these words."""
    return tiny_models.bert(tmp_path_factory.mktemp("tiny-bert"), ["in", "day", "the", *WORDS])


@pytest.fixture(scope="session")
def news_tsv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three categories of fifteen titles, each of two of its category's own words; some have abstracts."""
    path = tmp_path_factory.mktemp("news") / "news.tsv"
    rows = [
        (category, f"{first} in the {second}", f"the {second} day" if number % 2 else "")
        for category, words in CATEGORIES.items()
        for number, first in enumerate(words)
        for second in words[:3]
    ]
    path.write_text("".join(line(i, *row) for i, row in enumerate(rows)))
    return path


@pytest.fixture(scope="session")
def tiny(tiny_bert: Path, news_tsv: Path) -> NewsConfig:
    """Settings that train in a second."""
    return NewsConfig(
        data=str(news_tsv),
        backbone=str(tiny_bert),
        class_size=8,
        triplets_per_item=3,
        batch_size=16,
        classes_per_batch=2,
        items_per_class=3,
        learning_rate=1e-4,
        freeze=0,
        epochs=2,
    )


@pytest.fixture(scope="session")
def article(tiny: NewsConfig) -> NewsConfig:
    """The same with the article's loss and head."""
    return tiny.model_copy(update={"loss": "triplet"})


@pytest.fixture(scope="module")
def result(tiny: NewsConfig, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A training with these settings; the model is the tests' of one file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINLAB_LOGS", str(tmp_path_factory.mktemp("logs")))
        patch.delenv("TRAINLAB_RUN", raising=False)
        return train(tiny)


@pytest.fixture(autouse=True)
def own_tokens(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tokens that the user has kept are none of the tests' business."""
    folder = tmp_path_factory.mktemp("data") / "tokens"
    monkeypatch.setattr(tokens, "tokens_folder", lambda: folder)
    return folder
