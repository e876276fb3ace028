"""What is looked at: the notebook's parameters and the command line's keys."""

from __future__ import annotations

from pydantic import Field

from trainlab.config import Config

OWN = "auto"  # the run's own backbone


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
