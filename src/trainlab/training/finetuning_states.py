"""What a Transformers Trainer keeps on the disk, and how it goes on from there."""
# ruff: noqa: ARG002 - a callback's methods are told more than each needs

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from trainlab.run import checkpoint, signals
from trainlab.training.keeping import KEY, Keeper, Ranking, check_epochs
from trainlab.training.randomness import random_state, set_random_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import TrainerControl, TrainingArguments

    from trainlab.run.run import Run
    from trainlab.training.finetuning import FineTuner
    from trainlab.training.finetuning_config import FineTuneConfig


class FineTuneStates(Keeper, TrainerCallback):
    """Keeps all that a resume needs, and the weights with the best `metric_for_best`.

    Full states are written as with Lightning: after the steps that `checkpoint_every` names, at the end of
    each `every_n_epochs`-th epoch and of the training, and when it is interrupted; never when it fails.
    """

    _config: FineTuneConfig

    def __init__(self, run: Run, config: FineTuneConfig, tuner: FineTuner) -> None:
        super().__init__(run, config)
        self.ranking = Ranking(run, config.metric_for_best, mode=config.mode, setting="metric_for_best")
        self._tuner = tuner
        self._loaded: dict[str, Any] = {}  # what a resume has still to restore

    def load(self, path: Path, folder: Path) -> None:
        """Read a checkpoint, and put into `folder` the one part that the Trainer must read itself.

        Raises UserError for one that is damaged, or of more epochs than wanted.
        """
        self._loaded = checkpoint.load(path)
        known = TrainerState(**self._loaded["trainer_state"])
        check_epochs(self._config.epochs, math.ceil(known.epoch))
        known.save_to_json(str(folder / TRAINER_STATE_NAME))

    def restore_model(self) -> None:
        """Go on with the weights."""
        self._tuner.model.load_state_dict(self._loaded.pop("state_dict"))

    def restore_optimizer(self) -> None:
        """Go on with the optimizer, the learning rate and the scaling of 16-bit gradients."""
        tuner = self._tuner
        tuner.optimizer.load_state_dict(self._loaded.pop("optimizer_states")[0])
        tuner.lr_scheduler.load_state_dict(self._loaded.pop("lr_schedulers")[0])
        if (scaler := tuner.accelerator.scaler) is not None and self._loaded["scaler"]:
            scaler.load_state_dict(self._loaded["scaler"])

    def restore_random(self) -> None:
        """Go on with the random numbers that would have come next."""
        set_random_state(self._loaded[KEY]["random"])
        self._loaded = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the run back to the checkpoint that was loaded, if one was."""
        if not self._loaded:
            self.start(None)
            return
        own = self._loaded[KEY]
        self._tuner.order.load_state_dict(own["data"])
        self.start(state.global_step)
        assert self._tuner.resumed_from is not None, "only a run that is resumed has loaded a checkpoint"
        self.rewind(state.global_step, self._tuner.resumed_from)
        total, self._tuner._globalstep_last_logged = own["losses"]
        self._tuner._tr_loss += total
        self.ranking.values = dict(own["best"])
        self.ranking.resume()
        if own["evaluate"]:
            set_random_state(own["random"])
            self._tuner._evaluate(None, None)
            own["random"] = random_state()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the epoch's order."""
        self._tuner.order.sampler.set_epoch(state.global_step // len(self._tuner.order))

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Forget the step before."""
        self.before_step()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save where it is time; log the last losses too."""
        self.measure_step()
        control.should_save |= self.is_due(state.global_step)
        control.should_log |= state.global_step >= state.max_steps

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save at the end of an epoch."""
        at_end = round(state.epoch) % self._config.every_n_epochs == 0
        new = state.global_step != self._saved
        control.should_save |= new and (at_end or self.is_due(state.global_step))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save at the end of the training."""
        if state.global_step != self._saved:
            self.save()
        self.deferral.stop()

    def save(self) -> None:
        """Write a full state, then stop where somebody wants that."""
        if not self._config.fast_dev_run:
            self.write(self._state(evaluate=False))
        self.deferral.stop()

    def before_evaluation(self) -> None:
        """Be prepared to save during an evaluation, which takes long; stop before it if that is wanted."""
        if self._config.fast_dev_run:
            return
        self._pending = self._state(evaluate=True)
        self.deferral.at_once = True
        self.deferral.stop()

    def judge(self, metrics: Mapping[str, float]) -> None:
        """Keep the weights if they are the best so far, by an evaluation's {tag: value}."""
        value = self.ranking.logged(metrics)
        step = self._tuner.state.global_step
        if value is None:
            self.ranking.warn(metrics)
        elif not self._config.fast_dev_run and self.ranking.wants(step, value):
            self.ranking.add(step, value, lambda path: checkpoint.save(self._weights(), path))

    def interrupted(self) -> None:
        """Save the last whole step, if it is at hand and not yet on the disk."""
        self.rescue(self.write)

    @signals.held()
    def write(self, saved: dict[str, Any]) -> None:
        """Write a full state."""
        step = saved["global_step"]
        checkpoint.save(saved, self.path(step))
        self.written(step)

    def _weights(self) -> dict[str, Any]:
        """Return what evaluation needs."""
        state = self._tuner.state
        return {
            "state_dict": self._tuner.model.state_dict(),
            "hyper_parameters": self._tuner.hyper_parameters,
            "global_step": state.global_step,
            "epoch": state.epoch,
        }

    def _state(self, *, evaluate: bool) -> dict[str, Any]:
        """Return what a resume needs; `evaluate` where the step's evaluation is still to be made."""
        tuner = self._tuner
        scaler = tuner.accelerator.scaler
        return self._weights() | {
            "optimizer_states": [tuner.optimizer.state_dict()],
            "lr_schedulers": [tuner.lr_scheduler.state_dict()],
            "scaler": scaler.state_dict() if scaler is not None else None,
            "trainer_state": dataclasses.asdict(tuner.state),
            KEY: {
                "random": random_state(),
                "losses": [tuner._tr_loss.item(), tuner._globalstep_last_logged],  # since they were logged
                "best": dict(self.ranking.values),
                "data": tuner.order.state_dict(),
                "evaluate": evaluate,
            },
        }
