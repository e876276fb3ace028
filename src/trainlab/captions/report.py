"""What a run shows of its captions: pictures with what is said of them each epoch, curves, and a baseline."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torchmetrics.text import BLEUScore

from trainlab.captions.dataset import crop
from trainlab.captions.vocabulary import words_of
from trainlab.runs.recorder import VIEWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lightning
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from trainlab.captions.corpus import Corpus
    from trainlab.captions.model import CaptionsModel
    from trainlab.runs.run import Run

SHOWN = 8  # pictures of the fixed batch
COLUMNS = 4
CURVES = {
    "cross entropy": ("train/loss_epoch", "val/loss"),
    "BLEU": ("val/bleu", "val_commonest/bleu"),
    "exact match": ("val/exact_match", "val_commonest/exact_match"),
}


class Pictures(Callback):
    """Writes, after each epoch, what is said of the same few pictures held out."""

    def __init__(self, run: Run, corpus: Corpus) -> None:
        self._run, self._corpus = run, corpus

    def on_validation_end(self, trainer: lightning.Trainer, module: CaptionsModel) -> None:  # type: ignore[override]
        """Caption the pictures, and write them at the step of the epoch's other figures."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        figure = plot_pictures(module, self._corpus, self._corpus.validation[:SHOWN])
        self._run.log_figure(f"{VIEWS}captions", figure, max(0, trainer.global_step - 1))


def plot_pictures(
    model: CaptionsModel, corpus: Corpus, rows: NDArray[np.int64], beam: int | None = None
) -> Figure:
    """Draw pictures, each under what is said of it; green where that is a caption of it word for word."""
    import matplotlib.pyplot as plt

    lines = -(-len(rows) // COLUMNS)
    figure, panels = plt.subplots(
        lines, COLUMNS, figsize=(2.6 * COLUMNS, 2.9 * lines), layout="constrained", squeeze=False
    )
    said = model.caption(seen(corpus, rows), beam)
    for axes in panels.flat:
        axes.axis("off")
    for axes, row, text in zip(panels.flat, rows, said, strict=False):
        axes.imshow(corpus.pictures[row])
        right = text in corpus.texts(row)
        axes.set_title(_wrapped(text), fontsize=9, color="darkgreen" if right else "firebrick")
        if not right:
            axes.text(
                0.5,
                -0.02,
                _wrapped(corpus.texts(row)[0]),
                fontsize=8,
                ha="center",
                va="top",
                transform=axes.transAxes,
            )
    plt.close(figure)
    return figure


def seen(corpus: Corpus, rows: NDArray[np.int64]) -> torch.Tensor:
    """Return what a network sees of these pictures, [N, 3, H, W]: their middles."""
    pictures = torch.from_numpy(np.array(corpus.pictures[rows])).permute(0, 3, 1, 2)
    return torch.stack([crop(each, corpus.crop, random=False) for each in pictures])


def commonest(corpus: Corpus, rows: NDArray[np.int64]) -> dict[str, float]:
    """Return what saying the commonest caption of training of every one of these pictures reaches."""
    counts = Counter(" ".join(words_of(each)) for each in corpus.training_captions())
    said = min(counts, key=lambda text: (-counts[text], text))
    return measures([said] * len(rows), [corpus.texts(row) for row in rows])


def measures(said: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return BLEU, and the share of captions that are a reference word for word."""
    bleu = BLEUScore()
    bleu.update(said, references)
    exact = [text in right for text, right in zip(said, references, strict=True)]
    return {"bleu": float(bleu.compute()), "exact_match": float(np.mean(exact))}


def _wrapped(text: Any) -> str:
    from textwrap import fill

    return fill(str(text) or "(nothing)", 26)
