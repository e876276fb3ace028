"""What a run shows of its answers: confusion, precision against recall, the most wrong, and the lesson."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.sentiment.metrics import THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

CLASSES = ("negative", "positive")
WRONG = 10  # reviews in the panel of the most wrong
SHOWN = 300  # characters of each
CURVES = {
    "cross entropy": ("train/loss", "val/loss"),
    "accuracy": ("val/accuracy", "val_tfidf/accuracy"),
    "learning rate": ("train/lr",),
}
MARKERS = {"val/loss": "*", "val/accuracy": "o"}
HOLLOW: dict[str, Any] = {"markersize": 13, "fillstyle": "none", "markeredgewidth": 1.8}
CHOICES = {"val/loss": np.argmin, "val/accuracy": np.argmax}  # the first of equals, as the run keeps it


def plot_confusion(answers: pd.DataFrame) -> Figure:
    """Draw how many reviews of each label [label, positive] were taken for which."""
    import matplotlib.pyplot as plt
    from sklearn.metrics import ConfusionMatrixDisplay

    figure, axes = plt.subplots(figsize=(4, 3.6), layout="constrained")
    found = (answers["positive"] >= THRESHOLD).astype(int)
    ConfusionMatrixDisplay.from_predictions(
        answers["label"],
        found,
        labels=[0, 1],
        display_labels=CLASSES,
        cmap="Blues",
        colorbar=False,
        ax=axes,
    )
    axes.set(xlabel="answered", ylabel="right", title=f"{len(answers):,} reviews of the test")
    plt.close(figure)
    return figure


def plot_precision_recall(answers: pd.DataFrame) -> Figure:
    """Draw precision against recall of the positive reviews, of each system over all thresholds."""
    import matplotlib.pyplot as plt
    from sklearn.metrics import PrecisionRecallDisplay

    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    for system, name in (("positive", "fine-tuned"), ("tfidf", "TF-IDF")):
        PrecisionRecallDisplay.from_predictions(answers["label"], answers[system], name=name, ax=axes)
    share = answers["label"].mean()
    axes.axhline(share, color="grey", linestyle=":", label=f"all positive ({share:.2f})")
    axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    axes.legend(loc="lower left", fontsize="small")
    plt.close(figure)
    return figure


def most_wrong(answers: pd.DataFrame, count: int = WRONG) -> pd.DataFrame:
    """Return the wrong answers [label, positive, text], the surest first."""
    wrong = answers[(answers["positive"] >= THRESHOLD) != (answers["label"] == 1)]
    surest = (wrong["positive"] - THRESHOLD).abs().sort_values(ascending=False, kind="stable").index
    return wrong.loc[surest[:count], ["label", "positive", "text"]]


def as_markdown(wrong: pd.DataFrame) -> str:
    """Return reviews as a Markdown table for TensorBoard's text panel."""
    lines = ["| row | right | probability of positive | review |", "|---|---|--:|---|"]
    lines += [
        f"| {row} | {CLASSES[label]} | {positive:.3f} | {_cell(text)} |"
        for row, label, positive, text in wrong.itertuples(name=None)
    ]
    return "\n".join(lines) if len(wrong) else "No review of the test was answered wrongly."


def lesson(history: pd.DataFrame, every: Sequence[int]) -> pd.DataFrame:
    """Return the best step by loss and by accuracy, one row each way of choosing and interval of steps.

    Evaluating changes nothing in a training, so every n-th point of a curve, and the last one, are what
    evaluating every n-th step gives: `every` are multiples of the run's own `logging_steps`. Steps are
    counted from 1.
    """
    curve = _evaluations(history)
    rows = []
    for steps in every:
        seen = _every(curve, steps)
        for tag, best in CHOICES.items():
            place = int(best(seen[tag].to_numpy()))
            rows.append((steps, tag, seen.index[place], *seen.iloc[place]))
    return pd.DataFrame(rows, columns=["every", "best by", "step", *CHOICES]).set_index(["every", "best by"])


def plot_lesson(history: pd.DataFrame, every: Sequence[int]) -> Figure:
    """Draw loss and accuracy at each resolution, the best step of each marked."""
    import matplotlib.pyplot as plt

    curve, best = _evaluations(history), lesson(history, every).reset_index().to_dict("records")
    figure, panels = plt.subplots(1, 2, figsize=(13, 3.8), layout="constrained")
    for axes, tag in zip(panels, CHOICES, strict=True):
        for place, steps in enumerate(every):
            axes.plot(
                _every(curve, steps)[tag],
                ".-",
                color=f"C{place}",
                linewidth=1 + place,
                label=f"every {steps} steps",
            )
        for row in best:
            label = f"best by {row['best by']}, every {row['every']}: step {row['step']}"
            color, marker = f"C{list(every).index(row['every'])}", MARKERS[row["best by"]]
            axes.plot(row["step"], row[tag], marker, color=color, label=label, **HOLLOW)
        axes.set(title=tag, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    plt.close(figure)
    return figure


def _evaluations(history: pd.DataFrame) -> pd.DataFrame:
    """Return validation's loss and accuracy, a row for each step that was evaluated, counted from 1."""
    points = history[history["tag"].isin(CHOICES)]
    curve = points.pivot_table(index="step", columns="tag", values="value", aggfunc="last")
    return curve.set_axis(curve.index + 1)[list(CHOICES)]


def _every(curve: pd.DataFrame, steps: int) -> pd.DataFrame:
    """Return what a run with these `logging_steps` evaluates: each so many steps, and the last one."""
    return curve[(curve.index % steps == 0) | (curve.index == curve.index.max())]


def _cell(text: str) -> str:
    import html

    short = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    return html.escape(" ".join(short.split())).replace("|", "\\|")
