"""The captions experiment: `train` runs it and returns what came out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.text import BLEUScore

from experiments.captions.batches import CaptionsData, crop
from experiments.captions.config import CaptionsConfig
from experiments.captions.data import Corpus, Vocabulary, draw_corpus, words_of
from experiments.captions.model import CaptionsModel
from trainlab import Run, Trainer, files, scalars
from trainlab.errors import UserError
from trainlab.run.checkpoint import CheckpointError
from trainlab.run.recorder import VIEWS
from trainlab.run.restoring import best_of, restore, trained
from trainlab.runs.plots import plot_curves
from trainlab.training.trainer import set_threads

Pixels = NDArray[np.uint8]
Images = str | Path | Pixels | Sequence[str | Path | Pixels]

METRICS = ("val/loss", "val/bleu", "val/exact_match", "test/bleu", "test/exact_match")
MEASURED = ("loss", "bleu", "exact_match")
SHOWN = 8  # pictures of the fixed batch
COLUMNS = 4  # of pictures side by side
LETTERS = 26  # in a line above a picture
CURVES = {
    "cross entropy": ("train/loss_epoch", "val/loss"),
    "BLEU": ("val/bleu", "val_commonest/bleu"),
    "exact match": ("val/exact_match", "val_commonest/exact_match"),
}
AT_ONCE = 64  # pictures in one pass
# What a checkpoint may ask for that its weights don't show: pixels a side, words a caption, captions at once
MOST = {"side": 4096, "crop": 4096, "max_words": 1000, "beam": 1000}


@dataclass
class Result:
    """What a run gave: its folder, the data, the best epoch's network, and metrics on the test."""

    run: Path
    config: CaptionsConfig
    corpus: Corpus
    model: CaptionsModel
    metrics: dict[str, dict[str, float]]

    def table(self) -> pd.DataFrame:
        """Return the metrics on the test, one column a system: trained, and the commonest caption alone."""
        rows = [name for name in MEASURED if any(name in each for each in self.metrics.values())]
        return pd.DataFrame(self.metrics).reindex(rows).rename_axis("test")

    def history(self) -> pd.DataFrame:
        """Return every point of the run's curves: tag, step, wall_time, value."""
        return scalars(self.run)

    def curves(self) -> Figure:
        """Draw loss, BLEU and exact match over the steps."""
        return plot_curves(self.history(), CURVES)

    def pictures(self, count: int = SHOWN, beam: int | None = None) -> Figure:
        """Draw pictures of the test with what is written of them; green is right, word for word."""
        return plot_pictures(self.model, self.corpus, self.corpus.test[:count], beam)

    def say(self, images: Images, beam: int | None = None) -> list[str]:
        """Return a caption for each picture, a path or an array [H, W, 3] of bytes (see `caption`)."""
        return say(self.model, images, beam)

    def decodings(self, beams: tuple[int, ...] = (1, 3, 5)) -> pd.DataFrame:
        """Return BLEU and exact match on the test, one row a width of the beam; 1 is greedy."""
        rows = self.corpus.test
        references = [self.corpus.texts(row) for row in rows]
        parts = torch.arange(len(rows)).split(self.config.batch_size)
        found = {}
        for beam in beams:
            written: list[str] = []
            for part in parts:
                written += self.model.caption(seen(self.corpus, rows[part.numpy()]), beam)
            found[beam] = measures(written, references)
        return pd.DataFrame(found).T.rename_axis("beam")


def train(config: CaptionsConfig) -> Result:
    """Train, measure the best epoch's network on the test, and record everything in a run's folder.

    Shows what it does on standard output. Raises UserError when data or encoder can't be used, before there
    is a run.
    """
    config.check_machine()
    corpus = draw_corpus(config)
    print(corpus.summary(), flush=True)
    with Run("captions", config, seed=config.seed, data=corpus.fingerprint(), metrics=METRICS) as run:
        print(f"run: {run.folder}", flush=True)
        return _record(run, config, corpus)


def _record(run: Run, config: CaptionsConfig, corpus: Corpus) -> Result:
    set_threads()
    torch.manual_seed(config.seed)  # the first weights
    vocabulary = Vocabulary.of(corpus.training_captions(), config.min_word_count)
    words = json.dumps(list(vocabulary.words), ensure_ascii=False, indent=0)
    files.write(run.folder / "vocabulary.json", words.encode())
    model = CaptionsModel.fresh(config, vocabulary, side=corpus.pictures.shape[1], crop=corpus.crop)
    model.expect(corpus.training_captions())
    data = CaptionsData(corpus, vocabulary, config.max_words, config.batch_size)
    trainer = Trainer(run, config, callbacks=[Pictures(run, corpus)])
    trainer.fit(model, data)
    if trainer.best_checkpoint is not None:
        model = restore(CaptionsModel, trainer.best_checkpoint)
    found: Any = trainer.test(model, data, verbose=False)
    metrics = {
        "trained": {tag.removeprefix("test/"): float(value) for tag, value in found[0].items()},
        "commonest caption": commonest(corpus, corpus.test),
    }
    if not config.fast_dev_run:
        run.update(tested=metrics)
        validated = commonest(corpus, corpus.validation)
        for step in (0, trainer.global_step):  # two points make a line
            run.log({f"val_commonest/{name}": value for name, value in validated.items()}, step)
    model = model.to(config.device).eval()
    return Result(run.folder, config, corpus, model, metrics)


class Pictures(Callback):
    """Writes, after each epoch, what is written of the same few pictures held out."""

    def __init__(self, run: Run, corpus: Corpus) -> None:
        self._run, self._corpus = run, corpus

    def on_validation_end(self, trainer: lightning.Trainer, module: CaptionsModel) -> None:  # type: ignore[override]
        """Caption the pictures, and write them at the step of the epoch's other figures."""
        if not trainer.is_global_zero or trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        figure = plot_pictures(module, self._corpus, self._corpus.validation[:SHOWN])
        self._run.log_figure(f"{VIEWS}captions", figure, max(0, trainer.global_step - 1))


def plot_pictures(
    model: CaptionsModel, corpus: Corpus, rows: NDArray[np.int64], beam: int | None = None
) -> Figure:
    """Draw pictures, each under what is written of it; green where that is a caption of it word for word."""
    lines = -(-len(rows) // COLUMNS)
    figure, panels = plt.subplots(
        lines, COLUMNS, figsize=(2.6 * COLUMNS, 2.9 * lines), layout="constrained", squeeze=False
    )
    for axes in panels.flat:
        axes.axis("off")
    for axes, row, text in zip(panels.flat, rows, model.caption(seen(corpus, rows), beam), strict=False):
        axes.imshow(corpus.pictures[row])
        references = corpus.texts(row)
        right = text in references
        title = fill(text or "(nothing)", LETTERS)
        axes.set_title(title, fontsize=9, color="darkgreen" if right else "firebrick")
        if not right:
            below: dict[str, Any] = {"fontsize": 8, "ha": "center", "va": "top"}
            axes.text(0.5, -0.02, fill(references[0], LETTERS), transform=axes.transAxes, **below)
    plt.close(figure)
    return figure


def seen(corpus: Corpus, rows: NDArray[np.int64]) -> torch.Tensor:
    """Return what a network sees of these pictures, [N, 3, H, W]: their middles."""
    pictures = torch.from_numpy(np.array(corpus.pictures[rows])).permute(0, 3, 1, 2)
    return torch.stack([crop(each, corpus.crop, random=False) for each in pictures])


def commonest(corpus: Corpus, rows: NDArray[np.int64]) -> dict[str, float]:
    """Return what saying the commonest caption of training of every one of these pictures reaches."""
    counts = Counter(" ".join(words_of(each)) for each in corpus.training_captions())
    written = min(counts, key=lambda text: (-counts[text], text))
    return measures([written] * len(rows), [corpus.texts(row) for row in rows])


def measures(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return BLEU, and the share of captions that are a reference word for word."""
    bleu = BLEUScore()
    bleu.update(written, references)
    exact = [text in right for text, right in zip(written, references, strict=True)]
    return {"bleu": float(bleu.compute()), "exact_match": float(np.mean(exact))}


def caption(run: str | Path, images: Images, beam: int | None = None) -> list[str]:
    """Return a caption for each picture: paths, or arrays [H, W, 3] of bytes.

    `run` is whatever `trainlab.find` understands. Pictures are made the size that the network was
    trained with. `beam` captions are pursued at once; 1 is greedy, without it the run's own setting holds.
    Raises UserError for an unknown run, one of another experiment or without a checkpoint yet, and a
    picture that can't be read.
    """
    path = best_of(trained(run, "captions"), "captions")
    model = restore(CaptionsModel, path)
    for name, most in MOST.items():
        if not 1 <= model.hparams[name] <= most:
            raise CheckpointError(
                f"{path} asks for {name}={model.hparams[name]}. Expected 1 to {most}. Choose another run."
            )
    return say(model, images, beam)


def say(model: CaptionsModel, images: Images, beam: int | None = None) -> list[str]:
    """Return what a network writes about each picture (see `caption`)."""
    if beam is not None and beam < 1:
        raise UserError(f"beam={beam}: expected 1 or more.")
    side, shown = model.hparams["side"], model.hparams["crop"]
    single = isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim == 3)
    listed: Sequence[Any] = [images] if single else images  # type: ignore[assignment]
    pictures = [crop(_pixels(each, side), shown, random=False) for each in listed]
    if not pictures:
        raise UserError("No picture to caption. Expected a path or an array, or several of them.")
    parts = torch.stack(pictures).split(AT_ONCE)
    return [text for part in parts for text in model.caption(part, beam)]


def _pixels(picture: str | Path | Pixels, side: int) -> Tensor:
    """Return a picture [3, side, side] in bytes."""
    from PIL import Image

    if not isinstance(picture, np.ndarray):
        try:
            with Image.open(picture) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{picture} can't be read as a picture: {error}") from None
    elif picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8:
        image = Image.fromarray(picture)
    else:
        raise UserError(
            f"A picture of shape {list(picture.shape)} and type {picture.dtype}: expected [H, W, 3] of uint8."
        )
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
