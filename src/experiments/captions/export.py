"""How a run of captions is exported, which `trainlab export-model` finds in this folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from experiments.captions.config import TINY, CaptionsConfig
from experiments.captions.data import END, PAD, START, draw_corpus
from experiments.captions.model import CaptionsModel
from experiments.captions.train import AT_ONCE, MOST, seen
from trainlab import datasets, hub
from trainlab.run import record
from trainlab.run.restoring import best_of, restore
from trainlab.serving.export import Recipe
from trainlab.serving.networks import Network
from trainlab.serving.pictures import (
    CHANCES,
    LAST,
    NEXT,
    PICTURE,
    PIXELS,
    STATE,
    WORD,
    WORDS,
    Pictures,
)
from trainlab.training.workers import set_threads

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from trainlab.serving.bundle import Bundle
    from trainlab.serving.gate import Gate

BEAMS = (1, 3, 5)  # that captions are compared at


class PictureNetwork(nn.Module):
    """From pictures to what they leave in the network that writes."""

    def __init__(self, model: CaptionsModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state [N, H] twice, hidden and cell; pixels [N, 3, H, W] in bytes."""
        hidden, cell = self.model.begin(self.model.features(pixels))
        return hidden[0], cell[0]


class WordNetwork(nn.Module):
    """One word on: a step of the network that writes."""

    def __init__(self, model: CaptionsModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, words: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log probabilities [N, V] of what follows the words [N], and the next state [N, H]."""
        chances, (hidden, cell) = self.model.step(words, (hidden[None], cell[None]))
        return chances, hidden[0], cell[0]


def recipe(folder: Path) -> Recipe:
    """Return what a run becomes: two networks, measured on all pictures that were held out."""
    set_threads()
    config = CaptionsConfig.parse(record.read(folder).config)
    model = restore(CaptionsModel, best_of(folder, "captions"))
    corpus = draw_corpus(config)
    pictures = seen(corpus, np.concatenate([corpus.validation, corpus.test]))
    known = {name: model.hparams[name] for name in MOST}
    side, width = known["crop"], model.hparams["hidden_size"]
    state = {name: torch.rand(2, width) for name in STATE}

    def measure(bundle: Bundle, gate: Gate) -> None:
        writer = Pictures(bundle)
        gate.note("pictures", len(pictures))
        first, second = (bundle.session(name) for name in (PICTURE, WORD))
        for name, at_once in (("alone", 1), ("in_batches", AT_ONCE)):
            found: list[list[NDArray[np.float32]]] = []
            expected: list[list[NDArray[np.float32]]] = []
            for part in pictures.split(at_once):
                begun = first.run(None, {PIXELS: part.numpy()})
                words = np.full(len(part), START)
                found.append(begun + second.run(None, {LAST: words, **dict(zip(STATE, begun, strict=True))}))
                expected.append(begun_by(model, part))
            for each, what in enumerate((*STATE, CHANCES)):
                true, got = (np.concatenate([row[each] for row in rows]) for rows in (expected, found))
                gate.close(f"{what}_{name}", true, got)
        for beam in sorted({*BEAMS, known["beam"]}):
            parts = pictures.split(AT_ONCE)
            right = [text for part in parts for text in model.caption(part, beam)]
            for name, at_once in (("alone", 1), ("in_batches", AT_ONCE)):
                said = [
                    text for part in pictures.split(at_once) for text in writer.caption(part.numpy(), beam)
                ]
                other = sum(one != two for one, two in zip(right, said, strict=True))
                gate.at_most(f"other_captions_beam_{beam}_{name}", other, 0)

    free = {0: "items"}
    return Recipe(
        "caption",
        {
            PICTURE: Network(
                PictureNetwork(model),
                {PIXELS: torch.zeros(2, 3, side, side, dtype=torch.uint8)},
                {PIXELS: free},
                STATE,
            ),
            WORD: Network(
                WordNetwork(model),
                {LAST: torch.full((2,), START), **state},
                dict.fromkeys((LAST, *STATE), free),
                (CHANCES, *NEXT),
            ),
        },
        {**known, "padding": PAD, "start": START, "end": END},
        measure,
        files={WORDS: json.dumps(list(model.vocabulary.words), ensure_ascii=False).encode()},
        licences={
            "backbone": "started at random" if config.encoder == TINY else hub.licence(config.encoder),
            "data": "MIT, drawn by trainlab" if config.data == "shapes" else datasets.licence(config.data),
        },
    )


@torch.inference_mode()
def begun_by(model: CaptionsModel, pictures: Tensor) -> list[NDArray[np.float32]]:
    """Return torch's state after pictures, hidden and cell [N, H], and what may follow the start [N, V]."""
    hidden, cell = model.begin(model.features(pictures))
    chances, _ = model.step(torch.full((len(pictures),), START), (hidden, cell))
    return [each.numpy() for each in (hidden[0], cell[0], chances)]
