"""The checkpoints of a training with Lightning: which are written, when, and how a run goes on from one."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, ModelCheckpoint

from trainlab.errors import UserError, nearest
from trainlab.run import checkpoint, signals
from trainlab.run.checkpoint import STEP
from trainlab.run.metrics import KNOWN
from trainlab.training import state
from trainlab.training.logger import RunLogger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import lightning

    from trainlab.run.run import Run
    from trainlab.run.signals import Deferral
    from trainlab.training.config import TrainingConfig

BEST = "best.ckpt"
KEY = "trainlab"  # in a checkpoint, for what a Trainer leaves out


class VerifiedCheckpoints(CheckpointIO):
    """Saves whole or not at all, and loads only what was saved (see `trainlab.run.checkpoint`)."""

    def save_checkpoint(self, checkpoint_: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write a checkpoint with its digest beside it."""
        checkpoint.save(checkpoint_, Path(path))

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any = "cpu",
        weights_only: bool | None = True,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return a checkpoint; never other objects than plain ones, whatever `weights_only` says."""
        return checkpoint.load(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint and its digest."""
        checkpoint.remove(Path(path))


class FullState(Checkpoint):
    """Keeps `step-00000240.ckpt`, all that a resume needs, and `last.ckpt`, the newest of them.

    They are written after the steps or seconds that `checkpoint_every` names, at the end of each
    `every_n_epochs`-th epoch and of the training, and when it is stopped; never when it fails. The loops of
    `loops` say when: Lightning's own hooks lie before a step's or an epoch's end, and what is left of it
    would be lost on a resume. The `keep` newest files stay. `deferral` says whether somebody wants to stop.
    """

    deferral: Deferral

    def __init__(self, run: Run, config: TrainingConfig) -> None:
        self._run, self._config = run, config
        self._saved, self._between_epochs = -1, False  # the newest file's step, and place
        self._since = time.monotonic()
        self._step_since: float | None = None
        self._pending: dict[str, Any] | None = None  # what is saved if a stop comes during a long rest
        self._loaded: dict[str, Any] = {}  # what `state` has to restore

    def on_save_checkpoint(self, trainer: lightning.Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning leaves out."""
        checkpoint[KEY] = state.collect(trainer)

    def on_load_checkpoint(self, _: Any, __: Any, checkpoint: dict[str, Any]) -> None:
        """Take it from a checkpoint; those of other programs don't have it."""
        self._loaded = checkpoint.get(KEY, {})

    def resume(self, trainer: lightning.Trainer) -> None:
        """Take the run's curves back to the checkpoint that was loaded, if one was, and say so."""
        resumed_from = trainer.ckpt_path if self._run.checkpoint else None
        self._since, self._saved = time.monotonic(), trainer.global_step if resumed_from else -1
        if self._loaded:
            state.restore_metrics(trainer, self._loaded)
        if resumed_from and trainer.is_global_zero:
            self._run.rewind(trainer.global_step, Path(resumed_from))
            print(f"resumed from step {trainer.global_step}: {resumed_from}", flush=True)
            for logger in trainer.loggers:
                if isinstance(logger, RunLogger):
                    logger.resumed_at = trainer.global_step

    def restore_random(self, trainer: lightning.Trainer) -> None:
        """Go on with the loaded checkpoint's random numbers."""
        if self._loaded:
            state.restore_random(trainer, self._loaded)
        self._loaded = {}

    def before_step(self) -> None:
        """Forget the step before: its weights are about to change."""
        self._pending = None
        self.deferral.at_once = False
        if self._step_since is None:  # of several batches the first
            self._step_since = time.monotonic()

    def measure_step(self) -> None:
        """Take down how long a step may take, now that one is made: a stop waits for it (`runs.grace`)."""
        if self._step_since is None:
            return
        seconds, self._step_since = time.monotonic() - self._step_since, None
        self.deferral.took(seconds, self._run.update)

    def after_step(self, trainer: lightning.Trainer, long_rest: bool) -> None:
        """Save where it is time; be prepared to save during a long rest, such as a validation."""
        self.measure_step()
        if trainer.global_step == self._saved:
            self.deferral.stop()
        elif not self._settle(trainer) and long_rest:
            self._pending = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        self.deferral.at_once = long_rest
        if long_rest:
            self.deferral.stop()

    def after_epoch(self, trainer: lightning.Trainer) -> None:
        """Save at the end of an epoch."""
        due = trainer.current_epoch % self._config.every_n_epochs == 0
        self._settle(trainer, due=due, between_epochs=True)

    def at_end(self, trainer: lightning.Trainer) -> None:
        """Save at the end of the training."""
        if trainer.global_step != self._saved or not self._between_epochs:
            self._save(trainer, between_epochs=True)

    def interrupted(self, trainer: lightning.Trainer) -> None:
        """Save the last whole step, if it is at hand and not yet on the disk; other processes may be gone."""
        if self._pending is not None:
            try:
                self._save(trainer, self._pending)
            except checkpoint.CheckpointError as error:
                print(f"warning: {error}", flush=True)

    def _settle(self, trainer: lightning.Trainer, *, due: bool = False, between_epochs: bool = False) -> bool:
        """Save where it is time, as the first process decides, and stop if that or any other is to.

        A signal may arrive at any line. It is looked at once: one that comes later has its turn after the
        next step, so that no training stops without having saved. Returns whether it was saved.
        """
        step, seconds = trainer.global_step, time.monotonic() - self._since
        stop = self.deferral.requested
        due = due or stop is not None or self._config.is_due(step, max(self._saved, 0), seconds)
        if trainer.world_size > 1:
            said: list[Any] = [None] * trainer.world_size  # a host may have to leave that isn't the first
            torch.distributed.all_gather_object(said, (due, stop))
            stop = next((each for _, each in said if each is not None), None)
            due = said[0][0] or stop is not None
        if due:
            self._save(trainer, between_epochs=between_epochs)
        self.deferral.stop_by(stop)
        return due

    @signals.held()
    def _save(
        self, trainer: lightning.Trainer, saved: dict[str, Any] | None = None, *, between_epochs: bool = False
    ) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        saved = saved or trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        step, self._between_epochs = saved["global_step"], between_epochs
        path = self._run.checkpoints / f"{STEP}{step:08d}.ckpt"
        trainer.strategy.save_checkpoint(saved, path)  # the first process does
        self._saved, self._pending, self._since = step, None, time.monotonic()
        if not trainer.is_global_zero:
            return
        checkpoint.alias(path, checkpoint.LAST)
        # later ones are damaged, or of a training that was taken back
        found = {each: each.stem.removeprefix(STEP) for each in path.parent.glob(f"{STEP}*.ckpt")}
        steps = {int(number): each for each, number in found.items() if number.isdigit()}
        kept = sorted(each for each in steps if each <= step)[-self._config.keep :]
        for each in steps.keys() - set(kept):
            checkpoint.remove(steps[each])


class Best(ModelCheckpoint):
    """Lightning's, for the weights with the best value of `monitor`; `run.json` names them.

    `best.ckpt` is the best; with a `save_top_k` other than 1 the others lie beside it, as
    `best-step-00000240.ckpt`. Each validation counts, or each epoch where `monitor` is no metric of the
    validation. A module may call it otherwise: 'val_loss' is 'val/loss'.

    Raises:
        UserError: where nobody says which way the metric improves: weights would be deleted by a guess.
    """

    monitor: str
    state_key = Callback.state_key  # the same whatever the settings, which may change on a resume

    def __init__(self, run: Run, config: TrainingConfig) -> None:
        direction = run.direction(config.monitor, config.mode)
        if direction is None and config.save_top_k:
            raise UserError(undirected(config.monitor))
        super().__init__(
            dirpath=run.checkpoints,
            filename=Path(BEST).stem if config.save_top_k == 1 else f"best-{STEP}{{step:08d}}",
            monitor=config.monitor,
            mode=direction or "min",
            save_top_k=config.save_top_k,
            save_weights_only=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self._run = run
        self._steps: dict[str, int] = {}  # of the files in `best_k_models`
        self._warned = False

    def state_dict(self) -> dict[str, Any]:
        """Return the values of the kept ones by their steps: a run's folder may be moved."""
        return {"values": {self._steps[path]: float(each) for path, each in self.best_k_models.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the kept ones."""
        ranked = sorted(state_dict["values"].items(), key=lambda each: each[1], reverse=self.mode == "max")
        for step, value in ranked if self.save_top_k < 0 else ranked[: self.save_top_k]:
            path = self.format_checkpoint_name({"step": torch.tensor(step)})
            self._steps[path], self.best_k_models[path] = step, torch.tensor(value)
            self.kth_best_model_path, self.kth_value = path, torch.tensor(value)
            self.best_model_path = self.best_model_path or path
        self.best_model_score = self.best_k_models.get(self.best_model_path)

    def on_sanity_check_end(self, trainer: lightning.Trainer, _: Any) -> None:
        """Say before the training that the validation doesn't log the metric, where it is one of its own."""
        known = self._monitor_candidates(trainer)
        if self.monitor not in known and one_name(self.monitor).startswith("val_"):
            self._warn(trainer)

    @signals.held()
    def _save_topk_checkpoint(self, trainer: lightning.Trainer, monitor_candidates: dict[str, Any]) -> None:
        if self.monitor in monitor_candidates:
            super()._save_topk_checkpoint(trainer, monitor_candidates)
        else:
            self._warn(trainer)

    def _save_checkpoint(self, trainer: lightning.Trainer, filepath: str) -> None:
        """Write the weights; name them where they are the best."""
        self._steps[filepath] = trainer.global_step
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero and filepath == self.best_model_path:
            if Path(filepath).name != BEST:
                checkpoint.alias(Path(filepath), BEST)
            value, step = self.best_k_models[filepath].item(), trainer.global_step
            best = {"path": f"{checkpoint.FOLDER}/{BEST}", "monitor": self.monitor}
            self._run.update(best_checkpoint=best | {"value": value, "step": step})

    def _monitor_candidates(self, trainer: lightning.Trainer) -> dict[str, Any]:
        """Return what was logged, and find the metric in there under another of its names."""
        known = super()._monitor_candidates(trainer) | {"step": torch.tensor(trainer.global_step)}
        if (found := logged_name(self.monitor, known)) != self.monitor:
            self.monitor = found
            self._run.direction(found, self.mode)
        return known

    def _should_save_on_train_epoch_end(self, trainer: lightning.Trainer) -> bool:
        validated = {each.meta.name for each in trainer.fit_loop.epoch_loop.val_loop._results.values()}
        return logged_name(self.monitor, validated) not in validated

    def _warn(self, trainer: lightning.Trainer) -> None:
        """Say, once, that the metric is not among those that were logged."""
        known = trainer.callback_metrics
        if not self._warned and self.save_top_k and trainer.is_global_zero:
            self._warned = True
            logged = f"Logged: {', '.join(sorted(known)) or 'nothing'}.{nearest(self.monitor, known)}"
            nothing = "nothing of that name was logged, and without it there is no best.ckpt"
            print(f"warning: monitor={self.monitor}: {nothing}. {logged}", flush=True)


class Patience(EarlyStopping):
    """Lightning's: ends the training where `monitor` has not improved for `patience` judgements in a row."""

    monitor: str
    state_key = Callback.state_key  # the same whatever the settings, which may change on a resume

    def __init__(self, run: Run, config: TrainingConfig, patience: int) -> None:
        direction = run.direction(config.monitor, config.mode)
        if direction is None:
            raise UserError(undirected(config.monitor))
        super().__init__(config.monitor, patience=patience, mode=direction, strict=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what was counted, and with the patience that is asked for now."""
        super().load_state_dict(state_dict | {"patience": self.patience})

    def _run_early_stopping_check(self, trainer: lightning.Trainer) -> None:
        """Judge, by the name that the module gives to the metric."""
        self.monitor = logged_name(self.monitor, trainer.callback_metrics)
        super()._run_early_stopping_check(trainer)

    def on_train_end(self, trainer: lightning.Trainer, _: Any) -> None:
        """Say why it is over."""
        if self.stopped_epoch and trainer.is_global_zero:
            print(
                f"stopped after epoch {1 + self.stopped_epoch}: {self.monitor} has not been better than "
                f"{float(self.best_score):.3f} for the last {self.wait_count} (patience={self.patience})",
                flush=True,
            )


def one_name(tag: str) -> str:
    """Return what the names of one metric have in common; an evaluation is a validation."""
    return re.sub(r"^(eval|valid|validation)_", "val_", tag.replace("/", "_"))


def logged_name(monitor: str, logged: Iterable[str]) -> str:
    """Return the name under which a metric was logged: 'val_loss' is 'val/loss'; else its own."""
    alike = [tag for tag in logged if one_name(tag) == one_name(monitor)]
    return alike[0] if len(alike) == 1 else monitor


def undirected(monitor: str) -> str:
    """Return the message about a metric of which nobody knows which way it improves."""
    return (
        f"monitor={monitor}: the best weights are chosen by it, and it is unknown whether less or more "
        "of it is better. Set mode=min or mode=max among the settings, or "
        f"Run(..., metrics={{{monitor!r}: 'min'}}). Well-known names, such as loss and accuracy, need "
        f"nothing.{nearest(monitor.rpartition('/')[2], KNOWN)}"
    )


def check_plain(kept: Mapping[str, Any], owner: str, otherwise: str) -> None:
    """Check that the hyperparameters that an owner keeps in a checkpoint can be loaded again.

    Raises UserError that says what else can be done with the one called {name}.
    """
    for name, value in kept.items():
        if not _plain(value):
            raise UserError(
                f"{owner} keeps {name}, a {type(value).__name__}, among its hyperparameters. A checkpoint "
                "holds numbers, texts, tensors, lists and dicts: pass such, or "
                f"{otherwise.format(name=name)}."
            )


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_plain(each) for pair in value.items() for each in pair)
    if type(value) in (list, tuple, set):
        return all(map(_plain, value))
    return value is None or type(value) in (bool, int, float, complex, str, bytes, torch.Tensor)
