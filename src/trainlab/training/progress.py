"""What a training shows while it runs: a bar an epoch, and speed and learning rate among the curves."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

if TYPE_CHECKING:
    import lightning

BAR = "{desc} {percentage:3.0f}% |{bar:25}| {n_fmt}/{total_fmt} batches [{elapsed}<{remaining}{postfix}]"
LOG_EVERY = 10  # steps between two points of the running loss, at most
POINTS = 10  # of the running loss in an epoch, at least, where it has as many steps
REDRAW = 0.5  # seconds; every redrawing stays in the notebook and the log


class Bars(Callback):
    """Shows a bar an epoch and then the epoch's metrics: those that the module logs with `prog_bar=True`.

    Plain text, the same in a terminal, a notebook and a log file; on standard output, because JupyterLab
    paints standard error red.
    """

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Start the epoch's bar."""
        title = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        batches = int(trainer.num_training_batches)
        self._bar = tqdm(total=batches, desc=title, bar_format=BAR, mininterval=REDRAW, file=sys.stdout)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Move the bar on."""
        self._bar.set_postfix_str(_metrics(trainer, "train/"), refresh=False)
        self._bar.update()

    def on_validation_start(self, *_: Any) -> None:
        """Complete the bar: the epoch's batches are done."""
        self._bar.close()

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write what the epoch came to."""
        self._bar.close()
        print(f"  {_metrics(trainer, 'val/')}", file=sys.stdout, flush=True)

    def on_exception(self, *_: Any) -> None:
        """Leave the bar as it is, on a line of its own."""
        self._bar.close()


class Speed(Callback):
    """Logs `train/samples_per_second` and `train/lr`, the first parameter group's, with the running loss."""

    def __init__(self) -> None:
        self._done, self._since = 0, 0.0

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        """Let a short epoch have points enough."""
        trainer.log_every_n_steps = max(1, min(LOG_EVERY, int(trainer.num_training_batches) // POINTS))

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock: validation between epochs is not training."""
        self._done, self._since = 0, time.perf_counter()

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        """Log where the trainer does: what was done since the last time, over the time it took."""
        if trainer.global_step % trainer.log_every_n_steps:
            return
        loader, batch = trainer.train_dataloader, args[-1]
        done = min((batch + 1) * loader.batch_size, len(loader.dataset))
        now = time.perf_counter()
        speed = (done - self._done) / (now - self._since)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        trainer.logger.log_metrics(
            {"train/samples_per_second": speed, "train/lr": rate}, trainer.global_step - 1
        )
        self._done, self._since = done, now


def _metrics(trainer: lightning.Trainer, prefix: str) -> str:
    found = {
        tag: float(value) for tag, value in trainer.progress_bar_metrics.items() if tag.startswith(prefix)
    }
    return ", ".join(f"{tag} {value:.3f}" for tag, value in found.items())
