"""Lightning's training loops, with one place in each step and each epoch where a training can be left.

That place in a step is behind the optimizer's step and its logging, and before the validation that may
follow: whoever goes on from there does what was left of the step, then the next one. Lightning's own choices
lose something: saved in `on_train_batch_end` the validation, saved at its end the metrics of the epoch.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loops.fit_loop import RestartStage, _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from trainlab.errors import UserError
from trainlab.run import signals
from trainlab.training.checkpoints import FullState

if TYPE_CHECKING:
    import lightning
    from lightning.pytorch.loops.fetchers import _DataFetcher


class FitLoop(_FitLoop):
    """All epochs. SIGTERM and SIGINT wait for the end of the current step."""

    states: FullState

    def run(self) -> None:
        """Train."""
        with signals.deferred() as self.states.deferral:
            self.states.deferral.at_once = True  # until the first step
            try:
                self.states.resume(self.trainer)
                super().run()
            except (KeyboardInterrupt, signals.Terminated):
                self.states.interrupted(self.trainer)
                raise

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        """Refuse a checkpoint of more epochs than wanted."""
        super().on_load_checkpoint(state_dict)
        done = self.epoch_progress.current.completed
        if self.max_epochs is not None and 0 <= self.max_epochs < done:
            raise UserError(
                f"epochs={self.max_epochs}: this run has trained {done} epochs already. "
                f"Take epochs={done} or more, or start a new run."
            )

    def setup_data(self) -> None:
        """Get the loaders ready, with the place where a checkpoint left them.

        A module that asks for `estimated_stepping_batches` has them ready before the checkpoint is read;
        Lightning would then start the epoch at its first batch.
        """
        super().setup_data()
        self._load_combined_loader_states()

    def on_advance_start(self) -> None:
        """Start an epoch; the first one after a resume between epochs with its own random numbers."""
        if self.is_resuming and self._restart_stage == RestartStage.NONE:
            self._resuming_from_checkpoint = False  # so that Lightning draws this epoch's order now, as ever
            self.states.restore_random(self.trainer)
        super().on_advance_start()

    def on_advance_end(self) -> None:
        """End an epoch."""
        self._restarting = False  # Lightning would leave out the learning rate's plateaus
        super().on_advance_end()
        self.states.after_epoch(self.trainer)

    def on_run_end(self) -> None:
        """End the training."""
        self.states.at_end(self.trainer)
        super().on_run_end()


class EpochLoop(_TrainingEpochLoop):
    """The steps of an epoch."""

    states: FullState
    waited: float  # seconds, for data

    def reset(self) -> None:
        """Start an epoch, or go on in the midst of one."""
        between_epochs = self.trainer.fit_loop._restart_stage == RestartStage.NONE
        if between_epochs:
            self.restarting = False  # Lightning leaves it set where the number of steps is limited
        super().reset()
        if self._rest_is_due():
            self.states.restore_random(self.trainer)

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Make a step; nothing where a checkpoint's step is made, and only its rest is due."""
        if self._rest_is_due():
            self.restarting = False
            return
        self.states.before_step()
        super().advance(data_fetcher)

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """Do the rest of a step: validation where it is time, learning rate, counters."""
        if not self._should_accumulate():
            long_rest = self._num_ready_batches_reached() or self._should_check_val_fx(data_fetcher)
            self.states.after_step(self.trainer, long_rest)
        super().on_advance_end(data_fetcher)

    def _on_before_fetch(self) -> None:
        super()._on_before_fetch()
        self.waited -= time.perf_counter()

    def _on_after_fetch(self) -> None:
        self.waited += time.perf_counter()
        super()._on_after_fetch()

    def _rest_is_due(self) -> bool:
        return self.restarting and self.restarted_on_last and self.trainer.fit_loop.restarted_mid_epoch


def install(trainer: lightning.Trainer, states: FullState) -> None:
    """Make a Trainer's own loops these: all that it knows by now, such as the data, stays as it is."""
    trainer.fit_loop.__class__, trainer.fit_loop.epoch_loop.__class__ = FitLoop, EpochLoop
    # signals are handled by `trainlab.run.signals`
    vars(trainer._signal_connector).update(register_signal_handlers=lambda: None)
    trainer.fit_loop.states = trainer.fit_loop.epoch_loop.states = states  # type: ignore[attr-defined]
    trainer.fit_loop.epoch_loop.waited = 0.0  # type: ignore[attr-defined]
