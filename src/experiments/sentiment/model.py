"""The network: a backbone with a classifier of two classes on top, and the tokens that it reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer
from torch.utils.data import Dataset
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from experiments.sentiment.data import LONGEST, Reviews
from experiments.sentiment.metrics import THRESHOLD
from trainlab import hub
from trainlab.errors import UserError
from trainlab.hub import load_tokenizer, locate, quiet
from trainlab.run import checkpoint, restoring

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from experiments.sentiment.config import SentimentConfig


AT_ONCE = 32  # reviews in one pass


@dataclass
class Classifier:
    """A network for the classification of texts, as Transformers has it, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: Tokenizer

    @classmethod
    def pretrained(cls, config: SentimentConfig) -> Self:
        """Return the backbone with its published weights and a fresh classifier on top.

        Raises UserError when the backbone can't be found (see `backbones.locate`), or classifies no texts.
        """
        quiet()
        source = locate(config.backbone)
        try:
            model = hub.load(AutoModelForSequenceClassification, source, num_labels=2)
        except ValueError as error:
            raise UserError(
                f"backbone={config.backbone} can't classify texts: {str(error).splitlines()[0]}"
            ) from None
        return cls(model, load_tokenizer(source, config.max_tokens))

    def encode(self, reviews: Reviews) -> dict[str, Encoded]:
        """Return the tokens and labels of the three parts by name."""
        return {
            side: Encoded(self.tokenizer, table["text"].tolist(), table["label"].tolist())
            for side, table in reviews.parts().items()
        }

    def save(self, path: Path, step: int) -> None:
        """Write the network as it was after so many steps, and all that `load` needs to build it again."""
        known = json.loads(self.model.config.to_json_string(use_diff=False))
        built_of = {"config": known, "tokenizer": self.tokenizer.to_str()}
        saved = {"state_dict": self.model.state_dict(), "hyper_parameters": built_of, "global_step": step}
        checkpoint.save(saved, path)

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the probability [N] that each text is positive; no dropout."""
        reviews = Encoded(self.tokenizer, texts)
        order = np.argsort([len(reviews[row]["input_ids"]) for row in range(len(texts))], kind="stable")
        found = np.empty(len(texts))
        self.model.eval()
        with torch.inference_mode():
            for start in range(0, len(order), AT_ONCE):
                rows = order[start : start + AT_ONCE]
                batch = self.collate([reviews[row] for row in rows])
                inputs = {name: values.to(self.model.device) for name, values in batch.items()}
                found[rows] = positive(self.model(**inputs).logits.double().cpu().numpy())
        return found

    def collate(self, reviews: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return reviews as one batch, padded to the longest of them."""
        assert self.tokenizer.padding is not None, "load_tokenizer enables it, and a checkpoint keeps it"
        padding = {"input_ids": self.tokenizer.padding["pad_id"], "attention_mask": 0}
        batch = {
            name: torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(review[name]) for review in reviews], batch_first=True, padding_value=value
            )
            for name, value in padding.items()
        }
        if "labels" in reviews[0]:
            batch["labels"] = torch.tensor([review["labels"] for review in reviews])
        return batch


class Encoded(Dataset):
    """Texts as tokens, cut where the tokenizer cuts, and their labels where they are known."""

    def __init__(
        self, tokenizer: Tokenizer, texts: Sequence[str], labels: Sequence[int] | None = None
    ) -> None:
        unpadded = Tokenizer.from_str(tokenizer.to_str())  # a batch is padded when it is made
        unpadded.no_padding()
        self.encodings = unpadded.encode_batch(list(texts))
        self.labels = labels

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.encodings)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return a text's ids and mask, and its label."""
        encoding = self.encodings[row]
        review: dict[str, Any] = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask}
        return review if self.labels is None else review | {"labels": self.labels[row]}

    @property
    def cut(self) -> int:
        """The number of texts that were longer than what is read of them."""
        return sum(bool(encoding.overflowing) for encoding in self.encodings)


def load(run: str | Path) -> Classifier:
    """Return the network of a run's best checkpoint; `run` is whatever `trainlab.find` understands.

    Needs no hub. Raises UserError for an unknown run, and one of another experiment or without a checkpoint.
    """
    quiet()
    path = restoring.best_of(restoring.trained(run, "sentiment"), "sentiment")
    saved = checkpoint.load(path)
    model = restoring.build(
        path,
        saved,
        lambda known: AutoModelForSequenceClassification.from_config(
            hub.architecture(known["config"]), trust_remote_code=False
        ),
    )
    with restoring.explained(path):
        return Classifier(model, hub.tokenizer(saved["hyper_parameters"]["tokenizer"]))


def positive(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the probability [N] of the second class, from the scores [N, 2] of both."""
    return 1 / (1 + np.exp(logits[:, 0].astype(np.float64) - logits[:, 1]))


def predict(run: str | Path, texts: str | Sequence[str]) -> pd.DataFrame:
    """Return each text with its label (1 positive) and the probability that it is positive.

    `run` is whatever `trainlab.find` understands; its best checkpoint answers, and needs no hub. Of a
    text the first `max_tokens` of the run are read. Raises UserError for an unknown run, one of another
    experiment or without a checkpoint yet, and for no text or an empty one.
    """
    return answer(load(run), _listed(texts))


def answer(classifier: Classifier, texts: str | Sequence[str]) -> pd.DataFrame:
    """Return what a network makes of texts (see `predict`)."""
    listed = _listed(texts)
    found = classifier.probabilities([text[:LONGEST] for text in listed])
    return pd.DataFrame({"text": listed, "label": (found >= THRESHOLD).astype(int), "positive": found})


def _listed(texts: str | Sequence[str]) -> list[str]:
    listed = [texts] if isinstance(texts, str) else list(texts)
    if not listed or not all(isinstance(text, str) and text.strip() for text in listed):
        raise UserError('No text to judge, or an empty one. Expected for instance: "A warm, funny film."')
    return listed
