"""Checks of the first loss and of short trainings: repeatable, better than knowing nothing, able to learn."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import torch

from trainlab.checks.harness import CheckResult, check
from trainlab.checks.subject import MissingFactError, NotApplicableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainlab.checks.harness import CheckContext, Training

REPEATED = 5  # steps that are made twice
TOLERANCE = 0.1  # share of the expected first loss
BATCHES = 4  # that the first loss is the mean of, at most
CLEARLY = 0.8  # of the loss on inputs that say nothing
LOWER = 0.9  # of the smaller network's loss: two seeds differ by less
NEAR_ZERO = 0.05  # of the first loss, or of that expected of an untrained network
FEW = (1, 10)  # examples to be learned by heart


@check(2, "determinism")
def determinism(context: CheckContext) -> CheckResult:
    """Train twice with one seed, data and module made anew, and compare each step's loss.

    Passes: identical losses on the CPU
    Failure: something draws from a random state of its own: a generator without the seed, the order of
        a set or of files, threads
    """
    runs = []
    for _ in range(2):
        data, module = context.fresh_data(), context.module()
        context.reseed()
        runs.append(context.train(module, list(islice(context.loader(data), REPEATED))).losses)
    one, other = runs
    if one == other:
        return CheckResult(True, f"{len(one)} steps twice: identical")
    first = next(step for step, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
    return CheckResult(False, f"step {first}: {one[first]!r}, then {other[first]!r}")


@check(3, "loss at initialisation")
def initial_loss(context: CheckContext) -> CheckResult:
    """Hold the untrained network's loss against the one that a network without knowledge has.

    Passes: within 10 % of ln(classes), or of the prior's entropy; triplet loss of the margin
    Failure: a sum in place of a mean, a factor, softmax or logarithm twice, another margin, or first
        weights far too large
    """
    expected = [context.subject.initial_loss()]
    with suppress(MissingFactError):
        expected.append((_prior_entropy(context), "the prior's entropy"))
    loss = _first_loss(context, context.subject.neutral)
    words = " or ".join(f"{value:.3f}, {reason}" for value, reason in expected)
    return CheckResult(any(_near(loss, value) for value, _ in expected), f"{loss:.3f}; expected {words}")


@check(4, "bias at the class prior")
def prior_bias(context: CheckContext) -> CheckResult:
    """Hold the first loss against the entropy of the classes' shares.

    Passes: the first loss is within 10 % of the prior's entropy
    Failure: the final bias starts at 0: the first steps only learn how frequent the classes are. Set it
        to the logarithm of their shares
    """
    if context.subject.classes is None and context.subject.margin is not None:
        raise NotApplicableError("a triplet loss has no classes that a bias could be set to")
    entropy = _prior_entropy(context)
    loss = _first_loss(context, lambda batch: batch)
    return CheckResult(_near(loss, entropy), f"{loss:.3f}; expected {entropy:.3f}, the prior's entropy")


@check(5, "input-independent baseline")
def zeroed_inputs(context: CheckContext) -> CheckResult:
    """Train on inputs that say nothing, and compare the loss with the real training's.

    Passes: the loss is at most 0.8 of that on zeroed inputs
    Failure: the inputs do not reach the network, the labels are not theirs, or the learning rate is far
        off
    """
    context.subject.zeroed(context.batch)  # says what is missing before anything is trained
    blind = context.train_full(context.module(), context.subject.zeroed)
    real = context.baseline_run
    found = f"after {context.subject.steps} steps {real.loss:.4f}, with zeroed inputs {blind.loss:.4f}"
    curves = {"training/real": real.losses, "training/zeroed": blind.losses}
    return CheckResult(real.loss <= CLEARLY * blind.loss, found, curves)


@check(6, "simple baselines")
def baselines(context: CheckContext) -> CheckResult:
    """Hold the trained network's metric against what simpler ways reach.

    Passes: each is beaten
    Failure: labels that do not belong to their inputs, a learning rate far off, or a problem that needs
        no network
    """
    subject = context.subject
    simple = subject.baselines(context.data)
    if not simple:
        raise MissingFactError("baselines(data) with at least one figure")
    with torch.no_grad():
        module = context.baseline_run.module.eval()
        reached = subject.measure(module, context.data)
    beaten = [reached > each if subject.higher_is_better else reached < each for each in simple.values()]
    others = ", ".join(f"{name} {value:.3f}" for name, value in simple.items())
    found = f"{subject.metric} {reached:.3f} after {subject.steps} steps; {others}"
    return CheckResult(all(beaten), found)


@check(7, "overfit one batch")
def overfit_batch(context: CheckContext) -> CheckResult:
    """Learn one batch by heart.

    Passes: loss at most 5 % of the first, and predictions equal labels
    Failure: gradients do not reach the weights, inputs and labels are out of step, the learning rate is
        far off, or the loss is not that of the predictions
    """
    return _overfit(context, context.batch, "batch")


@check(8, "overfit 1 and 10 examples")
def overfit_few(context: CheckContext) -> CheckResult:
    """Learn 1 and 10 examples by heart.

    Passes: loss at most 5 % of the first, and predictions equal labels
    Failure: a change broke what the network could learn before: see the overfitted batch's reasons
    """
    results = {
        count: _overfit(context, context.examples(count, repeat=2 if count == 1 else 1), str(count))
        for count in FEW  # a single one twice, as batch norm needs two
    }
    found = "; ".join(f"{count}: {each.found}" for count, each in results.items())
    curves = {tag: losses for each in results.values() for tag, losses in each.curves.items()}
    return CheckResult(all(each.passed for each in results.values()), found, curves)


@check(10, "predictions over time")
def predictions(context: CheckContext) -> CheckResult:
    """Look at the same few examples after each epoch.

    Passes: those of a fixed batch are logged each epoch, and change in each
    Failure: no weight that matters is trained: frozen layers, a detached tensor, parameters that the
        optimizer does not know
    """
    context.outputs(
        context.warm_module, context.fixed_batch
    )  # says what is missing before anything is trained
    looks = context.baseline_run.outputs
    changes = [float((after - before).abs().max()) for before, after in pairwise(looks)]
    found = f"{len(changes)} epochs"
    if changes:
        found += f", largest change of an output in one between {min(changes):.3g} and {max(changes):.3g}"
    return CheckResult(
        bool(changes) and min(changes) > 0, found, texts={"predictions": context.baseline_run.texts}
    )


@check(14, "more capacity")
def capacity(context: CheckContext) -> CheckResult:
    """Train a smaller network as long, and compare the losses.

    Passes: the training loss is at most 0.9 of a smaller network's
    Failure: the size is not what holds the network back: a bottleneck elsewhere, the data, or the
        optimizer
    """
    small, real = context.train_full(context.module(context.subject.smaller)), context.baseline_run
    sizes = [
        sum(each.numel() for each in run.module.parameters() if each.requires_grad) for run in (small, real)
    ]
    found = (
        f"{real.loss:.4f} with {sizes[1]:,} weights, {small.loss:.4f} with {sizes[0]:,}, "
        f"after {context.subject.steps} steps"
    )
    return CheckResult(real.loss <= LOWER * small.loss, found, {"training/smaller": small.losses})


def _first_batches(context: CheckContext) -> list[Any]:
    """Return the first batches of training, always the same ones."""
    context.reseed()
    return list(islice(context.loader(), BATCHES))


def _first_loss(context: CheckContext, change: Callable[[Any], Any]) -> float:
    """Return the mean loss of a fresh network, in training mode, over the first batches."""
    batches = [change(batch) for batch in _first_batches(context)]
    losses = context.train(context.module(), batches, freeze_weights=True).losses
    return sum(losses) / len(losses)


def _prior_entropy(context: CheckContext) -> float:
    """Return the prior's entropy over the first batches: the mean of -ln(share) of their targets.

    Over all of training it would be the same but for the chance of the draw, which the loss shares here.
    """
    shares = context.subject.prior(context.data)
    targets = torch.cat([context.subject.targets(batch).flatten() for batch in _first_batches(context)])
    return float(-shares.log()[targets[targets >= 0]].mean())


def _near(loss: float, expected: float) -> bool:
    return math.isclose(loss, expected, rel_tol=0, abs_tol=TOLERANCE * expected)


def _overfit(context: CheckContext, batch: Any, name: str) -> CheckResult:
    """Train on one batch until it is known by heart: loss near zero, and predictions equal to labels."""
    module, expected = context.module(), 0.0
    with suppress(MissingFactError):
        expected = context.subject.initial_loss()[0]  # a batch may start nearer to 0 by chance

    def compared() -> tuple[bool, str]:
        try:
            right, counted = context.count_right(module, batch)
        except MissingFactError as missing:
            return True, f"predictions not compared: give {missing}"
        return right == counted, f"{right} of {counted} predictions right"

    def known(training: Training) -> bool:
        losses = training.losses
        return losses[-1] <= NEAR_ZERO * max(expected, losses[0]) and compared()[0]

    training = context.train(module, [batch] * context.subject.overfit_steps, until=known)
    losses = training.losses
    found = f"loss {losses[0]:.3f} to {losses[-1]:.4f} in {len(losses)} steps, {compared()[1]}"
    return CheckResult(known(training), found, {f"overfit/{name}": losses})
