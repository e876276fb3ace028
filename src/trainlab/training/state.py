"""What Lightning leaves out of a checkpoint, and a training needs to go on as if it had never stopped.

Random numbers, an epoch's sums so far, and the last validation's metrics. Each process of a distributed
training has its own; where there are more or fewer of them after a resume, all take the first one's random
numbers, and it takes the sums of all.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.loops.fit_loop import RestartStage, _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from trainlab.run import signals
from trainlab.training.checkpoints import FullState, check_epochs
from trainlab.training.seed import random_state, set_random_state

if TYPE_CHECKING:
    import lightning
    from lightning.pytorch.loops.fetchers import _DataFetcher


LOGGED = (  # how a module logged a number, besides its reduction
    *("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph"),
    *("add_dataloader_idx", "dataloader_idx", "metric_attribute"),
)


def collect(trainer: lightning.Trainer) -> dict[str, Any]:
    """Return it for all processes, as plain values."""
    sums = {}
    for key, item in trainer.fit_loop.epoch_loop._results.items():
        if item.meta.on_epoch and not item.has_reset:
            metric = item if item.is_tensor else item.value  # Lightning's own sum, or a metric object
            sums[key] = {
                "meta": {name: getattr(item.meta, name) for name in LOGGED}
                | {"reduce_fx": item.meta.reduce_fx.__name__},
                "sync": [item.meta.sync.should, item.meta.sync.rank_zero_only],
                "values": dict(metric.metric_state),
                "count": metric._update_count,
            }
    processes: list[Any] = [{"random": random_state(), "sums": sums}]
    if trainer.world_size > 1:
        (own,), processes = processes, [None] * trainer.world_size
        torch.distributed.all_gather_object(processes, own)
    return {"processes": processes, "callback_metrics": dict(trainer._logger_connector._callback_metrics)}


def restore_metrics(trainer: lightning.Trainer, saved: dict[str, Any]) -> None:
    """Go on with the sums of the epoch and the metrics of the last validation."""
    processes = saved["processes"]
    same = len(processes) == trainer.world_size
    for key, own in processes[trainer.global_rank if same else 0]["sums"].items():
        parts = [each["sums"][key]["values"] for each in processes] if trainer.is_global_zero else []
        known = own if same else _added(own, parts)
        trainer.fit_loop.epoch_loop._results[key] = _with_sum(trainer, known)
    trainer._logger_connector._callback_metrics.update(saved["callback_metrics"])
    trainer._logger_connector._first_loop_iter = False  # else Lightning starts the sums anew


def restore_random(trainer: lightning.Trainer, saved: dict[str, Any]) -> None:
    """Go on with the random numbers that would have come next."""
    processes = saved["processes"]
    same = len(processes) == trainer.world_size
    set_random_state(processes[trainer.global_rank if same else 0]["random"])


def _added(known: dict[str, Any], parts: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    """Add up a sum's parts, none to 0; all go on from a metric object, or from a largest or smallest."""
    known = known | {"sync": [True, known["sync"][1]]}  # one process has no say in that
    if known["meta"]["metric_attribute"] is not None or known["meta"]["reduce_fx"] not in ("mean", "sum"):
        return known
    zeros = {name: torch.zeros_like(value) for name, value in known["values"].items()}
    return known | {"values": {name: sum((each[name] for each in parts), zeros[name]) for name in zeros}}


def _with_sum(trainer: lightning.Trainer, known: dict[str, Any]) -> _ResultMetric:
    """Return a number as if it had been logged until now."""
    meta = _Metadata(**known["meta"])
    should, rank_zero_only = known["sync"]
    should = trainer._accelerator_connector.is_distributed and should
    meta.sync = _Sync(fn=trainer.strategy.reduce, _should=should, rank_zero_only=rank_zero_only)
    item = _ResultMetric(meta, is_tensor=meta.metric_attribute is None)
    if not item.is_tensor:
        item.value = trainer.lightning_module.get_submodule(meta.metric_attribute or "")
    metric = item if item.is_tensor else item.value
    for name, value in move_data_to_device(known["values"], trainer.strategy.root_device).items():
        setattr(metric, name, value)
    metric._computed = None
    metric._update_count = item._update_count = known["count"]
    return item


class NoSignals(_SignalConnector):
    """Leaves signals to `trainlab.run.signals`."""

    def register_signal_handlers(self) -> None:
        """Do nothing."""


class FitLoop(_FitLoop):
    """All epochs. SIGTERM and SIGINT wait for the end of the step at work."""

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
        if self.max_epochs is not None and self.max_epochs >= 0:
            check_epochs(self.max_epochs, done)

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
    trainer._signal_connector.__class__ = NoSignals
    trainer.fit_loop.states = trainer.fit_loop.epoch_loop.states = states  # type: ignore[attr-defined]
    trainer.fit_loop.epoch_loop.waited = 0.0  # type: ignore[attr-defined]
