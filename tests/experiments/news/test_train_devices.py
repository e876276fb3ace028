from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from experiments.news.config import NewsConfig
from experiments.news.train import train


@pytest.fixture
def without_dropout(article: NewsConfig, tmp_path: Path) -> NewsConfig:
    """Dropout draws by the shape of its input: two halves of a batch lose other numbers than the whole."""
    folder = Path(shutil.copytree(article.backbone, tmp_path / "bert"))
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(settings))
    return article.model_copy(update={"backbone": str(folder), "accelerator": "cpu", "batch_size": 8})


@pytest.mark.slow
def test_two_processes_learn_what_one_does(without_dropout: NewsConfig) -> None:
    alone = train(without_dropout)
    shared = train(without_dropout.model_copy(update={"devices": 2}))
    assert len(alone.examples.training) % 2 == 0  # else a last triplet would count twice
    columns = ["tag", "step"]
    first, second = (each.history().set_index(columns)["value"].sort_index() for each in (alone, shared))
    learned = first.index.get_level_values("tag").str.match("train/loss|val/")
    assert learned.sum() > 10
    assert first[learned].to_dict() == pytest.approx(second.reindex(first[learned].index).to_dict(), abs=1e-4)
    expected = alone.metrics["test"]["trained"]
    assert shared.metrics["test"]["trained"] == pytest.approx(expected, abs=1e-4)
    assert json.loads((shared.run / "run.json").read_text())["status"] == "finished"
