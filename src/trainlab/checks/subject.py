"""What is checked: a Lightning module, its data, and the facts that make a check possible."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.data import extract_batch_size
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from lightning import LightningDataModule, LightningModule

SPLITS = {"train": "train_dataloader", "validation": "val_dataloader", "test": "test_dataloader"}


class MissingFactError(Exception):
    """What a check needs and the subject does not give; the text says which. The check is skipped."""

    prefix = "the subject does not give"  # of the text, in a finding


class NotApplicableError(MissingFactError):
    """A check that has no meaning for such a subject; the text says why. The check is skipped."""

    prefix = "not applicable:"


@dataclass(frozen=True)
class Items:
    """The items of a split, one entry each.

    Attributes:
        keys: Equal keys are the same item.
        labels: The items' classes, where they have any.
        lengths: In words, say; an item of length 0 is empty.
    """

    keys: Sequence[Hashable]
    labels: Sequence[Hashable] | None = None
    lengths: Sequence[int] | None = None


class Subject:
    """What is checked: a module, its data, and what is known of them.

        Subject("mine", MyModel, MyData, classes=10)

    is enough where batches are pairs (inputs [N, ...], labels [N]) and the module, called with the inputs,
    returns scores [N, ..., classes]. Anything else takes a subclass, which overrides what raises
    `MissingFactError` below, or guesses wrongly. A check without its facts is skipped, never passed.

    Attributes:
        classes: Of a cross entropy.
        margin: Of a triplet loss.
        steps: Of a check's training, by the module's own optimizer at a constant learning rate.
        overfit_steps: The most that learning a few examples by heart may take.
        metric: The name of what `measure` returns.
        higher_is_better: The metric's direction.
    """

    classes: int | None = None
    margin: float | None = None
    steps: int = 200
    overfit_steps: int = 300
    metric: str = "accuracy"
    higher_is_better: bool = True

    def __init__(
        self,
        name: str,
        module: Callable[[], LightningModule],
        data: Callable[[], LightningDataModule],
        **facts: Any,
    ) -> None:
        """Make a subject.

        Args:
            name: Shown where it is checked.
            module: Called without arguments for a fresh module: the class itself will do.
            data: Called without arguments for fresh data: the class itself will do.
            **facts: Values of the class's attributes, such as `classes=10`.

        Raises:
            TypeError: A fact that is none of these attributes.
        """
        self.name, self.module, self.data = name, module, data
        for fact, value in facts.items():
            if fact not in Subject.__annotations__:
                raise TypeError(f"{fact}: no such fact. Known: {', '.join(Subject.__annotations__)}.")
            setattr(self, fact, value)

    # Batches, as the training's data loader gives them.

    def inputs(self, batch: Any) -> Any:
        """Return what the network reads of a batch, in the form that the module is called with."""
        return self._pair(batch, "inputs")[0]

    def targets(self, batch: Any) -> Tensor:
        """Return the right answers, whole numbers of any shape; negative ones count as left out."""
        return self._pair(batch, "targets")[1]

    def size(self, batch: Any) -> int:
        """Return how many examples a batch holds."""
        return extract_batch_size(batch)

    def zeroed(self, batch: Any) -> Any:
        """Return the batch with inputs that say nothing, zeros for instance, and the same targets."""
        inputs, targets = self._pair(batch, "zeroed")
        if not isinstance(inputs, Tensor):
            raise MissingFactError("zeroed(batch): the inputs are no tensor")
        return [torch.zeros_like(inputs), targets]

    def neutral(self, batch: Any) -> Any:
        """Return the batch, changed where an untrained network's loss would not be `initial_loss`."""
        return batch

    def decode(self, batch: Any) -> list[str]:  # noqa: ARG002
        """Turn a batch's ids back into texts, one for each: what the network really reads."""
        raise MissingFactError("decode(batch), and texts(data, rows)")

    def texts(self, data: LightningDataModule, rows: Sequence[int]) -> list[str]:  # noqa: ARG002
        """Return the source texts of these rows of the training set, in `decode`'s order."""
        raise MissingFactError("texts(data, rows)")

    # The network. Its mode is set by the check, mostly to evaluation; gradients are on where one needs them.

    def outputs(self, module: LightningModule, batch: Any) -> Tensor:
        """Return what the network makes of each example, floats [N, ...]."""
        if not is_overridden("forward", module):
            raise MissingFactError("outputs(module, batch), or a module with forward()")
        return module(self.inputs(batch))

    def followed(self, module: LightningModule, batch: Any) -> Tensor:
        """Return `outputs` by a way that the leak check can follow: embeddings keep the batch's dimension.

        To be overridden where the module packs a batch's tokens into one row.
        """
        return self.outputs(module, batch)

    def predictions(self, module: LightningModule, batch: Any) -> Tensor:
        """Return the network's answers, whole numbers of the shape of `targets`."""
        if self.classes is None:
            raise MissingFactError("classes, or predictions(module, batch)")
        return self.outputs(module, batch).argmax(-1)

    def slow(self, module: LightningModule, batch: Any) -> Tensor:
        """Return `outputs` [N, ...] made the plain way; unless overridden, by a loop over the examples."""
        inputs, targets = self._pair(batch, "slow")
        rows = range(len(inputs))
        return torch.cat([self.outputs(module, [inputs[i : i + 1], targets[i : i + 1]]) for i in rows])

    def smaller(self) -> LightningModule:
        """Return a fresh module of clearly less capacity: an eighth of the hidden units, say."""
        raise MissingFactError("smaller()")

    def describe(self, module: LightningModule, batch: Any) -> list[str]:
        """Return a line for each example of a batch: what the network answers, and what is right."""
        answers = zip(self.predictions(module, batch).tolist(), self.targets(batch).tolist(), strict=True)
        return [f"{answer} (right: {right})" for answer, right in answers]

    # What is known beforehand.

    def initial_loss(self) -> tuple[float, str]:
        """Return the loss that an untrained network has on `neutral` batches.

        Returns:
            The loss, and in words where it comes from. Cross entropy: ln(classes), for a network that takes
            all classes for alike. Triplet loss: the margin, for one that places everything at one distance.
        """
        if self.classes is not None:
            return math.log(self.classes), f"ln({self.classes})"
        if self.margin is not None:
            return self.margin, "the margin"
        raise MissingFactError("classes, margin or initial_loss()")

    def items(self, data: LightningDataModule, split: str) -> Items | None:
        """Return the items of a split, to be counted and compared with those of other splits.

        Args:
            data: The data module, set up.
            split: "train", "validation" or "test".

        Returns:
            All of them, or None where there is no such split.
        """
        loader = loader_of(data, split)
        if loader is None:
            return None
        dataset = rows_of(loader)
        pairs = [self._pair(dataset[row], "items(data, split)") for row in range(len(dataset))]
        if not all(isinstance(inputs, Tensor) for inputs, _ in pairs):
            raise MissingFactError("items(data, split): the inputs are no tensors")
        return Items(
            [_digest(inputs) for inputs, _ in pairs],
            [int(label) for _, label in pairs] if self.classes is not None else None,
            [int(inputs.count_nonzero()) for inputs, _ in pairs],
        )

    def validation_size(self, data: LightningDataModule) -> int:
        """Return how many examples a whole validation takes, counted as `size` counts them."""
        loader = loader_of(data, "validation")
        if loader is None:
            raise MissingFactError("a val_dataloader")
        if getattr(loader, "batch_size", None) is None:
            raise MissingFactError("validation_size(data)")
        return len(rows_of(loader))

    def measure(self, module: LightningModule, data: LightningDataModule) -> float:
        """Return `metric` of a trained network; the share of right answers in validation."""
        loader = loader_of(data, "validation")
        if loader is None:
            raise MissingFactError("a val_dataloader, or measure(module, data)")
        right = [(self.predictions(module, batch), self.targets(batch)) for batch in loader]
        hits = torch.cat([(found == target)[target >= 0].flatten() for found, target in right])
        return hits.double().mean().item()

    def baselines(self, data: LightningDataModule) -> dict[str, float]:
        """Return `metric` of simpler ways, by their names, which training has to beat.

        Unless overridden: of always answering the class that is commonest in training.
        """
        if self.classes is None:
            raise MissingFactError("classes, or baselines(data) and measure(module, data)")
        commonest = self.prior(data).argmax()
        loader = loader_of(data, "validation") or []
        targets = torch.cat([self.targets(batch).flatten() for batch in loader])
        return {"majority": (targets[targets >= 0] == commonest).double().mean().item()}

    def prior(self, data: LightningDataModule) -> Tensor:
        """Return each class's share of training [classes]: an epoch's targets, counted.

        A classifier whose final bias is the logarithm of this starts with the prior's entropy as its loss.
        """
        if self.classes is None:
            raise MissingFactError("classes")
        counts = torch.zeros(self.classes, dtype=torch.double)
        for batch in loader_of(data, "train"):
            targets = self.targets(batch).flatten()
            counts += torch.bincount(targets[targets >= 0], minlength=self.classes)
        return counts / counts.sum()

    def _pair(self, batch: Any, fact: str) -> Any:
        if isinstance(batch, tuple | list) and len(batch) == 2:
            return batch
        raise MissingFactError(f"{fact}: a batch is no pair (inputs, targets) but {type(batch).__name__}")


def loader_of(data: LightningDataModule, split: str) -> Any:
    """Return the data loader of a split that is set up, or None where there is none.

    Raises MissingFactError for several loaders of one split: which of them is meant, a subject has to say.
    """
    hook = SPLITS[split]
    if not is_overridden(hook, data):
        return None
    loader = getattr(data, hook)()
    if isinstance(loader, list | tuple | dict):
        raise MissingFactError(f"one {hook}: there are {len(loader)}")
    return loader


def rows_of(loader: Any) -> Any:
    """Return a loader's data set, which can be read row by row; raise MissingFactError where it can't."""
    dataset = getattr(loader, "dataset", None)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise MissingFactError("a data set with rows to be read one by one")
    return dataset


def _digest(inputs: Tensor) -> str:
    return hashlib.sha256(repr(inputs.shape).encode() + inputs.contiguous().numpy().tobytes()).hexdigest()
