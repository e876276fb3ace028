"""Checks of the data: what is in it, what reaches the network, and that validation sees all of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.callbacks import Callback

from trainlab.checks.finding import Outcome, check
from trainlab.checks.harness import FIXED, plain_trainer, quiet
from trainlab.checks.subject import SPLITS, MissingFactError, rows_of
from trainlab.checks.texts import differences

if TYPE_CHECKING:
    from trainlab.checks.harness import Bench
    from trainlab.checks.subject import Items

FEW_CLASSES = 20  # named one by one; of more the largest and the smallest


@check(
    1,
    "data audit",
    passes="no item in two splits",
    means="the split was made after items were duplicated, or by something else than the item: what is "
    "measured was learned by heart",
)
def audit(bench: Bench) -> Outcome:
    """Count duplicates, empty items, classes and lengths; an item in two splits is a failure."""
    found = {split: bench.subject.items(bench.data, split) for split in SPLITS}
    splits = {split: items for split, items in found.items() if items is not None}
    if len(splits) < 2:
        raise MissingFactError("a second split, validation or test")
    keys = {split: set(items.keys) for split, items in splits.items()}
    names = list(keys)
    shared = {
        f"{one} and {other}": len(keys[one] & keys[other])
        for place, one in enumerate(names)
        for other in names[place + 1 :]
    }
    lines = [f"{split}: {_summary(items)}" for split, items in splits.items()]
    lines.append("in two splits: " + ", ".join(f"{count} ({pair})" for pair, count in shared.items()))
    return Outcome(not any(shared.values()), "; ".join(lines))


@check(
    9,
    "decoded inputs",
    passes="ids decode back to the text, whole or cut at its end",
    means="another vocabulary than the network's, ids shifted by one, texts and labels out of step, or "
    "padding where text should be",
)
def decoded(bench: Bench) -> Outcome:
    """Turn the tensors just before the network back into text, and compare it with the source."""
    decoded = bench.subject.decode(bench.fixed)
    sources = bench.subject.texts(bench.data, range(min(FIXED, len(rows_of(bench.loader())))))
    whole, cut, wrong = differences(decoded, sources)
    found = f"{len(decoded)} of {len(sources)} texts: {whole} whole, {cut} cut at the end, {len(wrong)} wrong"
    if wrong:
        found += f"; for instance {wrong[0][0]!r}, where the source says {wrong[0][1]!r}"
    return Outcome(not wrong and len(decoded) == len(sources) > 0, found)


@check(
    12,
    "whole validation",
    passes="as many examples as the set has",
    means="drop_last in the validation loader, a limit left from debugging, or a sampler that skips",
)
def validation(bench: Bench) -> Outcome:
    """Count the examples that reach `validation_step`, and hold the number against the set's size."""
    size = bench.subject.validation_size(bench.data)
    counter = _Counter(bench)
    with quiet():
        plain_trainer(counter, limit_val_batches=1.0).validate(
            bench.started, datamodule=bench.data, verbose=False
        )
    return Outcome(counter.count == size, f"{counter.count} of {size} examples")


class _Counter(Callback):
    def __init__(self, bench: Bench) -> None:
        self._bench, self.count = bench, 0

    def on_validation_batch_end(self, *arguments: Any) -> None:
        """Count a batch: the fourth argument, after trainer, module and outputs."""
        self.count += self._bench.subject.size(arguments[3])


def _summary(items: Items) -> str:
    parts = [f"{len(items.keys)} items", f"{len(items.keys) - len(set(items.keys))} duplicates"]
    if items.lengths is not None:
        parts += _lengths(np.asarray(items.lengths))
    if items.labels is not None:
        parts.append(f"classes {_classes(Counter(items.labels))}")
    return ", ".join(parts)


def _lengths(lengths: np.ndarray) -> list[str]:
    """Return how many are empty, the range, and the outliers: 1.5 quartile ranges beyond a quartile."""
    low, high = np.quantile(lengths, (0.25, 0.75))
    reach = 1.5 * (high - low)
    outliers = int(((lengths < low - reach) | (lengths > high + reach)).sum())
    return [
        f"{int((lengths == 0).sum())} empty",
        f"lengths {lengths.min()} to {lengths.max()} ({outliers} outliers)",
    ]


def _classes(counts: Counter[Any]) -> str:
    ordered = [f"{label}: {count}" for label, count in counts.most_common()]
    if len(ordered) > FEW_CLASSES:
        ordered = [*ordered[: FEW_CLASSES // 2], "...", *ordered[-FEW_CLASSES // 2 :]]
    return "{" + ", ".join(ordered) + "}"
