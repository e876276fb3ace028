"""What Lightning leaves out of a checkpoint, and a training needs to go on as if it had never stopped.

Random numbers, an epoch's sums so far, and the last validation's metrics. Each process of a distributed
training has its own; where there are more or fewer of them after a resume, all take the first one's.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection

if TYPE_CHECKING:
    import lightning
    from torchmetrics import Metric

KEY = "trainlab"  # in a checkpoint


class EpochSums(_ResultCollection):
    """What a module logs in its training steps, summed over an epoch; goes on from a checkpoint's sums."""

    def __init__(self) -> None:
        super().__init__(training=True)
        self._before: dict[str, dict[str, Any]] = {}

    def sums(self) -> dict[str, dict[str, Any]]:
        """Return the sums of the epoch so far, {key: {state: tensor}}."""
        metrics = {key: each for key, each in self.items() if each.is_tensor and each.meta.on_epoch}
        return {key: each.metric_state for key, each in metrics.items() if not each.has_reset} | self._before

    def go_on_from(self, sums: dict[str, dict[str, Any]]) -> None:
        """Start each sum with a checkpoint's, when it is first added to."""
        self._before = dict(sums)

    def update_metrics(self, key: str, value: Any, batch_size: int) -> None:
        """Add a value; Lightning calls it."""
        for name, saved in self._before.pop(key, {}).items():
            setattr(self[key], name, saved.to(value.device))
        super().update_metrics(key, value, batch_size)

    def reset(self, *args: Any, **kwargs: Any) -> None:
        """Forget the epoch; Lightning calls it at the end of one."""
        self._before = {}
        super().reset(*args, **kwargs)

    def metric_objects(self) -> list[str]:
        """Return the names of the module's own metric objects that it logs."""
        return [
            each.meta.metric_attribute
            for each in self.values()
            if not each.is_tensor and each.meta.metric_attribute and not each.has_reset
        ]


def collect(trainer: lightning.Trainer) -> dict[str, Any]:
    """Return it for all processes, as plain values."""
    sums: EpochSums = trainer.fit_loop.epoch_loop._results  # type: ignore[assignment]
    module = trainer.lightning_module
    own = {
        "random": random_state(),
        "sums": sums.sums(),
        "metrics": {name: _state(module.get_submodule(name)) for name in sums.metric_objects()},
    }
    known = dict(trainer._logger_connector._callback_metrics)
    return {"processes": _of_all(trainer, own), "callback_metrics": known}


def restore_metrics(trainer: lightning.Trainer, saved: dict[str, Any]) -> None:
    """Go on with the sums of the epoch and the metrics of the last validation."""
    own = _of_this(trainer, saved["processes"])
    trainer.fit_loop.epoch_loop._results.go_on_from(own["sums"])  # type: ignore[attr-defined]
    for name, (values, count) in own["metrics"].items():
        _set_state(trainer.lightning_module.get_submodule(name), values, count)
    trainer._logger_connector._callback_metrics.update(saved["callback_metrics"])


def restore_random(trainer: lightning.Trainer, saved: dict[str, Any]) -> None:
    """Go on with the random numbers that would have come next."""
    set_random_state(_of_this(trainer, saved["processes"])["random"])


def random_state() -> dict[str, Any]:
    """Return the state of Python's, NumPy's, torch's and the GPU's global generators, as plain values."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def set_random_state(saved: dict[str, Any]) -> None:
    """Go back to a state; the GPU's only where it was saved and there is one."""
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = saved["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(saved["torch"].cpu())
    if saved["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(saved["cuda"].cpu())


def _state(metric: Any) -> tuple[dict[str, Any], int]:
    return dict(metric.metric_state), metric.update_count


def _set_state(metric: Metric | Any, values: dict[str, Any], count: int) -> None:
    for name, value in values.items():
        moved = (
            [each.to(metric.device) for each in value] if isinstance(value, list) else value.to(metric.device)
        )
        setattr(metric, name, moved)
    metric._update_count, metric._computed = count, None


def _of_all(trainer: lightning.Trainer, own: Any) -> list[Any]:
    if trainer.world_size == 1:
        return [own]
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, own)
    return gathered


def _of_this(trainer: lightning.Trainer, processes: list[Any]) -> Any:
    return processes[trainer.global_rank if len(processes) == trainer.world_size else 0]
