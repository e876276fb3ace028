"""A module of the user's own as a recipe: any that is called with tensors, and returns tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.run.restoring import BEST
from trainlab.serving.export import Recipe
from trainlab.serving.networks import Network

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from trainlab.serving.bundle import Bundle
    from trainlab.serving.gate import Gate

NETWORK = "module.onnx"
INPUT, OUTPUT, ITEMS = "input", "output", "items"


class Called(nn.Module):
    """A module that is called with its input's tensors one by one, and returns those of its output."""

    def __init__(self, module: nn.Module, form: Any) -> None:
        super().__init__()
        self.module = module
        self._form = form

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return what the module makes of its input, as a tuple of tensors."""
        if isinstance(self._form, dict):
            found = self.module(dict(zip(self._form, tensors, strict=True)))
        else:
            found = self.module(tensors[0] if isinstance(self._form, Tensor) else tuple(tensors))
        return tuple(parts(found).values())


def load(module: nn.Module, run: Path) -> None:
    """Give a module the weights of a run's best checkpoint; raise UserError where there are none that fit."""
    if not (run / BEST).is_file():
        raise UserError(
            f"{run.name} has no {BEST}: run.callbacks() keeps one after each validation. Choose another run."
        )
    weights = checkpoint.load(run / BEST).get("state_dict")
    try:
        module.load_state_dict(weights)  # type: ignore[arg-type]
    except Exception as error:  # of other names or sizes, or no weights at all
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"The weights of {run.name} are not this module's: {reason}") from None


def recipe(module: nn.Module, batches: Sequence[Any]) -> Recipe:
    """Return what a trained module becomes.

    Args:
        module: Called with one of `batches`.
        batches: Inputs of two items at least: a tensor [N, ...], a tuple of such, or a dict by name. It is
            exported by the first and measured on all.

    Returns:
        The recipe. Its network's inputs are called as the dict's keys, or `input`, or `input_0`, `input_1`.

    Raises:
        UserError: Inputs or outputs are no tensors, or of fewer than two items.
    """
    called = Called(module, batches[0]).eval()
    given = [parts(batch, INPUT) for batch in batches]
    if any(len(tensor) < 2 for tensor in given[0].values()):
        raise UserError(
            "The first batch has one item: expected two at least, or its size would be a constant."
        )
    with torch.inference_mode():
        expected = [[each.numpy() for each in called(*batch.values())] for batch in given]
    outputs = list(parts(tuple(expected[0]) if len(expected[0]) > 1 else expected[0][0], OUTPUT))
    example = {name: tensor[:2] for name, tensor in given[0].items()}

    def measure(bundle: Bundle, gate: Gate) -> None:
        session = bundle.session(NETWORK)
        gate.note("items", sum(len(next(iter(batch.values()))) for batch in given))
        arrays = [{name: tensor.numpy() for name, tensor in batch.items()} for batch in given]
        together = [session.run(None, batch) for batch in arrays]
        alone = [_alone(session, batch) for batch in arrays]
        for name, found in (("alone", alone), ("in_batches", together)):
            for place, output in enumerate(outputs):
                pairs = [(true[place], got[place]) for true, got in zip(expected, found, strict=True)]
                true, got = (
                    np.concatenate([each.reshape(len(each), -1) for each in side])
                    for side in zip(*pairs, strict=True)
                )
                gate.close(f"{output}_{name}", true, got)
                if pairs[0][0].ndim == 2 and true.shape[1] > 1:
                    other = int((true.argmax(1) != got.argmax(1)).sum())
                    gate.at_most(f"other_largest_{output}_{name}", other, 0)

    return Recipe(
        "module",
        {NETWORK: Network(called, example, _axes(given), outputs)},
        {
            "inputs": {name: str(each.dtype).removeprefix("torch.") for name, each in example.items()},
            "outputs": outputs,
        },
        measure,
    )


def parts(value: Any, name: str = "") -> dict[str, Any]:
    """Return the tensors of an input or output by name; raise UserError where it is anything else."""
    if isinstance(value, Tensor | np.ndarray):
        return {name: value}
    listed = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, tuple | list)
        else ()
    )
    found = {str(key) if isinstance(value, dict) else f"{name}_{key}": each for key, each in listed}
    if not found or not all(isinstance(each, Tensor | np.ndarray) for each in found.values()):
        raise UserError(
            f"The module is called with, or returns, {type(value).__name__}. Expected a tensor, a tuple "
            "of tensors, or a dict of them; a subject's inputs(batch) says what it is called with."
        )
    return found


def _axes(given: Sequence[Mapping[str, Tensor]]) -> dict[str, dict[int, str]]:
    """Return which dimensions may have another size: the first, and those that differ among batches."""
    axes = {}
    for name, first in given[0].items():
        shapes = [batch[name].shape for batch in given]
        free = {
            axis: f"{name}_{axis}"
            for axis in range(1, first.ndim)
            if len({each[axis] for each in shapes}) > 1
        }
        axes[name] = {0: ITEMS, **free}
    return axes


def _alone(session: Any, batch: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    rows = range(len(next(iter(batch.values()))))
    found = [session.run(None, {name: each[row : row + 1] for name, each in batch.items()}) for row in rows]
    return [np.concatenate(each) for each in zip(*found, strict=True)]
