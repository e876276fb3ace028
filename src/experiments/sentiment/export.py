"""How a run of sentiment is exported, which `trainlab export-model` finds in this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from experiments.sentiment.config import SentimentConfig
from experiments.sentiment.data import draw
from experiments.sentiment.metrics import THRESHOLD
from experiments.sentiment.model import Classifier, load, positive
from trainlab import datasets, hub
from trainlab.run import record
from trainlab.serving import hubfolder
from trainlab.serving.export import Recipe
from trainlab.serving.gate import CHANGED
from trainlab.serving.networks import Network
from trainlab.serving.texts import INPUTS, NETWORK, TOKENIZER, Texts
from trainlab.training.workers import set_threads

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from trainlab.serving.bundle import Bundle
    from trainlab.serving.gate import Gate

AT_ONCE = 32  # reviews in one pass
USAGE = """
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
tokens = tokenizer(["I walked home happy."], padding=True, truncation=True, return_tensors="pt")
probabilities = model(**tokens).logits.softmax(-1)  # negative, positive
"""


class Scores(nn.Module):
    """The network as it is called for items of one text each."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model = classifier.model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return both classes' scores [N, 2], negative first; ids and mask [N, 1, L]."""
        return self.model(input_ids=ids.flatten(0, 1), attention_mask=mask.flatten(0, 1)).logits


def recipe(folder: Path) -> Recipe:
    """Return what a run becomes: its network, measured on all reviews of its data."""
    set_threads()
    config = SentimentConfig.parse(record.read(folder).config)
    classifier = load(folder)
    scores = Scores(classifier).eval()
    texts = [text for table in draw(config).parts().values() for text in table["text"]]
    expected = reference(classifier, scores, texts)
    ids = torch.ones(2, 1, 7, dtype=torch.long)

    def decisions(bundle: Bundle) -> dict[str, NDArray[Any]]:
        runner, items = Texts(bundle), [[text] for text in texts]
        return {"alone": runner.run_all(items, 1), "in_batches": runner.run_all(items, AT_ONCE)}

    def measure(bundle: Bundle, gate: Gate) -> None:
        gate.note("reviews", len(texts))
        for name, found in decisions(bundle).items():
            gate.close(name, expected, found)
            gate.at_most(f"other_decisions_{name}", changed(expected, found), 0)

    def measure_int8(bundle: Bundle, gate: Gate) -> None:
        gate.note("reviews", len(texts))
        for name, found in decisions(bundle).items():
            share = changed(expected, found) / len(texts)
            gate.at_most(f"share_of_other_decisions_{name}", share, CHANGED)

    def hub_files(folder: Path, gate: Gate) -> str:
        hubfolder.write(folder, classifier.model, classifier.tokenizer)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        found = []
        with torch.inference_mode():
            for start in range(0, len(texts), AT_ONCE):
                part = texts[start : start + AT_ONCE]
                tokens = tokenizer(part, padding=True, truncation=True, return_tensors="pt")
                found.append(model(**tokens).logits.numpy())
        gate.note("reviews", len(texts))
        gate.close("loaded_again", expected, np.concatenate(found))
        return USAGE

    return Recipe(
        "sentiment",
        {
            NETWORK: Network(
                scores,
                dict(zip(INPUTS, (ids, torch.ones_like(ids)), strict=True)),
                {name: {0: "items", 2: "tokens"} for name in INPUTS},
                ["scores"],
            )
        },
        {"texts": 1},
        measure,
        files={TOKENIZER: classifier.tokenizer.to_str().encode()},
        licences={"backbone": hub.licence(config.backbone), "data": datasets.licence(config.data)},
        no_int8="",
        hub=hub_files,
        measure_int8=measure_int8,
    )


def reference(classifier: Classifier, scores: Scores, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the scores [N, 2] that torch gives the texts in fp32."""
    found = np.empty((len(texts), 2), np.float32)
    order = np.argsort([len(text) for text in texts], kind="stable")
    with torch.inference_mode():
        for start in range(0, len(order), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            encoded = classifier.tokenizer.encode_batch([texts[row] for row in rows])
            ids = torch.tensor([each.ids for each in encoded])[:, None]
            mask = torch.tensor([each.attention_mask for each in encoded])[:, None]
            found[rows] = scores(ids, mask).numpy()
    return found


def changed(expected: NDArray[Any], found: NDArray[Any]) -> int:
    """Return how many of the scores [N, 2] decide otherwise."""
    first, second = (positive(each) >= THRESHOLD for each in (expected, found))
    return int((first != second).sum())
