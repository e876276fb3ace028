"""What a Transformers Trainer tells a run while it trains, and shows of it."""
# ruff: noqa: ARG002 - a callback's methods are told more than each needs

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from trainlab.training.bars import epoch_bar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tqdm import tqdm
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from trainlab.run.run import Run

TRAIN = {"loss": "train/loss", "learning_rate": "train/lr", "grad_norm": "train/grad_norm"}
SPLITS = {"eval": "val", "test": "test"}
COSTS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


class Recording(TrainerCallback):
    """Logs to the run what the Trainer logs, under the tags that each training has, and how fast it goes.

    As with Lightning a point stands at the step that it was made in, counted from 0, and what a resume
    repeats is not logged again. Evaluation is left out of `vitals/`.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._start()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write how far it is to go, and start the clock."""
        self._run.plan(state.max_steps, math.ceil(state.num_train_epochs), state.global_step)
        self._start()

    def fetched(self, samples: int, seconds: float) -> None:
        """Count a step's samples, and the seconds that it waited for them."""
        self._steps += 1
        self._samples += samples
        self._waited += seconds

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log, at most once a step."""
        metrics = tagged(kwargs["logs"])
        if "train/loss" in metrics:
            metrics |= self._speed()
        step = max(state.global_step - 1, 0)
        self._run.log({tag: metrics[tag] for tag in metrics if not self._run.has(tag, step)}, step)

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock anew."""
        self._start()

    def _speed(self) -> dict[str, float]:
        """Return what was done since the clock was started, over the time it took, and start it anew."""
        seconds = time.perf_counter() - self._since
        speed = {
            "vitals/samples_per_second": self._samples / seconds,
            "vitals/step_seconds": seconds / max(self._steps, 1),
            "vitals/data_wait_share": self._waited / seconds,
        }
        self._start()
        return speed

    def _start(self) -> None:
        self._since, self._waited = time.perf_counter(), 0.0
        self._steps = self._samples = 0


class Bars(TrainerCallback):
    """Shows a bar an epoch, and behind it what the newest evaluation came to."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._metrics: dict[str, float] = {}

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the epoch's bar with its first step, or with the first one after a resume."""
        if self._bar is None:
            batches = len(kwargs["train_dataloader"])
            epoch, done = divmod(state.global_step, batches)
            self._bar = epoch_bar(1 + epoch, state.num_train_epochs, batches, done)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.update()

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Show the newest losses."""
        self._metrics |= tagged(kwargs["logs"])
        if self._bar is not None:
            self._bar.set_postfix_str(self._shown("train/loss"), refresh=False)

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        """Write what the epoch came to."""
        self.close()
        print(f"  {self._shown('val/')}", flush=True)

    def close(self) -> None:
        """Leave the bar as it is, on a line of its own."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def _shown(self, prefix: str) -> str:
        return ", ".join(
            f"{tag} {value:.3f}" for tag, value in self._metrics.items() if tag.startswith(prefix)
        )


def tagged(logs: Mapping[str, float]) -> dict[str, float]:
    """Return what a Trainer logs under our tags, {'eval_loss': 0.5} as {'val/loss': 0.5}.

    Left out: its own count of epochs, what an evaluation cost, and the summary at the end of a training.
    """
    metrics = {TRAIN[key]: value for key, value in logs.items() if key in TRAIN}
    for key, value in logs.items():
        split, _, name = key.partition("_")
        if split in SPLITS and name not in COSTS:
            metrics[f"{SPLITS[split]}/{name}"] = value
    return metrics
