"""The sentiment experiment's settings: the notebook's parameters and the command line's keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainlab.config import path_or
from trainlab.training.config import FineTuneConfig

PathOrName = Annotated[str, Field(min_length=1), path_or("sample", "imdb", "minilm")]


class SentimentConfig(FineTuneConfig):
    """Settings of the sentiment experiment (after "Mastering Transformers", chapters 5 and 11).

    Data: `data` is sample, imdb or the path of a CSV or Parquet table with the columns text and label (0 or
    1). Of a table the shares `validation` and `test` are held out, with as many of each label as there are in
    the whole: what is chosen by is drawn by `seed`, the test is the same for every seed. imdb comes in the
    chapter's slices.

    Network: `backbone` is minilm, a Hub id or a folder; it reads the first `max_tokens` of a review.

    Training: the defaults fit the sample. The chapter's own: data=imdb backbone=distilbert-base-uncased
    max_tokens=512 epochs=3 batch_size=16 learning_rate=5e-5 warmup_steps=100 logging_steps=50
    metric_for_best=val/loss precision=16-mixed.
    """

    data: PathOrName = "sample"
    validation: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.25, gt=0, lt=1)
    backbone: PathOrName = "minilm"
    max_tokens: int = Field(128, ge=3, le=512)
    epochs: int = Field(6, ge=1)
    batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(15, ge=0)
    logging_steps: int = Field(4, ge=1)
    metric_for_best: Literal["last", "val/loss", "val/accuracy", "val/f1", "val/precision", "val/recall"] = (
        "last"
    )

    def check_machine(self) -> None:
        """Check that this machine has the device and can get the backbone; raise UserError otherwise."""
        from trainlab import hub

        super().check_machine()
        hub.locate(self.backbone)
