"""Pictures of attention: heat maps of scores by layer and head, and single heads at work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from trainlab.attention.capture import Attention
    from trainlab.attention.patterns import Scores

PANEL = (2.9, 2.1)  # inches
MATRIX, TITLE = 3.4, 0.4


def heat_maps(scores: Sequence[Scores]) -> Figure:
    """Draw each pattern's scores, layers by heads; with two networks a row for each, and their difference.

    The networks share a pattern's colours, so that they compare.
    """
    import matplotlib.pyplot as plt

    patterns = list(scores[0].heads)
    rows = [*scores, scores[1]] if len(scores) == 2 else list(scores)
    figure, axes = plt.subplots(
        len(rows),
        len(patterns),
        figsize=(PANEL[0] * len(patterns), PANEL[1] * len(rows)),
        layout="constrained",
        squeeze=False,
    )
    for column, pattern in enumerate(patterns):
        highest = max(float(each.heads[pattern].max()) for each in scores)
        for row, each in enumerate(scores):
            _heat(axes[row][column], each.heads[pattern], 0, highest, "viridis")
        if len(scores) == 2:
            change = scores[1].heads[pattern] - scores[0].heads[pattern]
            most = max(float(change.abs().max()), 1e-6)  # no change at all is drawn, too
            _heat(axes[2][column], change, -most, most, "RdBu_r")
        axes[0][column].set_title(pattern)
        axes[-1][column].set_xlabel("head")
    for row, name in enumerate([*(each.name for each in scores), "difference"][: len(rows)]):
        axes[row][0].set_ylabel(f"{_short(name)}\nlayer", fontsize="small")
    plt.close(figure)
    return figure


def _heat(axes: Axes, values: Tensor, low: float, high: float, colours: str) -> None:
    drawn = axes.imshow(values.numpy(), cmap=colours, vmin=low, vmax=high, aspect="auto")
    axes.figure.colorbar(drawn, ax=axes)


def _short(name: str, length: int = 26) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def matrices(attention: Attention, heads: Mapping[str, tuple[int, int]]) -> Figure:
    """Draw single heads at work on one text: rows attend to columns. `heads` maps a title to layer, head."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(heads), figsize=(MATRIX * len(heads), MATRIX + TITLE), layout="constrained", squeeze=False
    )
    places = range(len(attention.tokens))
    for panel, (title, (layer, head)) in zip(axes[0], heads.items(), strict=True):
        panel.imshow(attention.weights[layer, head].numpy(), cmap="Blues", vmin=0, vmax=1)
        panel.set_title(f"{title}: layer {layer}, head {head}", fontsize="small")
        panel.set_xticks(places, attention.tokens, rotation=90, fontsize="x-small")
        panel.set_yticks(places, attention.tokens, fontsize="x-small")
    plt.close(figure)
    return figure
