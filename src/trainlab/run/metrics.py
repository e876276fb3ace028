"""Which way each metric improves, and its last and best value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from trainlab.errors import UserError, nearest, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


Direction = Literal["min", "max"]
# Last in the alphabet, which is TensorBoard's order: it opens the first two groups of tags alone, and has the
# first five tags as metrics beside the hyperparameters. So test/, train/ and val/ come first, then baselines
# (val_tfidf/) and pictures (views/).
VITALS = "vitals/"
AUTO = "auto"  # as a direction: take the one that is known

# Whole names, never parts of one: 'lossless_ratio' rises, and 'triplet_errors_found' may do either.
_TABLE: dict[Direction, str] = {
    "min": """
        loss total_loss triplet_loss cross_entropy crossentropy binary_crossentropy categorical_crossentropy
        sparse_categorical_crossentropy bce nll log_loss logloss hinge huber kl kl_divergence kld
        error err error_rate top1_error top5_error mae mse rmse mape smape msle rmsle mean_absolute_error
        mean_squared_error root_mean_squared_error wer cer ter mer eer ppl perplexity bpc bpb bpd fid kid
        lpips brier brier_score ece seconds step_seconds runtime duration latency
        """,
    "max": """
        accuracy acc balanced_accuracy binary_accuracy categorical_accuracy sparse_categorical_accuracy
        triplet_accuracy top1 top5 acc1 acc5 top1_accuracy top5_accuracy top1_acc top5_acc accuracy_at_k
        precision precision_at_k recall recall_at_k specificity sensitivity f1 f1_score f1_macro f1_micro
        macro_f1 micro_f1 auc auroc roc_auc auprc average_precision ap map map50 map_50 map_at_k mrr ndcg
        ndcg_at_k hits_at_k bleu sacrebleu chrf rouge1 rouge2 rougel rougelsum meteor cider spice exact_match
        em iou miou mean_iou dice jaccard psnr ssim r2 r2_score pearson pearsonr spearman spearmanr kappa
        cohen_kappa mcc matthews_correlation reward mean_reward ep_rew_mean win_rate
        samples_per_second tokens_per_second
        """,
}
KNOWN: dict[str, Direction] = {name: way for way, names in _TABLE.items() for name in names.split()}
_LOADER = re.compile(r"/dataloader_idx_\d+$")  # what Lightning adds where there are several
_SPLIT = re.compile(r"^(train|val|valid|validation|test|eval|epoch)_")  # val_loss; Keras: epoch_loss
_WHEN = re.compile(r"_(step|epoch)$")  # what Lightning adds to a metric that is logged as both
_RANK = re.compile(r"_at_\d+$")


def well_known(tag: str) -> Direction | None:
    """Return whether a metric improves by falling ('min') or rising ('max'), None where no table says so.

    The last part of the tag decides, as a whole: 'val/loss', 'val_loss' and 'train/loss_epoch' are a loss,
    'precision@10' is precision_at_k; 'lossless_ratio' is unknown.
    """
    last = _LOADER.sub("", tag).rpartition("/")[2].lower()
    plain = re.sub(r"[\s-]", "_", last.replace("@", "_at_"))
    return KNOWN.get(_RANK.sub("_at_k", _WHEN.sub("", _SPLIT.sub("", plain))))


def is_finite(value: float | None) -> bool:
    """Tell whether there is a number to rank by."""
    return value is not None and math.isfinite(value)


def given_directions(metrics: Iterable[str] | Mapping[str, str]) -> dict[str, Direction]:
    """Return the directions that a run's `metrics` give: those of a mapping; a list of tags gives none.

    Raises UserError for anything but 'min' and 'max'.
    """
    if not hasattr(metrics, "items"):
        return {}
    for tag, direction in metrics.items():
        if direction not in ("min", "max"):
            raise UserError(f"{tag}: {direction!r} is no direction. Expected 'min' or 'max'.")
    return dict(metrics.items())


def directions_of(name: str, mode: str) -> dict[str, Direction]:
    """Return the direction that is given for a metric or its column, {} for 'auto'.

    Raises UserError for one that is given without a metric.
    """
    if mode == AUTO:
        return {}
    if not name:
        raise UserError(f"mode={mode} says nothing without the metric that it is about: name that too.")
    return given_directions({name.removeprefix("best.").removeprefix("last."): mode})


def check_same(before: Mapping[str, Direction], now: Mapping[str, Direction]) -> None:
    """Check that what was best so far stays best; raise UserError for a direction that is turned round."""
    for tag, direction in now.items():
        if before.get(tag, direction) != direction:
            raise UserError(
                f"{tag}: {direction!r} is better now, and in the run it is {before[tag]!r}. "
                "Give the same direction, or start a new run."
            )


def never_logged(named: Iterable[str], logged: Iterable[str]) -> str:
    """Return what to say at the end of a run of tags that were named and never logged; '' where all were."""
    known = [tag for tag in logged if not tag.startswith(VITALS)]
    missing = [tag for tag in named if tag not in known]
    hint = nearest(missing[0], known) if len(missing) == 1 else ""
    return f"metrics: {some(missing)} never logged.{hint} Logged: {some(known)}." if missing else ""


@dataclass
class Curve:
    """One tag's points in the order in which they were logged; a step may stand there more than once."""

    steps: list[int] = field(default_factory=list)
    wall_times: list[float] = field(default_factory=list)  # seconds since 1970, or whatever was written
    values: list[float] = field(default_factory=list)


class Summary:
    """Keeps (value, step) of each tag's last point, and of its lowest and highest; NaN is neither.

    `directions` are those that were given; they win over the table of well-known names.
    """

    def __init__(self, directions: Mapping[str, Direction] | None = None) -> None:
        self.directions: dict[str, Direction] = dict(directions or {})
        self.last: dict[str, dict[str, float]] = {}
        self._lowest: dict[str, dict[str, float]] = {}
        self._highest: dict[str, dict[str, float]] = {}

    @classmethod
    def of(cls, curves: Mapping[str, Curve], directions: Mapping[str, Direction] | None = None) -> Self:
        """Return the summary of whole curves, {tag: curve}."""
        summary = cls(directions)
        for tag, curve in curves.items():
            for step, value in zip(curve.steps, curve.values, strict=True):
                summary.add(tag, value, step)
        return summary

    @property
    def best(self) -> dict[str, dict[str, float]]:
        """The best point of each tag whose direction is known."""
        extremes = {"min": self._lowest, "max": self._highest}
        known = {tag: self.direction(tag) for tag in self._lowest.copy()}
        return {tag: extremes[each][tag] for tag, each in known.items() if each is not None}

    def direction(self, tag: str) -> Direction | None:
        """Return the direction that was given for a tag, or that of a well-known name."""
        return self.directions.get(tag) or well_known(tag)

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Return `last`, `best` and `directions` as they are now, whatever other threads add meanwhile."""
        last = self.last.copy()
        known = {tag: self.direction(tag) for tag in [*self.directions, *last]}
        directions = {tag: each for tag, each in known.items() if each is not None}
        return {"last": last, "best": self.best, "directions": directions}

    def add(self, tag: str, value: float, step: int) -> None:
        """Take one more point into account."""
        point = {"value": value, "step": step}
        self.last[tag] = point
        if math.isnan(value):
            return
        # the highest first: `best` looks for tags among the lowest
        if tag not in self._highest or value > self._highest[tag]["value"]:
            self._highest[tag] = point
        if tag not in self._lowest or value < self._lowest[tag]["value"]:
            self._lowest[tag] = point
