"""What is looked at: the notebook's parameters and the command line's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from trainlab import hub
from trainlab.config import Config
from trainlab.run import record
from trainlab.run.find import find

if TYPE_CHECKING:
    from pathlib import Path

    from experiments.attention.capture import Reader

    pass  # FOLDED


OWN = "auto"


class AttentionConfig(Config):
    """Settings of the look at attention.

    `run` is a sentiment run, whose network is looked at beside the one that its training started from;
    without it the `backbone` is looked at alone. `backbone=auto` is the run's own, or minilm. The views show
    `sentence`; the scores are means over the first `texts` of the reviews that the sentiment experiment holds
    out of `data` as its test, of each its first `max_tokens`.
    """

    run: str = ""
    backbone: str = Field(OWN, min_length=1)
    data: str = Field("sample", min_length=1)
    texts: int = Field(100, ge=1)
    max_tokens: int = Field(64, ge=32, le=512)  # our sentences with pronouns are never cut
    sentence: str = Field(
        "The queen thanked the boy because he had saved a wonderful film.", min_length=1, max_length=250
    )

    def preflight(self) -> None:
        """Check the run, the backbone and the data; raise UserError where there is no such thing."""
        from trainlab import hub

        hub.locate(backbone(self))
        reviews(self)


EXPERIMENT = "sentiment"


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
    from experiments.attention.capture import Reader

    found = [_before(backbone(config), config.max_tokens)]
    if config.run:
        from experiments.sentiment import model

        run = _run(config)
        tuned = model.load(run)
        found.append(Reader(f"fine-tuned: {run.name}", tuned.model, tuned.tokenizer, config.max_tokens))
    return found


def _run(config: AttentionConfig) -> Path:
    from trainlab.run.restoring import BEST

    return find(config.run, experiment=EXPERIMENT, having=BEST)


def _before(name: str, max_tokens: int) -> Reader:
    from transformers import AutoModel

    from experiments.attention.capture import Reader

    hub.quiet()
    source = hub.locate(name)
    network = hub.load(AutoModel, source)
    return Reader(name, network, hub.load_tokenizer(source, max_tokens), max_tokens)


def reviews(config: AttentionConfig) -> list[str]:
    """Return the texts of the scores: held out of the training, since the rest may be known by heart.

    Raises UserError for data that the sentiment experiment can't use either.
    """
    from experiments.sentiment import data
    from experiments.sentiment.config import SentimentConfig

    return data.draw(SentimentConfig.parse({"data": config.data})).test["text"].tolist()[: config.texts]
