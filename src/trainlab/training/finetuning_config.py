"""The settings that every experiment has which fine-tunes with the Transformers Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from trainlab.training.config import CommonConfig


def _as_tag(value: Any) -> Any:
    """Read Transformers' names: 'accuracy' and 'eval_accuracy' are 'val/accuracy'."""
    name = str(value)
    return name if "/" in name or not name else f"val/{name.removeprefix('eval_')}"


class FineTuneConfig(CommonConfig):
    """What `trainlab.training.FineTuner` is told; an experiment's settings add its own.

    AdamW with `weight_decay`; `batch_size` examples a step; the learning rate rises to `learning_rate` in
    `warmup_steps` and falls to 0 in a straight line. Each `logging_steps` the losses are logged and the
    model is evaluated, in batches of `eval_batch_size`. The weights with the best `metric_for_best` are kept
    (`greater_is_better` is another name of `mode`).

    The defaults are those of "Mastering Transformers", chapter 5.
    """

    batch_size: int = Field(16, ge=1)
    eval_batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(5e-5, gt=0)
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    logging_steps: int = Field(50, ge=1)
    metric_for_best: Annotated[str, BeforeValidator(_as_tag)] = Field("val/loss", min_length=1)

    ALIASES: ClassVar[Mapping[str, str]] = {
        **CommonConfig.ALIASES,
        "num_train_epochs": "epochs",
        "per_device_train_batch_size": "batch_size",
        "per_device_eval_batch_size": "eval_batch_size",
        "metric_for_best_model": "metric_for_best",
        "greater_is_better": "mode",
    }
