"""What the notebook shows, of one network and of two."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from experiments.attention.config import AttentionConfig
from experiments.attention.data import reviews
from experiments.attention.views import look
from experiments.sentiment.config import SentimentConfig
from experiments.sentiment.train import train
from trainlab.errors import UserError


@pytest.fixture(scope="module")
def tuned(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the sentiment experiment with the tiny network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINLAB_LOGS", str(tmp_path_factory.mktemp("logs")))
        config = SentimentConfig(
            backbone=str(tiny_bert), max_tokens=8, epochs=1, batch_size=64, accelerator="cpu"
        )
        return train(config).run


def test_without_a_run_the_backbone_is_looked_at_alone_and_that_is_said(tiny_bert: Path) -> None:
    study = look(AttentionConfig(backbone=str(tiny_bert), texts=2))
    assert "no fine-tuned network" in study.summary()
    assert study.head_view().data.count("<iframe") == 1
    assert len(study.best_heads()) == 5


def test_a_view_says_how_to_see_it_where_the_notebook_is_not_trusted(tiny_bert: Path) -> None:
    view = look(AttentionConfig(backbone=str(tiny_bert), texts=2)).head_view()
    page, data = InteractiveShell.instance().display_formatter.format(view)[0], view._repr_html_()
    assert page["text/plain"] == "<a view of attention: open the notebook in JupyterLab>"
    assert page["text/html"] == data
    hint = re.search(r'<p class="(.+?)">(.+?)</p>', data)
    assert "choose Trust Notebook" in hint[2]
    # Jupyter takes a frame out of what it doesn't trust: the words are seen where none stands behind them
    assert f"<style>.{hint[1]}:has(~ iframe) {{ display: none; }}</style>" in data[: data.index("<iframe")]


def test_a_runs_network_stands_beside_the_one_that_it_started_from(tuned: Path, tiny_bert: Path) -> None:
    study = look(AttentionConfig(run=str(tuned), texts=2))
    before, after = study.readers
    assert (before.name, after.name) == (str(tiny_bert), f"fine-tuned: {tuned.name}")
    assert "no fine-tuned network" not in study.summary()
    assert study.neuron_view().data.count("<iframe") == 2
    assert len(study.best_heads()) == 10
    first, second = (each.heads["separator"] for each in study.scores)
    assert not first.equal(second), "training changed something"
    assert len(study.matrices()) == 2


def test_a_run_that_is_none_is_named_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINLAB_LOGS", str(tmp_path))
    with pytest.raises(UserError, match="No run 'nothing'"):
        AttentionConfig(run="nothing").preflight()


def test_the_scores_are_over_reviews_that_were_held_out() -> None:
    from experiments.sentiment import data

    held_out = data.draw(SentimentConfig()).test["text"].tolist()
    assert reviews(AttentionConfig(texts=7)) == held_out[:7]
