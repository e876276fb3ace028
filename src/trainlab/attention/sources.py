"""Which networks are looked at, and with which texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainlab import backbones
from trainlab.attention.config import OWN
from trainlab.runs import find, record

if TYPE_CHECKING:
    from pathlib import Path

    from trainlab.attention.capture import Reader
    from trainlab.attention.config import AttentionConfig

EXPERIMENT = "sentiment"


def backbone(config: AttentionConfig) -> str:
    """Return the network that a run's training started from; raises UserError for an unknown run."""
    if config.backbone != OWN:
        return config.backbone
    if not config.run:
        return backbones.MINILM
    return str(record.read(_run(config)).config.get("backbone", backbones.MINILM))


def readers(config: AttentionConfig) -> list[Reader]:
    """Return the network before fine-tuning, and where there is a run the one after it.

    Raises UserError for an unknown run, one without a checkpoint, or a backbone that can't be had.
    """
    from trainlab.attention.capture import Reader

    found = [_before(backbone(config), config.max_tokens)]
    if config.run:
        from trainlab.sentiment import model

        run = _run(config)
        tuned = model.load(run)
        found.append(Reader(f"fine-tuned: {run.name}", tuned.model, tuned.tokenizer, config.max_tokens))
    return found


def _run(config: AttentionConfig) -> Path:
    from trainlab.training.restoring import BEST

    return find(config.run, experiment=EXPERIMENT, having=BEST)


def _before(name: str, max_tokens: int) -> Reader:
    from transformers import AutoModel

    from trainlab.attention.capture import Reader

    backbones.quiet()
    source = backbones.locate(name)
    network = backbones.load(AutoModel, source)
    return Reader(name, network, backbones.load_tokenizer(source, max_tokens), max_tokens)


def reviews(config: AttentionConfig) -> list[str]:
    """Return the texts of the scores: held out of the training, since the rest may be known by heart.

    Raises UserError for data that the sentiment experiment can't use either.
    """
    from trainlab.sentiment import SentimentConfig, data

    return data.draw(SentimentConfig.parse({"data": config.data})).test["text"].tolist()[: config.texts]
