"""What a training with Lightning shows: numbers in the run, a bar an epoch, its speed among the curves."""

from __future__ import annotations

import logging
import math
import sys
import time
import warnings
from collections.abc import Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks.progress import ProgressBar
from lightning.pytorch.loggers import Logger
from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import lightning

    from trainlab.run.run import Run


class RunLogger(Logger):
    """Gives every number that a module logs to the run, under its own tag."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run
        self.resumed_at = 0  # steps of the checkpoint that was resumed

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self._run.experiment

    @property
    def version(self) -> str:
        """The run's name."""
        return self._run.name

    @property
    def save_dir(self) -> str:
        """The folder of all experiments: Lightning itself adds name and version to it."""
        return str(self._run.folder.parents[1])

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self._run.folder)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars at a global step; Lightning's own counter of epochs is no metric.

        What a resume repeats, the validation that followed its checkpoint, is not logged again.
        """
        at = int(step or 0)
        repeated = at < self.resumed_at
        new = [tag for tag in metrics if tag != "epoch" and not (repeated and self._run.has(tag, at))]
        self._run.log({tag: metrics[tag] for tag in new}, at)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run wrote its settings when it started."""


BAR = "{desc} {percentage:3.0f}% |{bar:25}| {n_fmt}/{total_fmt} batches [{elapsed}<{remaining}{postfix}]"
REDRAW = 0.5  # seconds; every redrawing stays in the notebook and the log
VALIDATION = ("val", "eval")  # how the names of its metrics begin: val/loss, val_loss, valid_loss
POINTS = 10  # of the running loss in an epoch, at least, where it has as many steps


class EpochBar(ProgressBar):
    """Shows a bar an epoch and then the epoch's metrics: those that the module logs with `prog_bar=True`.

    Where it logs none so, all of the validation; no line where there are none. Lightning's TQDMProgressBar
    draws anew with each batch, which would fill a log file, and shows bars for the validation too. This one
    is plain text, the same in a terminal, a notebook and a log file; on standard output, because JupyterLab
    paints standard error red.
    """

    _bar: tqdm | None = None
    _enabled = True

    def disable(self) -> None:
        """Show nothing: Lightning asks all processes but the first for that."""
        self._enabled = False

    def on_train_batch_start(self, trainer: lightning.Trainer, _: Any, batch: Any, index: int) -> None:  # noqa: ARG002
        """Start the epoch's bar with its first batch, or with the first one after a resume."""
        if self._bar is None and self._enabled:
            batches = self.total_train_batches
            self._bar = tqdm(
                desc=f"epoch {1 + trainer.current_epoch}/{trainer.max_epochs}",
                total=int(batches) if math.isfinite(batches) else None,
                initial=index,
                bar_format=BAR,
                mininterval=REDRAW,
                file=sys.stdout,
            )

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.set_postfix_str(_line(trainer.progress_bar_metrics, validation=False), refresh=False)
            self._bar.update()

    def on_validation_start(self, *_: Any) -> None:
        """Complete the bar where the epoch's batches are done."""
        if self._bar is not None and self._bar.n == self._bar.total:
            self._close()

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write what the epoch came to."""
        self._close()
        line = _line(trainer.progress_bar_metrics) or _line(trainer.callback_metrics)
        if self._enabled and line:
            print(f"  {line}", file=sys.stdout, flush=True)

    def on_exception(self, *_: Any) -> None:
        """Leave the bar as it is, on a line of its own."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


class Speed(Callback):
    """Logs how fast it goes, with the running loss; validation is left out of it.

    `vitals/samples_per_second`, where the loader says how many samples a batch has; `train/lr`, the first
    parameter group's; `vitals/step_seconds`; `vitals/data_wait_share`, the part of them that went by
    waiting for data. Lightning's ThroughputMonitor and LearningRateMonitor have other tags, and neither
    tells waiting from computing.
    """

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        """Let a short epoch have points enough; start the clock."""
        often = trainer.num_training_batches // POINTS
        trainer.log_every_n_steps = int(max(1, min(trainer.log_every_n_steps, often)))
        self._start(trainer, trainer.fit_loop.epoch_loop.batch_progress.current.completed)

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        """Start the clock anew."""
        self._start(trainer, 0)

    def on_validation_start(self, *_: Any) -> None:
        """Stop the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Let the clock go on."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._since += time.perf_counter() - self._paused

    def on_train_batch_end(self, trainer: Any, _: Any, __: Any, ___: Any, index: int) -> None:
        """Log where the trainer does: what was done since the last time, over the time it took."""
        if trainer.global_step % trainer.log_every_n_steps or trainer.global_step == self._step:
            return
        seconds, waited = time.perf_counter() - self._since, trainer.fit_loop.epoch_loop.waited - self._waited
        metrics = {
            "train/lr": trainer.optimizers[0].param_groups[0]["lr"],
            "vitals/step_seconds": seconds / (trainer.global_step - self._step),
            "vitals/data_wait_share": waited / seconds,
        }
        loader = trainer.train_dataloader
        size, data = getattr(loader, "batch_size", None), getattr(loader, "dataset", None)
        if isinstance(size, int):
            most = len(data) if isinstance(data, Sized) else math.inf
            samples = min((index + 1) * size, most) - min(self._batch * size, most)
            metrics["vitals/samples_per_second"] = samples / seconds
        for logger in trainer.loggers:
            logger.log_metrics(metrics, trainer.global_step - 1)
        self._start(trainer, index + 1)

    def _start(self, trainer: Any, batch: int) -> None:
        self._since, self._waited = time.perf_counter(), trainer.fit_loop.epoch_loop.waited
        self._step, self._batch = trainer.global_step, batch


def _line(metrics: Mapping[str, Any], *, validation: bool = True) -> str:
    chosen = {tag: each for tag, each in metrics.items() if tag.startswith(VALIDATION) == validation}
    return ", ".join(f"{tag} {float(value):.3f}" for tag, value in chosen.items())


UNHELPFUL = (
    ".*does not have many workers.*",  # tokens are ready before training: workers would only cost memory
    ".*smaller than the logging interval.*",  # Speed sets that
    ".*module\\(s\\) in eval mode.*",  # frozen layers, which are to be so
    ".*configured with multiple `ModelCheckpoint`.*",  # see `Trainer.checkpoint_callback`
    ".*Checkpoint directory .* exists and is not empty.*",  # a run keeps its own there
    ".*requested to overfit but enabled.*",  # it turns shuffling off itself
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning's own business with torch
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what Lightning says about itself, and the warnings of `UNHELPFUL`; no others."""
    lightning_log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = lightning_log.level
    lightning_log.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in UNHELPFUL:
            warnings.filterwarnings("ignore", message)
        try:
            yield
        finally:
            lightning_log.setLevel(level)
