"""The captions experiment: `train` runs it and returns what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from trainlab.captions import captioning, report
from trainlab.captions.corpus import Corpus, draw
from trainlab.captions.dataset import CaptionsData
from trainlab.captions.model import CaptionsModel
from trainlab.captions.vocabulary import FILE, Vocabulary
from trainlab.runs.frames import scalars
from trainlab.runs.plots import plot_curves
from trainlab.runs.run import Run
from trainlab.training.restoring import restore
from trainlab.training.trainer import Trainer, accelerator_of, set_threads

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trainlab.captions.captioning import Images
    from trainlab.captions.config import CaptionsConfig

METRICS = ("val/loss", "val/bleu", "val/exact_match", "test/bleu", "test/exact_match")
MEASURED = ("loss", "bleu", "exact_match")


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
        return plot_curves(self.history(), report.CURVES)

    def pictures(self, count: int = report.SHOWN, beam: int | None = None) -> Figure:
        """Draw pictures of the test with what is said of them; green is right, word for word."""
        return report.plot_pictures(self.model, self.corpus, self.corpus.test[:count], beam)

    def say(self, images: Images, beam: int | None = None) -> list[str]:
        """Return a caption for each picture, a path or an array [H, W, 3] of bytes (see `caption`)."""
        return captioning.say(self.model, images, beam)

    def decodings(self, beams: tuple[int, ...] = (1, 3, 5)) -> pd.DataFrame:
        """Return BLEU and exact match on the test, one row a width of the beam; 1 is greedy."""
        rows = self.corpus.test
        references = [self.corpus.texts(row) for row in rows]
        parts = torch.arange(len(rows)).split(self.config.batch_size)
        found = {}
        for beam in beams:
            said = [
                text
                for part in parts
                for text in self.model.caption(report.seen(self.corpus, rows[part.numpy()]), beam)
            ]
            found[beam] = report.measures(said, references)
        return pd.DataFrame(found).T.rename_axis("beam")


def train(config: CaptionsConfig) -> Result:
    """Train, measure the best epoch's network on the test, and record everything in a run's folder.

    Shows what it does on standard output. Raises UserError when data or encoder can't be used, before there
    is a run.
    """
    config.check_machine()
    corpus = draw(config)
    print(corpus.summary(), flush=True)
    with Run("captions", config, seed=config.seed, data=corpus.fingerprint(), metrics=METRICS) as run:
        print(f"run: {run.folder}", flush=True)
        return _record(run, config, corpus)


def _record(run: Run, config: CaptionsConfig, corpus: Corpus) -> Result:
    set_threads()
    torch.manual_seed(config.seed)  # the first weights
    vocabulary = Vocabulary.of(corpus.training_captions(), config.min_word_count)
    vocabulary.write(run.folder / FILE)
    model = CaptionsModel.fresh(config, vocabulary, side=corpus.pictures.shape[1], crop=corpus.crop)
    model.expect(corpus.training_captions())
    data = CaptionsData(corpus, vocabulary, config.max_words, config.batch_size)
    trainer = Trainer(run, config, callbacks=[report.Pictures(run, corpus)])
    trainer.fit(model, data)
    if trainer.best_checkpoint is not None:
        model = restore(CaptionsModel, trainer.best_checkpoint)
    metrics = _test(trainer, run, model, data)
    model = model.to(accelerator_of(config.accelerator)).eval()
    return Result(run.folder, config, corpus, model, metrics)


def _test(
    trainer: Trainer, run: Run, model: CaptionsModel, data: CaptionsData
) -> dict[str, dict[str, float]]:
    """Measure on the test, beside what needs no network, and log both."""
    found: Any = trainer.test(model, data, verbose=False)
    trained = {tag.removeprefix("test/"): float(value) for tag, value in found[0].items()}
    baseline = report.commonest(data.corpus, data.corpus.test)
    if not trainer.fast_dev_run:
        run.update(tested={"trained": trained, "commonest caption": baseline})
        validated = report.commonest(data.corpus, data.corpus.validation)
        for step in (0, trainer.global_step):  # two points make a line
            run.log({f"val_commonest/{name}": value for name, value in validated.items()}, step)
    return {"trained": trained, "commonest caption": baseline}
