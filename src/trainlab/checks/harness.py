"""What every check works with: fresh seeded modules, batches, and short trainings on the CPU."""

from __future__ import annotations

import inspect
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from trainlab.checks.subject import MissingFactError, loader_of, rows_of
from trainlab.training.trainer import interruptible

if TYPE_CHECKING:
    from lightning import LightningDataModule, LightningModule

    from trainlab.checks.subject import Subject

EPOCHS = 4  # of a training, at least: the fixed batch is looked at after each
FIXED = 8  # examples of the fixed batch
BATCH_NORMS = nn.modules.batchnorm._BatchNorm
Status = Literal["passed", "failed", "skipped"]


class CheckResult(NamedTuple):
    """What a check's function returns: whether it passed, and what a `Finding` has of it."""

    passed: bool
    found: str
    curves: Mapping[str, Sequence[float]] = {}
    texts: Mapping[str, Sequence[str]] = {}


@dataclass(frozen=True)
class Finding:
    """What one check came to.

    Attributes:
        number: The check's number in the recipe.
        name: What the check is called.
        status: Skipped where the subject does not give what the check needs.
        found: What was found, in words and figures.
        threshold: When it passes, in words.
        means: What a failure usually means.
        seconds: How long it took.
        curves: Losses by TensorBoard's tag, one a step.
        texts: Markdown by TensorBoard's tag, one an epoch.
    """

    number: int
    name: str
    threshold: str
    means: str
    status: Status = "skipped"
    found: str = ""
    seconds: float = 0.0
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict, repr=False)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)


# Each check by its number: a finding that is still empty, and the function that makes the check.
# The modules `learning` and `data` fill it.
CHECKS: dict[int, tuple[Finding, Callable[[CheckContext], CheckResult]]] = {}


def check(number: int, name: str) -> Callable[[Any], Any]:
    """Register a function as the check of this number in the recipe.

    It takes a `CheckContext` and returns a `CheckResult`. Its docstring ends with the words of the tables:
    when it passes, behind "Passes:", and what a failure usually means, behind "Failure:".
    """

    def register(run: Callable[[CheckContext], CheckResult]) -> Callable[[CheckContext], CheckResult]:
        words = " ".join((inspect.getdoc(run) or "").partition("Passes:")[2].split())
        passes, _, means = words.partition(" Failure: ")
        CHECKS[number] = Finding(number, name, passes, means), run
        return run

    return register


@dataclass(eq=False)
class Training(Callback):
    """A short training: each step's loss, and what came of the fixed batch before it and after each epoch.

    Args:
        context: What it is part of.
        module: What is trained.
        watch: Look at the context's fixed batch.
        until: Called after each step; the training ends where it returns True.
        freeze_weights: Leave the weights as they are: the losses are wanted alone.
    """

    context: CheckContext
    module: LightningModule
    watch: bool = False
    until: Callable[[Training], bool] | None = None
    freeze_weights: bool = False
    losses: list[float] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """The mean loss of the last quarter of the steps."""
        last = self.losses[-max(1, len(self.losses) // EPOCHS) :]
        return sum(last) / len(last) if last else math.nan

    def run(self, batches: Iterable[Any], change: Callable[[Any], Any] | None = None, **options: Any) -> Self:
        """Train on these batches, each of them changed first where asked; `options` are the Trainer's."""
        self.context.reseed()
        with quiet():
            plain_trainer(self, **options).fit(self.module, _Batches(batches, change))
        return self

    def on_train_start(self, trainer: lightning.Trainer, module: LightningModule) -> None:
        """Hold the learning rate constant: a warm-up would not get beyond its first steps here."""
        trainer.strategy.lr_scheduler_configs = []
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.0 if self.freeze_weights else group.get("initial_lr", group["lr"])
        self.on_train_epoch_end(trainer, module)

    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        """Note the step's loss, and stop a training that is done."""
        outputs = arguments[1]  # after the module
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is None:
            raise MissingFactError("a training_step that returns the loss")
        self.losses.append(float(loss))
        if self.until and self.until(self):
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: LightningModule) -> None:  # noqa: ARG002
        """Look at the fixed batch."""
        if not self.watch:
            return
        batch = self.context.fixed_batch
        self.outputs.append(self.context.outputs(module, batch))
        with evaluating(module), torch.no_grad():
            try:
                lines = self.context.subject.describe(module, batch)
            except MissingFactError:
                lines = [str(row) for row in self.outputs[-1].tolist()]
        self.texts.append("".join(f"    {line}\n" for line in lines))  # Markdown: as it is


class CheckContext:
    """A subject with its data set up, and what several checks share; everything is drawn from `seed`."""

    def __init__(self, subject: Subject, seed: int = 0) -> None:
        self.subject, self.seed = subject, seed

    @cached_property
    def data(self) -> LightningDataModule:
        """The subject's data, set up for training and, where there is such a split, for testing."""
        return self.fresh_data()

    @cached_property
    def batch(self) -> Any:
        """The first batch of training."""
        self.reseed()
        return next(iter(self.loader()))

    @cached_property
    def fixed_batch(self) -> Any:
        """A few examples that predictions are looked at for, again and again."""
        return self.examples(FIXED)

    @cached_property
    def warm_module(self) -> LightningModule:
        """A module after one step, to be looked at: a last layer that began at zero hid all before it."""
        return self.train(self.module(), [self.batch]).module

    @cached_property
    def baseline_run(self) -> Training:
        """The subject's own training, a short one; checks compare others with it."""
        return self.train_full(self.module(), watch=True)

    def reseed(self) -> None:
        """Set all random states to the seed."""
        lightning.seed_everything(self.seed, verbose=False)

    def fresh_data(self) -> LightningDataModule:
        """Return data read anew."""
        self.reseed()
        data = self.subject.data()
        data.prepare_data()
        data.setup("fit")
        if is_overridden("test_dataloader", data):
            data.setup("test")
        return data

    def module(self, make: Callable[[], LightningModule] | None = None) -> LightningModule:
        """Return a fresh module with the seed's weights: the subject's, or one that `make` makes."""
        self.reseed()
        return (make or self.subject.module)().cpu()

    def loader(self, data: LightningDataModule | None = None) -> Any:
        """Return the data loader of training; raise MissingFactError where there is none."""
        loader = loader_of(data or self.data, "train")
        if loader is None:
            raise MissingFactError("a train_dataloader")
        return loader

    def examples(self, count: int, *, repeat: int = 1) -> Any:
        """Return the first `count` examples of the training set as one batch, each `repeat` times."""
        loader = self.loader()
        dataset = rows_of(loader)
        rows = list(range(min(count, len(dataset)))) * repeat
        batches = DataLoader(Subset(dataset, rows), batch_size=len(rows), collate_fn=loader.collate_fn)
        return next(iter(batches))

    def train_full(
        self, module: LightningModule, change: Callable[[Any], Any] | None = None, *, watch: bool = False
    ) -> Training:
        """Train a fresh module on the training set for the subject's `steps`.

        Each batch goes through `change` first. With `watch` the fixed batch is looked at after each of
        `EPOCHS` epochs, where the subject gives outputs.
        """
        batches, steps = self.loader(), self.subject.steps
        if watch:
            try:
                self.outputs(self.warm_module, self.fixed_batch)
            except MissingFactError:  # the check that needs outputs says what is missing
                watch = False
        each = max(1, steps // EPOCHS)
        return Training(self, module, watch).run(batches, change, max_steps=steps, limit_train_batches=each)

    def train(self, module: LightningModule, batches: Iterable[Any], **options: Any) -> Training:
        """Train a fresh module on these batches, each once; `options` are those of `Training`."""
        return Training(self, module, **options).run(batches, max_epochs=1)

    def outputs(self, module: LightningModule, batch: Any) -> Tensor:
        """Return the outputs [N, ...] of a batch in evaluation mode, without gradients."""
        with evaluating(module), torch.no_grad():
            return self.subject.outputs(module, batch).detach().clone()

    def count_right(self, module: LightningModule, batch: Any) -> tuple[int, int]:
        """Return how many predictions of a batch are right, and of how many.

        Batch norm works as in training: its running figures lag behind a network that learns quickly.
        """
        with evaluating(module, batch_norm=True), torch.no_grad():
            found, targets = self.subject.predictions(module, batch), self.subject.targets(batch)
        counted = targets >= 0
        return int((found == targets)[counted].sum()), int(counted.sum())


class _Batches:
    """Batches for a Trainer, which takes a list for several loaders; each changed on its way where asked."""

    def __init__(self, batches: Iterable[Any], change: Callable[[Any], Any] | None = None) -> None:
        self._batches, self._change = batches, change

    def __iter__(self) -> Iterator[Any]:
        return map(self._change, self._batches) if self._change else iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]  # TypeError where there is no length: as it is asked


def plain_trainer(*callbacks: Callback, **options: Any) -> lightning.Trainer:
    """Return a Trainer on the CPU that writes nothing anywhere."""
    return lightning.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=DummyLogger(),  # a module may call its logger by name
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"max_epochs": -1, "limit_val_batches": 0} | options,
    )


@contextmanager
def evaluating(module: nn.Module, *, batch_norm: bool = False) -> Iterator[None]:
    """Put a module into evaluation mode, with `batch_norm` all but its batch norm, and back again."""
    before = [(each, each.training) for each in module.modules()]
    module.eval()
    for each in module.modules():
        if batch_norm and isinstance(each, BATCH_NORMS):
            each.train()
    try:
        yield
    finally:
        for each, training in before:
            each.training = training


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what Lightning says of trainings that are this short on purpose; Ctrl-C stays Ctrl-C."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), interruptible():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
