"""What a training with Lightning keeps on the disk, and when."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback, Checkpoint

from trainlab.run import signals
from trainlab.training import state
from trainlab.training.keeping import KEY, Keeper, Ranking
from trainlab.training.recording import RunLogger

if TYPE_CHECKING:
    from collections.abc import Iterable
    from signal import Signals

    import lightning

    from trainlab.run.run import Run
    from trainlab.training.config import TrainingConfig
    from trainlab.training.trainer import Trainer


class States(Keeper, Callback):
    """Keeps all that a resume needs.

    Full states are written after the steps that `checkpoint_every` names, at the end of each
    `every_n_epochs`-th epoch and of the training, and when it is interrupted; never when it fails.
    """

    _config: TrainingConfig

    def __init__(self, run: Run, config: TrainingConfig) -> None:
        super().__init__(run, config)
        self._loaded: dict[str, Any] = {}  # what `state` has to restore
        self._between_epochs = False  # whether the newest file was written there

    def on_save_checkpoint(self, trainer: lightning.Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning leaves out."""
        checkpoint[KEY] = state.collect(trainer)

    def on_load_checkpoint(self, _: Any, __: Any, checkpoint: dict[str, Any]) -> None:
        """Take it from a checkpoint; those of other programs don't have it."""
        self._loaded = checkpoint.get(KEY, {})

    def resume(self, trainer: Trainer) -> None:
        """Take the run's curves back to the checkpoint that was loaded, if one was."""
        self.start(None if trainer.resumed_from is None else trainer.global_step)
        if self._loaded:
            state.restore_metrics(trainer, self._loaded)
        if trainer.resumed_from is not None:
            if trainer.is_global_zero:
                self.rewind(trainer.global_step, trainer.resumed_from)
            for logger in trainer.loggers:
                if isinstance(logger, RunLogger):
                    logger.resumed_at = trainer.global_step

    def restore_random(self, trainer: Trainer) -> None:
        """Go on with the loaded checkpoint's random numbers."""
        if self._loaded:
            state.restore_random(trainer, self._loaded)
        self._loaded = {}

    def after_step(self, trainer: Trainer, long_rest: bool) -> None:
        """Save where it is time; be prepared to save during a long rest, such as a validation."""
        self.measure_step()
        stop = self.deferral.requested
        if trainer.global_step != self._saved:
            due, stop = self._agreed(trainer, self.is_due(trainer.global_step))
            if due:
                self._save(trainer)
            elif long_rest and not _dry(trainer):
                self._pending = self._state(trainer)
        self.deferral.stop_by(stop)
        self.deferral.at_once = long_rest
        if long_rest:
            self.deferral.stop()

    def after_epoch(self, trainer: Trainer) -> None:
        """Save at the end of an epoch."""
        at_end = trainer.current_epoch % self._config.every_n_epochs == 0
        due, stop = self._agreed(trainer, at_end or self.is_due(trainer.global_step))
        if due:
            self._save(trainer, between_epochs=True)
        self.deferral.stop_by(stop)

    def at_end(self, trainer: Trainer) -> None:
        """Save at the end of the training."""
        if trainer.global_step != self._saved or not self._between_epochs:
            self._save(trainer, between_epochs=True)

    def interrupted(self, trainer: Trainer) -> None:
        """Save the last whole step, if it is at hand and not yet on the disk."""
        self.rescue(lambda saved: self._write(trainer, saved))

    def _agreed(self, trainer: Trainer, due: bool) -> tuple[bool, Signals | None]:
        """Return whether to save, and the signal to stop by: what the first process decided.

        A signal may arrive at any line. It is looked at once: one that comes later has its turn after the
        next step, so that no training stops without having saved.
        """
        stop = self.deferral.requested
        due = due or stop is not None
        return (due, stop) if trainer.world_size == 1 else trainer.strategy.broadcast((due, stop))

    def _state(self, trainer: Trainer) -> dict[str, Any]:
        return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)

    def _save(self, trainer: Trainer, *, between_epochs: bool = False) -> None:
        if not _dry(trainer):
            self._write(trainer, self._state(trainer))
            self._between_epochs = between_epochs

    @signals.held()
    def _write(self, trainer: Trainer, saved: dict[str, Any]) -> None:
        step = saved["global_step"]
        trainer.strategy.save_checkpoint(saved, self.path(step))  # the first process does
        self.written(step, first_process=trainer.is_global_zero)


class Best(Checkpoint):
    """Keeps the weights with the best value of `monitor` (see `Ranking`).

    Each validation counts, or each epoch where `monitor` is no metric of the validation.
    """

    def __init__(self, run: Run, config: TrainingConfig) -> None:
        self._ranking = Ranking(run, config.monitor, config.save_top_k, mode=config.mode)

    @property
    def best_model_path(self) -> str:
        """The file, as text, or ''; Lightning asks for it where `ckpt_path="best"`."""
        return str(self._ranking.best or "")

    def state_dict(self) -> dict[str, Any]:
        """Return the values of the kept ones."""
        return {"values": self._ranking.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the kept ones."""
        self._ranking.values = dict(state_dict["values"])

    def on_train_start(self, *_: Any) -> None:
        """Take a file into account that is newer than the state that is gone on from."""
        self._ranking.resume()

    def on_validation_end(self, trainer: lightning.Trainer, _: Any) -> None:
        """Judge by the validation's metrics; say at the first one where the metric is missing."""
        metrics = trainer._logger_connector.metrics["callback"]
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if (value := self._ranking.logged(metrics)) is not None:
            self._judge(trainer, value)
        elif not _dry(trainer) and self._ranking.logged(_of_training(trainer)) is None:
            self._ranking.warn(metrics)

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: Any) -> None:
        """Judge by the epoch's metrics, if there are those alone."""
        metrics = trainer.callback_metrics
        value = self._ranking.logged(metrics)
        if value is None and not _dry(trainer):
            self._ranking.warn(metrics)
        elif value is not None and self._ranking.monitor not in _names(_validation(trainer)):
            self._judge(trainer, value)

    def _judge(self, trainer: lightning.Trainer, value: float) -> None:
        step = trainer.global_step
        if _dry(trainer) or not trainer.strategy.broadcast(self._ranking.wants(step, value)):
            return
        self._ranking.add(
            step,
            value,
            lambda path: trainer.save_checkpoint(path, weights_only=True),
            first_process=trainer.is_global_zero,
        )


def _dry(trainer: Any) -> bool:
    return bool(trainer.fast_dev_run)


def _validation(trainer: lightning.Trainer) -> list[Any]:
    return list(trainer.fit_loop.epoch_loop.val_loop._results.values())


def _of_training(trainer: lightning.Trainer) -> dict[str, float]:
    """Return the metrics that the epoch's training logs, and may know at its end alone."""
    return dict.fromkeys(_names(trainer.fit_loop.epoch_loop._results.values()), math.nan)


def _names(results: Iterable[Any]) -> set[str]:
    return {each.meta.name for each in results}
