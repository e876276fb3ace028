"""The news experiment's settings: the notebook's parameters and the command line's keys."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from trainlab.config import path_or
from trainlab.errors import UserError
from trainlab.training.config import TrainingConfig

PathOrName = Annotated[str, Field(min_length=1), path_or("sample", "mind-small", "minilm")]

Pooling = Literal["mean", "cls"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

TRIPLET_ALONE = ("margin", "head_learning_rate", "batch_size", "mining", "average")  # settings of that loss


class NewsConfig(TrainingConfig):
    """Settings of the news experiment (after V. Visheratin, "Deep learning with containers", 2021).

    Data: `data` is sample, mind-small or the path of a news.tsv; `text` says what of an item is read;
    `class_size` items of a category at most are drawn, each the anchor of `triplets_per_item` triplets;
    categories with fewer than `min_class_items` items are left out. `split=item` makes three parts: the share
    `test` of the items, the same whatever the seed, is measured once, at the end; the share `validation`
    chooses the epoch, and settings; the network learns from the rest. `split=triplet` holds out triplets, as
    the original did, and has no test part.

    Network: `backbone` is minilm, a Hub id or a folder; `pooling` makes one vector of its tokens, at most
    `max_tokens` of them. `trained=false` measures the backbone as it is.

    Training: AdamW with `learning_rate`. A step takes `items_per_class` items from each of
    `classes_per_batch` categories. With `loss=contrastive` vectors have length 1, and each item is drawn to
    those of its category against all others of the step, the nearer the more, as the `temperature` falls;
    the share `subcategories` of the loss is that of the second label, the rest that of the category.

    `loss=triplet` is the original's: a head on the backbone, with a `head_learning_rate` of its own, and
    Euclidean distances that keep a `margin`. A step takes `batch_size` of the triplets drawn with
    `mining=sampled`, such as share items; with `all` and `hard` it takes the items that a contrastive one
    does, and either every triplet among them, `average` being over all or over those that violate the margin,
    or each anchor's hardest.

    With `freeze=4` the backbone's token embeddings and its lowest four layers stay as published, without
    dropout; with `fast` they are computed once for all epochs.

    `fast` leaves padding out of what a BERT or DistilBERT computes, and fuses AdamW's steps; `fast=false` is
    the plain way to the same losses, but for the numbers that dropout draws.
    """

    data: PathOrName = "sample"
    text: Literal["title", "title+abstract"] = "title"
    class_size: int = Field(60, ge=1)
    triplets_per_item: int = Field(5, ge=1)
    min_class_items: int = Field(1, ge=1)
    split: Literal["item", "triplet"] = "item"
    validation: float = Field(0.2, gt=0, lt=1)
    test: float = Field(0.2, ge=0, lt=1)
    backbone: PathOrName = "minilm"
    pooling: Pooling = "mean"
    max_tokens: int = Field(40, ge=3, le=512)
    trained: bool = True
    loss: Literal["contrastive", "triplet"] = "contrastive"
    temperature: float = Field(0.2, gt=0)
    subcategories: float = Field(0.5, ge=0, le=1)
    margin: float = Field(3.0, gt=0)
    epochs: int = Field(5, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    head_learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(256, ge=1)
    mining: Literal["sampled", "all", "hard"] = "sampled"
    average: Literal["all", "violating"] = "all"
    classes_per_batch: int = Field(16, ge=2)
    items_per_class: int = Field(8, ge=2)
    freeze: int = Field(2, ge=0)
    fast: bool = True
    monitor: str = Field("val/precision_at_10", min_length=1)  # the loss grows with the margin

    # Like another device: the same network is learned, with other random numbers in dropout.
    MAY_CHANGE: ClassVar[frozenset[str]] = TrainingConfig.MAY_CHANGE | {"fast"}

    def without_effect(self) -> list[str]:
        """Return the settings that differ from their defaults and are another loss's."""
        others = TRIPLET_ALONE if self.loss == "contrastive" else ("temperature", "subcategories")
        return [name for name in self.changes() if name in others]

    def check_machine(self) -> None:
        """Check that this machine has the device and can get the backbone, with layers enough to freeze.

        Raises UserError otherwise.
        """
        from trainlab import hub

        super().check_machine()
        source = hub.locate(self.backbone)
        layers = hub.layer_count(source) if self.freeze else 0
        if self.freeze > layers:
            raise UserError(
                f"freeze={self.freeze}: {self.backbone} has {layers} layers. Expected that many at most."
            )
        if self.trained and self.freeze and self.freeze == layers and self.loss == "contrastive":
            raise UserError(
                f"freeze={self.freeze}: {self.backbone} has {layers} layers, and without a head "
                "(loss=contrastive) nothing would be left to train. Expected fewer: "
                f"freeze={layers - 1}"
            )
