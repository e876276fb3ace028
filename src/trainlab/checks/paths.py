"""Checks of the way through the network: each example by itself, and the fast way as right as the slow."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from lightning.fabric.utilities.apply_func import apply_to_collection
from torch import Tensor, nn

from trainlab.checks.finding import Outcome, check
from trainlab.checks.harness import FIXED, evaluating
from trainlab.checks.subject import MissingFactError

if TYPE_CHECKING:
    from lightning import LightningModule

    from trainlab.checks.harness import Bench

FOLLOWED = 8  # outputs, each by a pass back through the network
RELATIVE, ABSOLUTE = 1e-4, 1e-5  # what the order of additions may change, in 32 bits


@check(
    11,
    "no leak across the batch",
    passes="the gradient of output i reaches input i alone, in evaluation mode",
    means="a view or reshape that mixes the batch's dimension with another, an operation over the wrong "
    "dimension, or batch norm without running figures",
)
def leaks(bench: Bench) -> Outcome:
    """Follow each output's gradient back to the examples that it comes from."""
    reached = trace(bench, training=False)
    wrong = reached.wrong()
    count = len(reached.rows)
    found = f"{count - len(wrong)} of {count} outputs come from their own input alone"
    if wrong:
        found += f"; output {wrong[0]} from {reached.told(wrong[0])}"
    elif trace(bench, training=True).shared():
        found += "; in training mode the batch is mixed, as by batch norm"
    return Outcome(not wrong, found)


@check(
    13,
    "fast path equals slow path",
    passes=f"allclose to a loop: relative {RELATIVE:g}, absolute {ABSOLUTE:g}",
    means="padding that is seen, a wrong mask or order, or batch norm without running figures",
)
def paths(bench: Bench) -> Outcome:
    """Compare the outputs with the same made the plain way."""
    module = bench.started
    fast = bench.outputs(module, bench.batch)
    with evaluating(module), torch.no_grad():
        slow = bench.subject.slow(module, bench.batch)
    if fast.shape != slow.shape:
        return Outcome(False, f"shape {list(fast.shape)}, the slow path's {list(slow.shape)}")
    difference = float((fast - slow).abs().max())
    same = torch.allclose(fast, slow, rtol=RELATIVE, atol=ABSOLUTE)
    return Outcome(same, f"{list(fast.shape)}, largest difference {difference:.2g}")


@dataclass
class Reached:
    """Which rows of which inputs each output's gradient reaches: a set of (input, row) for each output.

    Rows of the first `ordered` inputs stand in the batch's order; a network may order the others itself.
    """

    rows: list[set[tuple[int, int]]]
    ordered: int

    def shared(self) -> set[tuple[int, int]]:
        """Return the rows that more than one output comes from."""
        counts = Counter(row for rows in self.rows for row in rows)
        return {row for row, count in counts.items() if count > 1}

    def wrong(self) -> list[int]:
        """Return the outputs that come from nothing, from another's input, or from a shared one."""
        shared = self.shared()
        return [
            output
            for output, rows in enumerate(self.rows)
            if not rows or rows & shared or any(row != output for each, row in rows if each < self.ordered)
        ]

    def told(self, output: int) -> str:
        """Return what an output comes from, in words."""
        rows = sorted({row for _, row in self.rows[output]})
        return f"inputs {rows}" if rows else "no input at all"


@dataclass
class _Traced:
    outputs: Tensor
    floats: list[Tensor]
    embedded: list[Tensor]


def trace(bench: Bench, *, training: bool) -> Reached:
    """Return what each of the fixed batch's first outputs comes from.

    Followed are the batch's own floats and bytes and, for ids, what embeddings make of them; of these only
    the ones that grow with the batch: those of positions, say, belong to all examples.
    """
    module = bench.started
    with evaluating(module):
        module.train(training)
        full, fewer = (_traced(bench, module, count) for count in (FIXED, FIXED // 2))
    size = len(full.outputs)
    floats = [each for each in full.floats if each.ndim and len(each) == size]
    embedded = [
        each
        for each, other in zip(full.embedded, fewer.embedded, strict=False)
        if len(each) % size == 0 and len(each) * len(fewer.outputs) == len(other) * size
    ]
    if not floats and not embedded:
        raise MissingFactError("outputs(module, batch) made of the batch's floats, or by an nn.Embedding")
    weights = torch.randn(full.outputs.shape[1:])  # a plain sum is constant behind a softmax or a layer norm
    rows = [_rows((row * weights).sum(), [*floats, *embedded]) for row in full.outputs[:FOLLOWED]]
    return Reached(rows, len(floats))


def _traced(bench: Bench, module: LightningModule, count: int) -> _Traced:
    """Return the outputs of the first examples, and what they are followed back to."""
    floats: list[Tensor] = []
    embedded: list[Tensor] = []

    def leaf(tensor: Tensor, kept: list[Tensor]) -> Tensor:
        kept.append(tensor.detach().clone().requires_grad_())
        return kept[-1]

    def traced(tensor: Tensor) -> Tensor:
        number = tensor.is_floating_point() or tensor.dtype == torch.uint8  # pictures are bytes
        return leaf(tensor.float(), floats) if number else tensor

    batch = apply_to_collection(bench.examples(count), Tensor, traced)
    with ExitStack() as hooks:
        for each in module.modules():
            if isinstance(each, nn.Embedding):
                hook = each.register_forward_hook(lambda _module, _given, output: leaf(output, embedded))
                hooks.callback(hook.remove)
        return _Traced(bench.subject.followed(module, batch), floats, embedded)


def _rows(output: Tensor, inputs: list[Tensor]) -> set[tuple[int, int]]:
    gradients = torch.autograd.grad(output, inputs, retain_graph=True, allow_unused=True)
    return {
        (place, int(row))
        for place, gradient in enumerate(gradients)
        if gradient is not None
        for row in gradient.flatten(1).ne(0).any(1).nonzero().flatten()
    }
