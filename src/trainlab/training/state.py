"""What Lightning leaves out of a checkpoint, and a training needs to go on as if it had never stopped.

Random numbers, an epoch's sums so far, and the last validation's metrics. Each process of a distributed
training has its own; where there are more or fewer of them after a resume, all take the first one's random
numbers, and it takes the sums of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync

from trainlab.training.seed import random_state, set_random_state

if TYPE_CHECKING:
    import lightning

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
    processes, own = saved["processes"], _own(trainer, saved)
    for key, known in own["sums"].items():
        parts = [each["sums"][key]["values"] for each in processes] if trainer.is_global_zero else []
        whole = known if len(processes) == trainer.world_size else _added(known, parts)
        trainer.fit_loop.epoch_loop._results[key] = _with_sum(trainer, whole)
    trainer._logger_connector._callback_metrics.update(saved["callback_metrics"])
    trainer._logger_connector._first_loop_iter = False  # else Lightning starts the sums anew


def restore_random(trainer: lightning.Trainer, saved: dict[str, Any]) -> None:
    """Go on with the random numbers that would have come next."""
    set_random_state(_own(trainer, saved)["random"])


def _own(trainer: lightning.Trainer, saved: dict[str, Any]) -> dict[str, Any]:
    """Return this process's part of a checkpoint; the first one's where there were more or fewer."""
    processes = saved["processes"]
    return processes[trainer.global_rank if len(processes) == trainer.world_size else 0]


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
