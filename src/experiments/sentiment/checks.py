"""The sentiment experiment as a subject of the checks before training.

The checks know Lightning's modules: `Module` and `Data` hand them the network and the batches that the
experiment gives to the Trainer of Transformers.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import lightning
import torch
import transformers
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.sentiment.config import SentimentConfig
from experiments.sentiment.data import Reviews, draw
from experiments.sentiment.metrics import measure
from experiments.sentiment.model import Classifier
from experiments.sentiment.train import tfidf
from trainlab.checks.subject import Items, Subject
from trainlab.cleaning import text_key
from trainlab.training.dropout import quick_dropout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedModel

SIDES = {"train": "training", "validation": "validation", "test": "test"}
# Little enough for all checks together to take a few minutes on two cores; few reviews are longer
SMALL = {"max_tokens": 96}
SMALLER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}


def subject(settings: Mapping[str, Any]) -> SentimentSubject:
    """Return the subject under these settings; those not given are `SMALL`, or the experiment's defaults.

    Raises UserError for settings, data or a backbone that can't be used.
    """
    config = SentimentConfig.parse(SMALL | SentimentConfig.named(settings))
    config.check_machine()
    return SentimentSubject(config)


class Module(lightning.LightningModule):
    """The network as Lightning has it."""

    def __init__(self, model: PreTrainedModel, config: SentimentConfig) -> None:
        super().__init__()
        self.model, self._config = quick_dropout(model), config

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the scores [N, 2] of a batch."""
        return self.model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross entropy, as the network itself says it."""
        return self.model(**batch).loss

    def validation_step(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the scores [N, 2]."""
        return self(batch)

    def configure_optimizers(self) -> Any:
        """Return AdamW, its rate falling to 0 as in the experiment: so few steps end near where they lead."""
        rate, decay = self._config.learning_rate, self._config.weight_decay
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate, weight_decay=decay)
        steps = self._config.warmup_steps, SentimentSubject.steps
        schedule = transformers.get_linear_schedule_with_warmup(optimizer, *steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Data(lightning.LightningDataModule):
    """Training, validation and test in batches."""

    def __init__(self, reviews: Reviews, classifier: Classifier, batch_size: int) -> None:
        super().__init__()
        self._loader = partial(DataLoader, batch_size=batch_size, collate_fn=classifier.collate)
        self._parts = classifier.encode(reviews)

    def train_dataloader(self) -> DataLoader:
        """Return batches to train on, shuffled anew each epoch."""
        return self._loader(self._parts["training"], shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Return batches of the reviews that are looked at while it trains."""
        return self._loader(self._parts["validation"])

    def test_dataloader(self) -> DataLoader:
        """Return batches of the reviews that nothing is chosen by."""
        return self._loader(self._parts["test"])


class SentimentSubject(Subject):
    """Reviews, and the network that classifies them."""

    steps = 120
    overfit_steps = 60

    def __init__(self, config: SentimentConfig) -> None:
        self.config, self.reviews = config, draw(config)
        self.classifier = Classifier.pretrained(config)  # for its tokenizer
        super().__init__("sentiment", self._module, self._data, classes=2)

    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the labels [N]."""
        return batch["labels"]

    def zeroed(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the same labels of reviews that are all one and the same token."""
        first = torch.zeros_like(batch["attention_mask"])
        first[:, 0] = 1
        return batch | {"input_ids": torch.zeros_like(batch["input_ids"]), "attention_mask": first}

    def outputs(self, module: Module, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        """Return the scores [N, 2]."""
        return module(batch)

    def slow(self, module: Module, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        """Return the scores made review by review, each alone and unpadded."""
        rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
        alone = [
            {"input_ids": ids[mask > 0][None], "attention_mask": mask[mask > 0][None]} for ids, mask in rows
        ]
        return torch.cat([module(each) for each in alone])

    def smaller(self) -> Module:
        """Return a network of one narrow layer, untrained."""
        config = copy.deepcopy(self.classifier.model.config)
        for name, size in SMALLER.items():
            setattr(config, name, size)
        return Module(type(self.classifier.model)(config), self.config)

    def decode(self, batch: dict[str, Tensor]) -> list[str]:
        """Return the texts that the ids mean."""
        return self.classifier.tokenizer.decode_batch(batch["input_ids"].tolist())

    def texts(self, data: Data, rows: Sequence[int]) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        """Return the reviews of these rows of the training set."""
        return self.reviews.training["text"].iloc[list(rows)].tolist()

    def describe(self, module: Module, batch: dict[str, Tensor]) -> list[str]:  # type: ignore[override]
        """Return a line a review: how probable it is positive, what is right, and how it begins."""
        found = module(batch).softmax(-1)[:, 1].tolist()
        lines = zip(found, batch["labels"].tolist(), self.decode(batch), strict=True)
        return [f"{positive:.2f} (right: {label}): {text}" for positive, label, text in lines]

    def items(self, data: Data, split: str) -> Items:  # type: ignore[override]  # noqa: ARG002
        """Return a part's reviews; equal texts are the same item."""
        table = self.reviews.parts()[SIDES[split]]
        lengths = [len(text.split()) for text in table["text"]]
        return Items(table["text"].map(text_key).tolist(), table["label"].tolist(), lengths)

    def baselines(self, data: Data) -> dict[str, float]:  # type: ignore[override]
        """Return the accuracy in validation of the commonest label, and of TF-IDF."""
        held = self.reviews.validation
        words = measure(held["label"].to_numpy(), tfidf(self.reviews.training, held["text"]))["accuracy"]
        return super().baselines(data) | {"TF-IDF": words}

    def _module(self) -> Module:
        return Module(Classifier.pretrained(self.config).model, self.config)

    def _data(self) -> Data:
        return Data(self.reviews, self.classifier, self.config.batch_size)
