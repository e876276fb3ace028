"""Checks of short trainings: repeatable, better than knowing nothing, and able to learn by heart."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import torch

from trainlab.checks.finding import Outcome, check
from trainlab.checks.subject import MissingFactError

if TYPE_CHECKING:
    from lightning import LightningModule

    from trainlab.checks.harness import Bench, Training

REPEATED = 5  # steps that are made twice
CLEARLY = 0.8  # of the loss on inputs that say nothing
LOWER = 0.9  # of the smaller network's loss: two seeds differ by less
NEAR_ZERO = 0.05  # of the first loss, or of that expected of an untrained network
FEW = (1, 10)  # examples to be learned by heart


@check(
    2,
    "determinism",
    passes="identical losses on the CPU",
    means="something draws from a random state of its own: a generator without the seed, the order of a set "
    "or of files, threads",
)
def determinism(bench: Bench) -> Outcome:
    """Train twice with one seed, data and module made anew, and compare each step's loss."""
    one, other = _losses(bench), _losses(bench)
    if one == other:
        return Outcome(True, f"{len(one)} steps twice: identical")
    first = next(step for step, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
    return Outcome(False, f"step {first}: {one[first]!r}, then {other[first]!r}")


@check(
    5,
    "input-independent baseline",
    passes="the loss is at most 0.8 of that on zeroed inputs",
    means="the inputs do not reach the network, the labels are not theirs, or the learning rate is far off",
)
def zeroed_inputs(bench: Bench) -> Outcome:
    """Train on inputs that say nothing, and compare the loss with the real training's."""
    bench.subject.zeroed(bench.batch)  # says what is missing before anything is trained
    blind = bench.course(bench.module(), bench.subject.zeroed)
    found = f"after {bench.subject.steps} steps {bench.real.loss:.4f}, with zeroed inputs {blind.loss:.4f}"
    curves = {"training/real": bench.real.losses, "training/zeroed": blind.losses}
    return Outcome(bench.real.loss <= CLEARLY * blind.loss, found, curves)


@check(
    6,
    "simple baselines",
    passes="each is beaten",
    means="labels that do not belong to their inputs, a learning rate far off, or a problem that needs no "
    "network",
)
def baselines(bench: Bench) -> Outcome:
    """Hold the trained network's metric against what simpler ways reach."""
    subject = bench.subject
    simple = subject.baselines(bench.data)
    if not simple:
        raise MissingFactError("baselines(data) with at least one figure")
    with torch.no_grad():
        module = bench.real.module.eval()
        reached = subject.measure(module, bench.data)
    beaten = [reached > each if subject.higher_is_better else reached < each for each in simple.values()]
    others = ", ".join(f"{name} {value:.3f}" for name, value in simple.items())
    found = f"{subject.metric} {reached:.3f} after {subject.steps} steps; {others}"
    return Outcome(all(beaten), found)


@check(
    7,
    "overfit one batch",
    passes="loss at most 5 % of the first, and predictions equal labels",
    means="gradients do not reach the weights, inputs and labels are out of step, the learning rate is far "
    "off, or the loss is not that of the predictions",
)
def overfit_batch(bench: Bench) -> Outcome:
    """Learn one batch by heart."""
    passed, found, training = _overfit(bench, bench.batch)
    return Outcome(passed, found, {"overfit/batch": training.losses})


@check(
    8,
    "overfit 1 and 10 examples",
    passes="loss at most 5 % of the first, and predictions equal labels",
    means="a change broke what the network could learn before: see the overfitted batch's reasons",
)
def overfit_few(bench: Bench) -> Outcome:
    """Learn 1 and 10 examples by heart."""
    results = {count: _overfit(bench, _few(bench, count)) for count in FEW}
    found = "; ".join(f"{count}: {result[1]}" for count, result in results.items())
    curves = {f"overfit/{count}": training.losses for count, (_, _, training) in results.items()}
    return Outcome(all(passed for passed, _, _ in results.values()), found, curves)


@check(
    10,
    "predictions over time",
    passes="those of a fixed batch are logged each epoch, and change in each",
    means="no weight that matters is trained: frozen layers, a detached tensor, parameters that the "
    "optimizer does not know",
)
def predictions(bench: Bench) -> Outcome:
    """Look at the same few examples after each epoch."""
    bench.outputs(bench.started, bench.fixed)  # says what is missing before anything is trained
    looks = bench.real.outputs
    changes = [float((after - before).abs().max()) for before, after in pairwise(looks)]
    found = f"{len(changes)} epochs"
    if changes:
        found += f", largest change of an output in one between {min(changes):.3g} and {max(changes):.3g}"
    return Outcome(bool(changes) and min(changes) > 0, found, texts={"predictions": bench.real.texts})


@check(
    14,
    "more capacity",
    passes="the training loss is at most 0.9 of a smaller network's",
    means="the size is not what holds the network back: a bottleneck elsewhere, the data, or the optimizer",
)
def capacity(bench: Bench) -> Outcome:
    """Train a smaller network as long, and compare the losses."""
    smaller = bench.course(bench.module(bench.subject.smaller))
    sizes = [_weights(each.module) for each in (smaller, bench.real)]
    found = (
        f"{bench.real.loss:.4f} with {sizes[1]:,} weights, {smaller.loss:.4f} with {sizes[0]:,}, "
        f"after {bench.subject.steps} steps"
    )
    return Outcome(bench.real.loss <= LOWER * smaller.loss, found, {"training/smaller": smaller.losses})


def _losses(bench: Bench) -> list[float]:
    data, module = bench.fresh_data(), bench.module()
    bench.reseed()
    return bench.train(module, list(islice(bench.loader(data), REPEATED))).losses


def _few(bench: Bench, count: int) -> Any:
    """Return that many examples; a single one twice, as batch norm needs two."""
    return bench.examples(count, repeat=2 if count == 1 else 1)


def _overfit(bench: Bench, batch: Any) -> tuple[bool, str, Training]:
    """Train on one batch until it is known by heart; return whether it is, in words, and the training."""
    module, expected = bench.module(), _expected(bench)

    def near_zero(training: Training) -> bool:
        return training.losses[-1] <= NEAR_ZERO * max(expected, training.losses[0])

    def known(training: Training) -> bool:
        return near_zero(training) and _known(bench, module, batch)

    training = bench.train(module, [batch] * bench.subject.overfit_steps, until=known)
    found = (
        f"loss {training.losses[0]:.3f} to {training.losses[-1]:.4f} in {len(training.losses)} steps"
        f"{_rightness(bench, module, batch)}"
    )
    return known(training), found, training


def _expected(bench: Bench) -> float:
    """Return the loss expected of an untrained network: a batch may start nearer to 0 by chance."""
    try:
        return bench.subject.initial_loss()[0]
    except MissingFactError:
        return 0.0


def _known(bench: Bench, module: LightningModule, batch: Any) -> bool:
    try:
        right, counted = bench.right(module, batch)
    except MissingFactError:
        return True
    return right == counted


def _rightness(bench: Bench, module: LightningModule, batch: Any) -> str:
    try:
        right, counted = bench.right(module, batch)
    except MissingFactError as missing:
        return f", predictions not compared: give {missing}"
    return f", {right} of {counted} predictions right"


def _weights(module: LightningModule) -> int:
    return sum(weights.numel() for weights in module.parameters() if weights.requires_grad)
