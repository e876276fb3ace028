"""The captions experiment's settings: the notebook's parameters and the command line's keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainlab import hub
from trainlab.config import path_or
from trainlab.hub import Source
from trainlab.training.config import TrainingConfig

RATES = {"shapes": 2e-3, "coco": 3e-4}  # 3e-4: Deep Learning with PyTorch Lightning, chapter 10
TINY = "tiny"  # the encoder that starts at random
WAYS_OUT = (
    "encoder=tiny (the default) needs no hub; a model downloaded before works offline (HF_HUB_OFFLINE=1); a "
    "local folder with config.json and model.safetensors works too."
)


class CaptionsConfig(TrainingConfig):
    """Settings of image captioning (after "Deep Learning with PyTorch Lightning", chapter 10).

    Data: `shapes` draws `pictures` of coloured shapes to train on; `coco` reads `per_category` pictures of
    each of the chapter's four categories. The shares `validation` and `test` of the scenes, or of COCO's
    pictures, are held out. Words seen fewer than `min_word_count` times in training are unknown words.

    Network: `encoder` is tiny, the Hub id of a ResNet, or a folder; `train_encoder=false` leaves it as it
    comes. Its features are averaged over a grid of `grid` times `grid` cells (the chapter's: 1) and become a
    vector of `embedding_size`; an LSTM of `hidden_size` writes at most `max_words` words. `beam` captions are
    pursued at once when it is not in training; 1 is greedy.

    Training: Adam with `learning_rate` (auto: 0.002 for shapes, 0.0003 for COCO), falling to 0 in a straight
    line; `batch_size` captions a step.

    The chapter's own: data=coco encoder=microsoft/resnet-152 grid=1 hidden_size=512 batch_size=128.
    """

    data: Literal["shapes", "coco"] = "shapes"
    pictures: int = Field(4000, ge=2)
    per_category: int = Field(1000, ge=1)
    validation: float = Field(0.1, gt=0, lt=0.5)
    test: float = Field(0.1, gt=0, lt=0.5)
    min_word_count: int = Field(4, ge=1)
    encoder: Annotated[str, Field(min_length=1), path_or(TINY)] = TINY
    train_encoder: bool = True
    grid: int = Field(2, ge=1, le=7)
    embedding_size: int = Field(256, ge=1)
    hidden_size: int = Field(256, ge=1)
    max_words: int = Field(20, ge=1)
    beam: int = Field(1, ge=1)
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    batch_size: int = Field(32, ge=2)  # batch norm takes the mean of a batch
    epochs: int = Field(8, ge=1)

    @property
    def rate(self) -> float:
        """Return the learning rate at the start."""
        return RATES[self.data] if self.learning_rate == "auto" else self.learning_rate

    def check_machine(self) -> None:
        """Check that this machine has the device and can get the encoder; raise UserError otherwise."""
        super().check_machine()
        locate(self.encoder)


def locate(encoder: str) -> Source | None:
    """Find an encoder without loading it, in seconds at most; None for the one that starts at random.

    Raises UserError when the folder holds no model, the Hub knows no such model, or the Hub can't be reached
    and the model isn't in its cache.
    """
    return None if encoder == TINY else hub.fetch_snapshot("encoder", encoder, WAYS_OUT)
