"""What a training shows while it runs: a bar an epoch, and speed and learning rate among the curves."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback

from trainlab.training.bars import epoch_bar

if TYPE_CHECKING:
    import lightning
    from tqdm import tqdm

    from trainlab.run.run import Run

LOG_EVERY = 10  # steps between two points of the running loss, at most
VALIDATION = ("val", "eval")  # how the names of its metrics begin: val/loss, val_loss, valid_loss
POINTS = 10  # of the running loss in an epoch, at least, where it has as many steps


class Bars(Callback):
    """Shows a bar an epoch and then the epoch's metrics: those that the module logs with `prog_bar=True`.

    Where it logs none so, all of the validation; no line where there are none.
    """

    _bar: tqdm | None = None

    def on_train_batch_start(self, trainer: lightning.Trainer, _: Any, batch: Any, index: int) -> None:  # noqa: ARG002
        """Start the epoch's bar with its first batch, or with the first one after a resume."""
        if self._bar is None and trainer.is_global_zero:
            self._bar = epoch_bar(1 + trainer.current_epoch, trainer.max_epochs, _batches(trainer), index)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Move the bar on."""
        if self._bar is not None:
            training = {
                tag: each for tag, each in trainer.progress_bar_metrics.items() if not _validates(tag)
            }
            self._bar.set_postfix_str(_line(training), refresh=False)
            self._bar.update()

    def on_validation_start(self, *_: Any) -> None:
        """Complete the bar where the epoch's batches are done."""
        if self._bar is not None and self._bar.n == self._bar.total:
            self._close()

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write what the epoch came to."""
        self._close()
        chosen, every = trainer.progress_bar_metrics, trainer.callback_metrics
        found = ({tag: each for tag, each in of.items() if _validates(tag)} for of in (chosen, every))
        if trainer.is_global_zero and (metrics := next(filter(None, found), None)):
            print(f"  {_line(metrics)}", file=sys.stdout, flush=True)

    def on_exception(self, *_: Any) -> None:
        """Leave the bar as it is, on a line of its own."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


class Plan(Callback):
    """Writes into the record how far the training is to go: the table then says how much is left."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write it, once the loaders and, after a resume, the steps done are known."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        found, epochs = trainer.estimated_stepping_batches, trainer.max_epochs
        steps = int(found) if math.isfinite(found) and found > 0 else None
        if steps == trainer.max_steps or epochs == -1:  # it ends in the midst of an epoch, or never
            epochs = None
        self._run.plan(steps, epochs, trainer.global_step)


class Speed(Callback):
    """Logs how fast it goes, with the running loss; validation is left out of it.

    `vitals/samples_per_second`, where the loader says how many samples a batch has; `train/lr`, the first
    parameter group's; `vitals/step_seconds`; `vitals/data_wait_share`, the part of them that went by
    waiting for data.
    """

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        """Let a short epoch have points enough; start the clock."""
        often = (_batches(trainer) or math.inf) // POINTS
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
        if trainer.state.fn == "fit":
            self._since += time.perf_counter() - self._paused

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        """Log where the trainer does: what was done since the last time, over the time it took."""
        if trainer.global_step % trainer.log_every_n_steps or trainer.global_step == self._step:
            return
        seconds, waited = time.perf_counter() - self._since, trainer.fit_loop.epoch_loop.waited - self._waited
        metrics = {
            "train/lr": trainer.optimizers[0].param_groups[0]["lr"],
            "vitals/step_seconds": seconds / (trainer.global_step - self._step),
            "vitals/data_wait_share": waited / seconds,
        }
        done = args[-1] + 1
        if (samples := _samples(trainer, done)) is not None:
            metrics["vitals/samples_per_second"] = (samples - _samples(trainer, self._batch)) / seconds
        trainer.logger.log_metrics(metrics, trainer.global_step - 1)
        self._start(trainer, done)

    def _start(self, trainer: Any, batch: int) -> None:
        self._since, self._waited = time.perf_counter(), trainer.fit_loop.epoch_loop.waited
        self._step, self._batch = trainer.global_step, batch


def _batches(trainer: lightning.Trainer) -> int | None:
    """Return the number of batches in an epoch, None where nobody knows."""
    number = trainer.num_training_batches
    return int(number) if math.isfinite(number) else None


def _samples(trainer: Any, batches: int) -> Any:
    """Return how many samples so many batches of an epoch have, None where the loader doesn't say."""
    loader = trainer.train_dataloader
    size, dataset = getattr(loader, "batch_size", None), getattr(loader, "dataset", None)
    if not isinstance(size, int):
        return None
    return min(batches * size, len(dataset) if isinstance(dataset, Sized) else math.inf)


def _validates(tag: str) -> bool:
    return tag.startswith(VALIDATION)


def _line(metrics: Mapping[str, Any]) -> str:
    return ", ".join(f"{tag} {float(value):.3f}" for tag, value in metrics.items())
