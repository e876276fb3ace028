"""What a training keeps on the disk, and when."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback, Checkpoint

from trainlab.errors import nearest
from trainlab.runs import checkpoint, record
from trainlab.runs.metrics import lower_is_better
from trainlab.training import state
from trainlab.training.recording import RunLogger

if TYPE_CHECKING:
    from pathlib import Path

    import lightning

    from trainlab.runs.interruption import Deferral
    from trainlab.runs.run import Run
    from trainlab.training.config import TrainingConfig
    from trainlab.training.trainer import Trainer

BEST = "best.ckpt"


class States(Callback):
    """Keeps `step-00000240.ckpt`, all that a resume needs, and `last.ckpt`, the newest of them.

    They are written after the steps that `checkpoint_every` names, at the end of each `every_n_epochs`-th
    epoch and of the training, and when it is interrupted; never when it fails. The `keep` newest stay.
    """

    deferral: Deferral

    def __init__(self, run: Run, config: TrainingConfig) -> None:
        self._run, self._config = run, config
        self._loaded: dict[str, Any] = {}  # what `state` has to restore
        self._saved = -1  # the step of the newest file
        self._between_epochs = False  # whether that file was written there
        self._since = time.monotonic()
        self._pending: dict[str, Any] | None = None  # what `rescue` is to write

    def on_save_checkpoint(self, trainer: lightning.Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning leaves out."""
        checkpoint[state.KEY] = state.collect(trainer)

    def on_load_checkpoint(self, _: Any, __: Any, checkpoint: dict[str, Any]) -> None:
        """Take it from a checkpoint; those of other programs don't have it."""
        self._loaded = checkpoint.get(state.KEY, {})

    def resume(self, trainer: Trainer) -> None:
        """Take the run's curves back to the checkpoint that was loaded, if one was."""
        self._since = time.monotonic()
        if self._loaded:
            state.restore_metrics(trainer, self._loaded)
        if trainer.resumed_from is not None:
            self._saved = trainer.global_step
            if trainer.is_global_zero:
                self._run.rewind(trainer.global_step, trainer.resumed_from)
                print(f"going on from step {trainer.global_step}: {trainer.resumed_from}", flush=True)
            for logger in trainer.loggers:
                if isinstance(logger, RunLogger):
                    logger.resumed_at = trainer.global_step

    def restore_random(self, trainer: Trainer) -> None:
        """Go on with the loaded checkpoint's random numbers."""
        if self._loaded:
            state.restore_random(trainer, self._loaded)
        self._loaded = {}

    def before_step(self) -> None:
        """Forget the step before: its weights are about to change."""
        self._pending = None
        self.deferral.at_once = False

    def after_step(self, trainer: Trainer, long_rest: bool) -> None:
        """Save where it is time; be prepared to save during a long rest, such as a validation."""
        if trainer.global_step != self._saved:
            if self._agreed(trainer, self._is_due(trainer)):
                self._save(trainer)
            elif long_rest and not _dry(trainer):
                self._pending = self._state(trainer)
        self.deferral.stop()
        self.deferral.at_once = long_rest

    def after_epoch(self, trainer: Trainer) -> None:
        """Save at the end of an epoch."""
        at_end = trainer.current_epoch % self._config.every_n_epochs == 0
        if self._agreed(trainer, at_end or self._is_due(trainer)):
            self._save(trainer, between_epochs=True)
        self.deferral.stop()

    def at_end(self, trainer: Trainer) -> None:
        """Save at the end of the training."""
        if trainer.global_step != self._saved or not self._between_epochs:
            self._save(trainer, between_epochs=True)

    def rescue(self, trainer: Trainer) -> None:
        """Save the last whole step of an interrupted training, if it is at hand and not yet on the disk."""
        if self._pending is None:
            return
        try:
            self._write(trainer, self._pending)
        except checkpoint.CheckpointError as error:
            print(f"warning: {error}", flush=True)

    def _is_due(self, trainer: Trainer) -> bool:
        if self.deferral.requested:
            return True
        if steps := self._config.checkpoint_steps:
            return trainer.global_step % steps == 0
        return time.monotonic() - self._since >= (self._config.checkpoint_seconds or math.inf)

    def _agreed(self, trainer: Trainer, due: bool) -> bool:
        """Return what the first process decided, and let it decide about interruptions too."""
        if trainer.world_size == 1:
            return due
        due, self.deferral.requested = trainer.strategy.broadcast((due, self.deferral.requested))
        return due

    def _state(self, trainer: Trainer) -> dict[str, Any]:
        return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)

    def _save(self, trainer: Trainer, *, between_epochs: bool = False) -> None:
        if not _dry(trainer):
            self._write(trainer, self._state(trainer))
            self._between_epochs = between_epochs

    def _write(self, trainer: Trainer, saved: dict[str, Any]) -> None:
        step = saved["global_step"]
        path = self._run.checkpoints / f"step-{step:08d}.ckpt"
        trainer.strategy.save_checkpoint(saved, path)  # the first process does
        self._saved, self._pending, self._since = step, None, time.monotonic()
        if trainer.is_global_zero:
            checkpoint.alias(path, checkpoint.LAST)
            self._tidy(step)

    def _tidy(self, step: int) -> None:
        """Delete all but the newest; later ones are damaged, or of a training that was taken back."""
        steps = {int(path.stem[5:]): path for path in self._run.checkpoints.glob("step-*.ckpt")}
        kept = sorted(each for each in steps if each <= step)[-self._config.keep :]
        for each in steps.keys() - set(kept):
            checkpoint.remove(steps[each])


class Best(Checkpoint):
    """Keeps `best.ckpt`, the weights with the best value of `monitor` so far, and names it in `run.json`.

    Each validation counts, or each epoch where `monitor` is no metric of the validation. With `save_top_k` of
    more than 1 the others lie beside it, as `best-step-00000240.ckpt`; with 0 nothing is kept.
    """

    def __init__(self, run: Run, config: TrainingConfig) -> None:
        self._run, self._monitor, self._most = run, config.monitor, config.save_top_k
        self._sign = 1 if lower_is_better(config.monitor) else -1
        self._values: dict[int, float] = {}  # of the kept ones, by step
        self._told = False

    @property
    def best_model_path(self) -> str:
        """The file, as text, or ''; Lightning asks for it where `ckpt_path="best"`."""
        path = self._run.checkpoints / BEST
        return str(path) if path.is_file() else ""

    def state_dict(self) -> dict[str, Any]:
        """Return the values of the kept ones."""
        return {"values": self._values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the kept ones."""
        self._values = dict(state_dict["values"])

    def on_train_start(self, *_: Any) -> None:
        """Take a file into account that is newer than the state that is gone on from."""
        known = record.read(self._run.folder).model_dump().get("best_checkpoint") or {}
        if known.get("monitor") == self._monitor and self.best_model_path:
            self._values.setdefault(known["step"], float(known["value"]))

    def on_validation_end(self, trainer: lightning.Trainer, _: Any) -> None:
        """Judge by the validation's metrics."""
        metrics = trainer._logger_connector.metrics["callback"]
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self._monitor in metrics:
            self._judge(trainer, float(metrics[self._monitor]))

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: Any) -> None:
        """Judge by the epoch's metrics, if there are those alone."""
        metrics = trainer.callback_metrics
        validated = self._monitor in {each.meta.name for each in _validation(trainer)}
        if self._monitor in metrics and not validated:
            self._judge(trainer, float(metrics[self._monitor]))
        elif self._monitor not in metrics and not self._told and not _dry(trainer):
            self._told = True
            print(_unknown(self._monitor, list(metrics)), flush=True)

    def _judge(self, trainer: lightning.Trainer, value: float) -> None:
        step = trainer.global_step
        better = self._most < 0 or len(self._values) < self._most or self._rank(value) < self._worst()
        if _dry(trainer) or not trainer.strategy.broadcast(better and step not in self._values):
            return
        self._values[step] = value
        ranked = sorted(self._values, key=lambda each: (self._rank(self._values[each]), each))
        kept = ranked if self._most < 0 else ranked[: self._most]
        self._save(trainer, step, first=kept[0] == step)
        self._values = {each: self._values[each] for each in kept}
        if trainer.is_global_zero:
            self._tidy()

    def _save(self, trainer: lightning.Trainer, step: int, first: bool) -> None:
        path = self._path(step)
        trainer.save_checkpoint(path, weights_only=True)
        if not (first and trainer.is_global_zero):
            return
        if path.name != BEST:
            checkpoint.alias(path, BEST)
        told = {"monitor": self._monitor, "value": self._values[step], "step": step}
        relative = (self._run.checkpoints / BEST).relative_to(self._run.folder)
        self._run.update(best_checkpoint={"path": str(relative), **told})

    def _path(self, step: int) -> Path:
        return self._run.checkpoints / (BEST if self._most == 1 else f"best-step-{step:08d}.ckpt")

    def _tidy(self) -> None:
        kept = {self._path(step) for step in self._values}
        for path in self._run.checkpoints.glob("best-step-*.ckpt"):
            if path not in kept:
                checkpoint.remove(path)

    def _rank(self, value: float) -> float:
        """Return the value, or its opposite, so that less is better; NaN is worse than anything."""
        return math.inf if math.isnan(value) else self._sign * value

    def _worst(self) -> float:
        return max(map(self._rank, self._values.values()), default=-math.inf)


def _dry(trainer: Any) -> bool:
    return bool(trainer.fast_dev_run)


def _validation(trainer: lightning.Trainer) -> list[Any]:
    return list(trainer.fit_loop.epoch_loop.val_loop._results.values())


def _unknown(monitor: str, known: list[str]) -> str:
    return (
        f"warning: monitor={monitor}: nothing of that name was logged, so there is no best.ckpt. "
        f"Logged: {', '.join(sorted(known)) or 'nothing'}.{nearest(monitor, known)}"
    )
