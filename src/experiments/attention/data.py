"""What is looked at: a sentiment run's network, the one that its training started from, and reviews."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.attention.config import OWN, AttentionConfig
from experiments.sentiment.config import SentimentConfig
from experiments.sentiment.data import draw
from trainlab import find, hub
from trainlab.run import record
from trainlab.run.restoring import BEST

if TYPE_CHECKING:
    from pathlib import Path

    from experiments.attention.capture import Reader


def backbone(config: AttentionConfig) -> str:
    """Return the network that a run's training started from; raises UserError for an unknown run."""
    if config.backbone != OWN:
        return config.backbone
    if not config.run:
        return hub.MINILM
    return str(record.read(_run(config)).config.get("backbone", hub.MINILM))


def readers(config: AttentionConfig) -> list[Reader]:
    """Return the network before fine-tuning, and where there is a run the one after it.

    Raises UserError for an unknown run, one without a checkpoint, or a backbone that can't be had.
    """
    from transformers import AutoModel  # here: it takes seconds, and wrong settings are refused without it

    from experiments.attention.capture import Reader
    from experiments.sentiment import model

    hub.quiet()
    name, size = backbone(config), config.max_tokens
    source = hub.locate(name)
    found = [Reader(name, hub.load(AutoModel, source), hub.load_tokenizer(source, size), size)]
    if config.run:
        run = _run(config)
        tuned = model.load(run)
        found.append(Reader(f"fine-tuned: {run.name}", tuned.model, tuned.tokenizer, size))
    return found


def _run(config: AttentionConfig) -> Path:
    return find(config.run, experiment="sentiment", having=BEST)


def reviews(config: AttentionConfig) -> list[str]:
    """Return the texts of the scores: held out of the training, since the rest may be known by heart.

    Raises UserError for data that the sentiment experiment can't use either.
    """
    return draw(SentimentConfig.parse({"data": config.data})).test["text"].tolist()[: config.texts]


def preflight(config: AttentionConfig) -> None:
    """Check the run, the backbone and the data; raise UserError where there is no such thing."""
    hub.locate(backbone(config))
    reviews(config)
