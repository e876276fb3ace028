"""Checks of the data and of its way through the network: nothing twice, nothing mixed, nothing left out."""

from __future__ import annotations

import unicodedata
from collections import Counter
from contextlib import ExitStack
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import apply_to_collection
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor, nn

from trainlab.checks.harness import FIXED, CheckResult, check, evaluating, plain_trainer, quiet
from trainlab.checks.subject import SPLITS, MissingFactError, rows_of

if TYPE_CHECKING:
    from lightning import LightningModule

    from trainlab.checks.harness import CheckContext
    from trainlab.checks.subject import Items

FEW_CLASSES = 20  # named one by one; of more the largest and the smallest
FOLLOWED = 8  # outputs, each by a pass back through the network
RELATIVE, ABSOLUTE = 1e-4, 1e-5  # what the order of additions may change, in 32 bits


@check(1, "data audit")
def audit(context: CheckContext) -> CheckResult:
    """Count duplicates, empty items, classes and lengths; an item in two splits is a failure.

    Passes: no item in two splits
    Failure: the split was made after items were duplicated, or by something else than the item: what is
        measured was learned by heart
    """
    found = {split: context.subject.items(context.data, split) for split in SPLITS}
    splits = {split: items for split, items in found.items() if items is not None}
    if len(splits) < 2:
        raise MissingFactError("a second split, validation or test")
    shared = {
        f"{one} and {other}": len({*splits[one].keys} & {*splits[other].keys})
        for one, other in combinations(splits, 2)
    }
    lines = [f"{split}: {_summary(items)}" for split, items in splits.items()]
    lines.append("in two splits: " + ", ".join(f"{count} ({pair})" for pair, count in shared.items()))
    return CheckResult(not any(shared.values()), "; ".join(lines))


def _summary(items: Items) -> str:
    parts = [f"{len(items.keys)} items", f"{len(items.keys) - len(set(items.keys))} duplicates"]
    if items.lengths is not None:
        lengths = np.asarray(items.lengths)
        low, high = np.quantile(lengths, (0.25, 0.75))
        reach = 1.5 * (high - low)  # an outlier lies 1.5 quartile ranges beyond a quartile
        outliers = int(((lengths < low - reach) | (lengths > high + reach)).sum())
        parts.append(f"{int((lengths == 0).sum())} empty")
        parts.append(f"lengths {lengths.min()} to {lengths.max()} ({outliers} outliers)")
    if items.labels is not None:
        classes = [f"{label}: {count}" for label, count in Counter(items.labels).most_common()]
        if len(classes) > FEW_CLASSES:
            classes = [*classes[: FEW_CLASSES // 2], "...", *classes[-FEW_CLASSES // 2 :]]
        parts.append("classes {" + ", ".join(classes) + "}")
    return ", ".join(parts)


@check(9, "decoded inputs")
def decoded(context: CheckContext) -> CheckResult:
    """Turn the tensors just before the network back into text, and compare it with the source.

    Passes: ids decode back to the text, whole or cut at its end
    Failure: another vocabulary than the network's, ids shifted by one, texts and labels out of step, or
        padding where text should be
    """
    decoded = context.subject.decode(context.fixed_batch)
    rows = range(min(FIXED, len(rows_of(context.loader()))))
    sources = context.subject.texts(context.data, rows)
    pairs = [(_level(text), _level(source)) for text, source in zip(decoded, sources, strict=False)]
    whole = sum(text == source for text, source in pairs)
    wrong = [
        row
        for row, (text, source) in enumerate(pairs)
        if text != source and not (text and source.startswith(text))
    ]
    cut = len(pairs) - whole - len(wrong)
    found = f"{len(decoded)} of {len(sources)} texts: {whole} whole, {cut} cut at the end, {len(wrong)} wrong"
    if wrong:
        found += f"; for instance {decoded[wrong[0]]!r}, where the source says {sources[wrong[0]]!r}"
    return CheckResult(not wrong and len(decoded) == len(sources) > 0, found)


def _level(text: str) -> str:
    """Return a text in lower case, without accents and white space, as tokenizers level it."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter) and not letter.isspace())


@check(11, "no leak across the batch")
def leaks(context: CheckContext) -> CheckResult:
    """Follow each output's gradient back to the examples that it comes from.

    Passes: the gradient of output i reaches input i alone, in evaluation mode
    Failure: a view or reshape that mixes the batch's dimension with another, an operation over the
        wrong dimension, or batch norm without running figures
    """
    sources, ordered = _sources(context, training=False)
    shared = _shared(sources)
    wrong = [
        output
        for output, rows in enumerate(sources)
        if not rows or rows & shared or any(tensor < ordered and row != output for tensor, row in rows)
    ]
    found = f"{len(sources) - len(wrong)} of {len(sources)} outputs come from their own input alone"
    if wrong:
        rows = sorted({row for _, row in sources[wrong[0]]})
        found += f"; output {wrong[0]} from {f'inputs {rows}' if rows else 'no input at all'}"
    elif _shared(_sources(context, training=True)[0]):
        found += "; in training mode the batch is mixed, as by batch norm"
    return CheckResult(not wrong, found)


Rows = set[tuple[int, int]]  # of input tensors: the tensor's number, and the row's


def _shared(sources: list[Rows]) -> Rows:
    """Return the rows that more than one output comes from."""
    counts = Counter(row for rows in sources for row in rows)
    return {row for row, count in counts.items() if count > 1}


def _sources(context: CheckContext, *, training: bool) -> tuple[list[Rows], int]:
    """Return, for each of the fixed batch's first outputs, the input rows that its gradient reaches.

    And in how many of the tensors, the first ones, rows stand in the batch's order: embeddings' need not.
    Followed are the batch's own floats and bytes and, for ids, what embeddings make of them; of these only
    the ones that grow with the batch: those of positions, say, belong to all examples.
    """
    module = context.warm_module
    with evaluating(module):
        module.train(training)
        outputs, floats, embedded = _trace(context, module, FIXED)
        fewer_outputs, _, fewer = _trace(context, module, FIXED // 2)
    size = len(outputs)
    inputs = [each for each in floats if each.ndim and len(each) == size]
    ordered = len(inputs)
    inputs += [
        each
        for each, other in zip(embedded, fewer, strict=False)
        if len(each) % size == 0 and len(each) * len(fewer_outputs) == len(other) * size
    ]
    if not inputs:
        raise MissingFactError("outputs(module, batch) made of the batch's floats, or by an nn.Embedding")
    weights = torch.randn(outputs.shape[1:])  # a plain sum is constant behind a softmax or a layer norm
    sources = []
    for output in outputs[:FOLLOWED]:
        gradients = torch.autograd.grad(
            (output * weights).sum(), inputs, retain_graph=True, allow_unused=True
        )
        sources.append(
            {
                (tensor, int(row))
                for tensor, gradient in enumerate(gradients)
                if gradient is not None
                for row in gradient.flatten(1).ne(0).any(1).nonzero().flatten()
            }
        )
    return sources, ordered


def _trace(
    context: CheckContext, module: LightningModule, count: int
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the outputs of the first examples, and the floats and embeddings that they are made of."""
    floats: list[Tensor] = []
    embedded: list[Tensor] = []

    def leaf(tensor: Tensor, kept: list[Tensor]) -> Tensor:
        kept.append(tensor.detach().clone().requires_grad_())
        return kept[-1]

    def traced(tensor: Tensor) -> Tensor:
        number = tensor.is_floating_point() or tensor.dtype == torch.uint8  # pictures are bytes
        return leaf(tensor.float(), floats) if number else tensor

    batch = apply_to_collection(context.examples(count), Tensor, traced)
    with ExitStack() as hooks:
        for each in module.modules():
            if isinstance(each, nn.Embedding):
                hook = each.register_forward_hook(lambda _module, _given, output: leaf(output, embedded))
                hooks.callback(hook.remove)
        return context.subject.followed(module, batch), floats, embedded


@check(12, "whole validation")
def validation(context: CheckContext) -> CheckResult:
    """Count the examples that reach `validation_step`, and hold the number against the set's size.

    Passes: as many examples as the set has
    Failure: drop_last in the validation loader, a limit left from debugging, or a sampler that skips
    """
    size = context.subject.validation_size(context.data)
    seen: list[int] = []
    counter = LambdaCallback(
        on_validation_batch_end=lambda _trainer, _module, _outputs, batch, *_: seen.append(
            context.subject.size(batch)
        )
    )
    with quiet():
        trainer = plain_trainer(counter, limit_val_batches=1.0)
        trainer.validate(context.warm_module, datamodule=context.data, verbose=False)
    return CheckResult(sum(seen) == size, f"{sum(seen)} of {size} examples")


@check(13, "fast path equals slow path")
def paths(context: CheckContext) -> CheckResult:
    """Compare the outputs with the same made the plain way.

    Passes: allclose to a loop: relative 0.0001, absolute 1e-05
    Failure: padding that is seen, a wrong mask or order, or batch norm without running figures
    """
    module = context.warm_module
    fast = context.outputs(module, context.batch)
    with evaluating(module), torch.no_grad():
        slow = context.subject.slow(module, context.batch)
    if fast.shape != slow.shape:
        return CheckResult(False, f"shape {list(fast.shape)}, the slow path's {list(slow.shape)}")
    difference = float((fast - slow).abs().max())
    same = torch.allclose(fast, slow, rtol=RELATIVE, atol=ABSOLUTE)
    return CheckResult(same, f"{list(fast.shape)}, largest difference {difference:.2g}")
