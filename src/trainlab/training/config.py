"""The settings that every experiment has: those of both trainers, and those of Lightning's alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from trainlab import trackers
from trainlab.config import Config
from trainlab.errors import UserError
from trainlab.run.run import HOSTS

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}  # of `checkpoint_every`, in seconds
INTERVAL = re.compile(r"(?P<steps>\d+)|(?P<number>\d+(\.\d+)?)(?P<unit>[smh])")


def _share_or_count(value: Any) -> Any:
    """Read text as Lightning does: '10' is a number of batches, '0.1' and '1.0' are shares."""
    if isinstance(value, str):
        return int(value) if value.strip().isdigit() else float(value)
    return value


Precision = Annotated[
    Literal["32-true", "bf16-mixed", "16-mixed", "auto"],
    BeforeValidator(lambda value: "32-true" if str(value) == "32" else value),
]
Mode = Annotated[  # true and false are Transformers' greater_is_better
    Literal["auto", "min", "max"],
    BeforeValidator(lambda value: {"true": "max", "false": "min"}.get(str(value).lower(), value)),
]
# Transformers' names: 'accuracy' and 'eval_accuracy' are 'val/accuracy'
Tag = Annotated[str, BeforeValidator(lambda value: as_tag(str(value))), Field(min_length=1)]
Batches = Annotated[int | float, Field(ge=0), BeforeValidator(_share_or_count)]


class CommonConfig(Config):
    """The settings of both trainers, Lightning's (`TrainingConfig`) and Transformers' (`FineTuneConfig`).

    Training: `epochs`; `seed`; `precision` (auto: bf16-mixed where a measurement finds it faster);
    `accelerator`; `num_workers` prepare batches (auto: measured); `deterministic` algorithms also on the
    GPU, where they are slower.

    Checkpoints: everything a resume needs is saved each `checkpoint_every` (30s, 5m, 1h, or a number of
    steps) and at the end of each `every_n_epochs`; `keep` of these stay. Each holds the weights and, of Adam,
    twice as much besides: keep=2 takes seven times the weights' room with the best ones, keep=1 four times;
    `trainlab runs trim` leaves the best ones once the run is over. `resume` names the run to go on with.
    `mode` says whether less (min) or more (max) of the metric is better that the best weights are chosen by;
    auto: as the run's `metrics` say, or a well-known name such as loss or accuracy.

    `tracker` names where a run can be followed beside TensorBoard: csv, mlflow, wandb, or several: csv,wandb.

    Debugging: `fast_dev_run` batches of everything and no files; `limit_..._batches` as a share (0.1) or a
    number (10).
    """

    epochs: int = Field(3, ge=1)
    seed: int = Field(0, ge=0, lt=2**32)
    precision: Precision = "32-true"
    accelerator: Literal["auto", "cpu", "cuda", "mps", "tpu"] = "auto"
    num_workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    deterministic: bool = False
    checkpoint_every: str = "5m"
    every_n_epochs: int = Field(1, ge=1)
    keep: int = Field(2, ge=1)
    mode: Mode = "auto"
    tracker: str = "tensorboard"
    fast_dev_run: int = Field(0, ge=0)
    limit_train_batches: Batches = 1.0
    limit_val_batches: Batches = 1.0
    limit_test_batches: Batches = 1.0
    resume: str = Field("", exclude=True)  # of this start, not of the run

    ALIASES: ClassVar[Mapping[str, str]] = {"max_epochs": "epochs", "device": "accelerator"}

    # What a resumed run may be given anew: these don't change what is learned, or only for how long.
    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        {
            *("epochs", "accelerator", "num_workers", "deterministic"),
            *("checkpoint_every", "every_n_epochs", "keep", "tracker"),
            "mode",  # the run refuses another direction than it had
        }
    )

    @field_validator("tracker")
    @classmethod
    def _known_trackers(cls, value: str) -> str:
        return ",".join(trackers.parse(value)) or trackers.ALWAYS

    @field_validator("checkpoint_every", mode="before")
    @classmethod
    def _interval(cls, value: Any) -> str:
        text = str(value).strip()
        found = INTERVAL.fullmatch(text)
        if not found or float(found["steps"] or found["number"]) <= 0:
            raise ValueError("expected a time such as 30s, 5m or 1h, or a number of steps such as 500")
        return text

    def is_due(self, step: int, saved: int, seconds: float) -> bool:
        """Return whether a checkpoint is due after a step, `seconds` after that of the step `saved`."""
        found = INTERVAL.fullmatch(self.checkpoint_every)
        assert found, "checked above"
        if every := int(found["steps"] or 0):
            return step // every > saved // every
        return seconds >= float(found["number"]) * UNITS[found["unit"]]

    @property
    def device(self) -> str:
        """The device of what is computed beside a Trainer; the CPU for a TPU, which Lightning alone uses."""
        import torch

        if self.accelerator == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return "cpu" if self.accelerator == "tpu" else self.accelerator

    def check_machine(self) -> None:
        """Check that this machine has device, precision and trackers; raise UserError otherwise.

        torch is loaded where a setting needs it alone: it takes seconds, and `trainlab run` waits for this.
        """
        trackers.require(trackers.parse(self.tracker))
        if self.accelerator not in ("auto", "cpu"):
            self._check_accelerator()
        if self.accelerator == "tpu" and self.precision not in ("32-true", "auto"):
            raise UserError(f"precision={self.precision}: on a TPU use precision=32-true.")
        if self.precision == "16-mixed" and self.device == "cpu":
            raise UserError(
                "precision=16-mixed needs a GPU. On the CPU use precision=32-true or precision=bf16-mixed."
            )

    def _check_accelerator(self) -> None:
        """Raise UserError unless the accelerator that is asked for is there."""
        import torch

        no_xla = "PyTorch needs torch_xla for a TPU, which is not installed: pip install 'torch_xla[tpu]'"
        missing = {
            "cuda": (torch.cuda.is_available(), "torch sees no GPU here"),
            "mps": (torch.backends.mps.is_available(), "torch sees no GPU of Apple's here"),
            "tpu": (find_spec("torch_xla"), no_xla),
        }
        found, what = missing[self.accelerator]
        if not found:
            raise UserError(
                f"accelerator={self.accelerator}: {what}. Or use accelerator=auto or accelerator=cpu; "
                "trainlab doctor says more."
            )


class TrainingConfig(CommonConfig):
    """The settings of `trainlab.training.Trainer`; an experiment's settings add its own.

    So many `devices`, one process each, which share every batch (DDP); of so many hosts (`nodes`: 2, or from
    1 to 2 of them as 1:2; see docs/nodes.md), which are taken for lost after `host_timeout` seconds without
    an answer: more than the largest checkpoint takes to be written. The best `save_top_k` epochs by `monitor`
    are kept (-1: all). With `patience` the training ends once `monitor` has not improved for so many
    validations in a row. `overfit_batches` trains on the same few in each epoch, and validates on as
    many. A step takes the mean gradient of `accumulate_grad_batches` batches.
    """

    devices: int = Field(1, ge=1)
    nodes: str = Field("1", pattern=r"^[1-9]\d*(:[1-9]\d*)?$")
    host_timeout: int = Field(20, ge=1)
    monitor: str = Field("val/loss", min_length=1)
    save_top_k: int = Field(1, ge=-1)
    patience: int | None = Field(None, ge=1)
    overfit_batches: Batches = 0
    accumulate_grad_batches: int = Field(1, ge=1)

    ALIASES: ClassVar[Mapping[str, str]] = {
        **CommonConfig.ALIASES,
        "accumulate": "accumulate_grad_batches",
    }
    MAY_CHANGE: ClassVar[frozenset[str]] = CommonConfig.MAY_CHANGE | {
        "devices",
        "nodes",
        "host_timeout",
        "save_top_k",
        "patience",
    }

    def check_machine(self) -> None:
        """Check that this machine has the devices and their precision; raise UserError otherwise."""
        super().check_machine()
        self.check_nodes()
        if self.devices == 1:  # which is there
            return
        import torch

        known = {"cuda": torch.cuda.device_count(), "mps": 1}.get(self.device, self.devices)
        if self.devices > known:
            raise UserError(
                f"devices={self.devices}: this machine has {known} GPU(s). Use fewer, or accelerator=cpu."
            )

    def check_nodes(self) -> None:
        """Check that several hosts were started as such; raise UserError otherwise."""
        if self.nodes != "1" and HOSTS not in os.environ:
            raise UserError(
                f"nodes={self.nodes}: hosts find each other where each is started by the same line: "
                f"trainlab run WHAT nodes={self.nodes} --join HEAD --name NAME. On HEAD: trainlab store."
            )


LAST = "last"  # no metric chooses: the last weights are the run's


def as_tag(name: str) -> str:
    """Return our tag for one of Transformers' names: 'accuracy' and 'eval_accuracy' are 'val/accuracy'."""
    return name if "/" in name or name in ("", LAST) else f"val/{name.removeprefix('eval_')}"


class FineTuneConfig(CommonConfig):
    """The settings of a fine-tuning with the Transformers Trainer; an experiment's settings add its own.

    AdamW with `weight_decay`; `batch_size` examples a step; the learning rate rises to `learning_rate` in
    `warmup_steps` and falls to 0 in a straight line. Each `logging_steps` the losses are logged and the
    model is evaluated, in batches of `eval_batch_size`. The weights with the best `metric_for_best` are kept
    (last: those of the last step; `greater_is_better` is another name of `mode`); with `patience` the
    training ends after so many evaluations in a row without a better one. `num_workers=auto` is 0.

    The defaults are those of "Mastering Transformers", chapter 5.
    """

    batch_size: int = Field(16, ge=1)
    eval_batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(5e-5, gt=0)
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    logging_steps: int = Field(50, ge=1)
    metric_for_best: Tag = "val/loss"
    patience: int | None = Field(None, ge=1)

    ALIASES: ClassVar[Mapping[str, str]] = {
        **CommonConfig.ALIASES,
        "num_train_epochs": "epochs",
        "per_device_train_batch_size": "batch_size",
        "per_device_eval_batch_size": "eval_batch_size",
        "metric_for_best_model": "metric_for_best",
        "greater_is_better": "mode",
        "early_stopping_patience": "patience",
    }

    def check_machine(self) -> None:
        """Check the machine, and that `patience` has a metric to watch; raise UserError otherwise."""
        super().check_machine()
        if self.patience is not None and self.metric_for_best == LAST:
            raise UserError(
                f"patience={self.patience} metric_for_best={LAST}: no metric says when to stop. Name one, "
                "such as metric_for_best=val/loss, or leave patience out."
            )
