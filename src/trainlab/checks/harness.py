"""The workbench of the checks: fresh seeded modules, batches, and short trainings on the CPU."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

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


@dataclass
class Training:
    """A short training: the loss of each step, and what the fixed batch's outputs were after each epoch."""

    module: LightningModule
    losses: list[float] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """The mean loss of the last quarter of the steps."""
        last = self.losses[-max(1, len(self.losses) // EPOCHS) :]
        return sum(last) / len(last) if last else math.nan


Until = Callable[[Training], bool]


class Bench:
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
    def fixed(self) -> Any:
        """A few examples that predictions are looked at for, again and again."""
        return self.examples(FIXED)

    @cached_property
    def started(self) -> LightningModule:
        """A module after one step, to be looked at: a last layer that began at zero hid all before it."""
        return self.train(self.module(), [self.batch]).module

    @cached_property
    def real(self) -> Training:
        """The subject's own training, a short one; checks compare others with it."""
        return self.course(self.module(), watch=True)

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
        """Return the data loader of training."""
        loader = loader_of(data or self.data, "train")
        if loader is None:
            raise MissingFactError("a train_dataloader")
        return loader

    def examples(self, count: int, *, repeat: int = 1) -> Any:
        """Return the first examples of the training set as one batch, each `repeat` times."""
        loader = self.loader()
        dataset = rows_of(loader)
        rows = list(range(min(count, len(dataset)))) * repeat
        batches = DataLoader(Subset(dataset, rows), batch_size=len(rows), collate_fn=loader.collate_fn)
        return next(iter(batches))

    def course(
        self, module: LightningModule, change: Callable[[Any], Any] | None = None, *, watch: bool = False
    ) -> Training:
        """Train on the training set for the subject's `steps`, each batch changed where asked."""
        steps = self.subject.steps
        watcher = _Watcher(self, Training(module), watch=watch)
        loader = Stream(self.loader(), change)
        return self._train(watcher, loader, max_steps=steps, limit_train_batches=max(1, steps // EPOCHS))

    def train(
        self,
        module: LightningModule,
        batches: Iterable[Any],
        *,
        until: Until | None = None,
        still: bool = False,
    ) -> Training:
        """Train on these batches, or until `until` says so; `still` leaves the weights as they are."""
        watcher = _Watcher(self, Training(module), until=until, still=still)
        return self._train(watcher, Stream(batches), max_epochs=1)

    def _train(self, watcher: _Watcher, batches: Stream, **options: Any) -> Training:
        self.reseed()
        with quiet():
            plain_trainer(watcher, **options).fit(watcher.training.module, batches)
        return watcher.training

    def outputs(self, module: LightningModule, batch: Any) -> Tensor:
        """Return the outputs of a batch in evaluation mode, without gradients."""
        with evaluating(module), torch.no_grad():
            return self.subject.outputs(module, batch).detach().clone()

    def right(self, module: LightningModule, batch: Any) -> tuple[int, int]:
        """Return how many predictions of a batch are right, and of how many.

        Batch norm works as in training: its running figures lag behind a network that learns quickly.
        """
        with evaluating(module, batch_norm=True), torch.no_grad():
            found, targets = self.subject.predictions(module, batch), self.subject.targets(batch)
        counted = targets >= 0
        return int((found == targets)[counted].sum()), int(counted.sum())


class Stream:
    """Batches for a Trainer, which takes a list for several loaders; each changed on its way where asked."""

    def __init__(self, batches: Iterable[Any], change: Callable[[Any], Any] | None = None) -> None:
        self._batches, self._change = batches, change

    def __iter__(self) -> Iterator[Any]:
        return map(self._change, self._batches) if self._change else iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]  # TypeError where there is no length: as it is asked


class _Watcher(Callback):
    """Notes losses and predictions, holds the learning rate constant, and stops a training that is done."""

    def __init__(
        self,
        bench: Bench,
        training: Training,
        *,
        watch: bool = False,
        until: Until | None = None,
        still: bool = False,
    ) -> None:
        self._bench, self.training = bench, training
        self._watch, self._until, self._still = watch and _watchable(bench), until, still

    def on_train_start(self, trainer: lightning.Trainer, module: LightningModule) -> None:
        """Take the schedules away: a warm-up would not get beyond its first steps here."""
        trainer.strategy.lr_scheduler_configs = []
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.0 if self._still else group.get("initial_lr", group["lr"])
        self._look(module)

    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        """Note the step's loss."""
        outputs = arguments[1]  # after the module
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is None:
            raise MissingFactError("a training_step that returns the loss")
        self.training.losses.append(float(loss))
        if self._until and self._until(self.training):
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: LightningModule) -> None:  # noqa: ARG002
        """Look at the fixed batch."""
        self._look(module)

    def _look(self, module: LightningModule) -> None:
        if self._watch:
            self.training.outputs.append(self._bench.outputs(module, self._bench.fixed))
            self.training.texts.append(_described(self._bench, module))


def _watchable(bench: Bench) -> bool:
    """Say whether outputs can be looked at; the check that needs them says what is missing."""
    try:
        bench.outputs(bench.started, bench.fixed)
    except MissingFactError:
        return False
    return True


def _described(bench: Bench, module: LightningModule) -> str:
    with evaluating(module), torch.no_grad():
        try:
            lines = bench.subject.describe(module, bench.fixed)
        except MissingFactError:
            lines = [str(row) for row in bench.subject.outputs(module, bench.fixed).tolist()]
    return "".join(f"    {line}\n" for line in lines)  # Markdown: as it is


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
    """Put a module into evaluation mode, its batch norm excepted where asked, and back again."""
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
    logs = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [log.level for log in logs]
    with warnings.catch_warnings(), interruptible():
        warnings.simplefilter("ignore")
        for log in logs:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for log, level in zip(logs, levels, strict=True):
                log.setLevel(level)
