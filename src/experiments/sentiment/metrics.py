"""How good a classification is: figures, and how sure they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

THRESHOLD = 0.5  # of the probability, from which on a review counts as positive
CONFIDENCE = 0.95


def measure(labels: NDArray[Any], positive: NDArray[Any]) -> dict[str, float]:
    """Return accuracy, and the mean over both classes (macro) of F1, precision and recall.

    `labels` [N] are 0 or 1, `positive` [N] the probabilities of 1. A class that is never answered has a
    precision of 0.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    answers = (positive >= THRESHOLD).astype(int)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, answers, average="macro", zero_division=0
    )
    accuracy = accuracy_score(labels, answers)
    return {
        "accuracy": float(accuracy),
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
    }


def interval(accuracy: float, count: int) -> tuple[float, float]:
    """Return where the true accuracy lies with a confidence of 95 %, from `count` reviews.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    from scipy.stats import binomtest

    found = binomtest(round(accuracy * count), count).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def chance(labels: NDArray[Any], first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return how probable so great a difference would be if two systems were equally good.

    Both have judged the same reviews, by the probabilities `first` and `second` [N]: the exact test of the
    reviews on which one alone is right (Q. McNemar, Psychometrika 12, 1947).
    """
    from scipy.stats import binomtest

    right = [(positive >= THRESHOLD) == (labels == 1) for positive in (first, second)]
    alone = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    return float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0
