"""Pictures of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure


def plot_curves(history: pd.DataFrame, panels: Mapping[str, Sequence[str]]) -> Figure:
    """Draw a run's curves, [tag, step, wall_time, value], a panel for each title and its tags.

    What is neither train/ nor val/ is a baseline, and dashed.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(13, 3.5), layout="constrained", squeeze=False)
    for panel, (title, tags) in zip(axes[0], panels.items(), strict=True):
        for tag in tags:
            curve = history[history["tag"] == tag]
            if len(curve):
                style = ".-" if tag.startswith(("train/", "val/")) else "--"
                panel.plot(curve["step"], curve["value"], style, label=tag)
        panel.set(title=title, xlabel="step")
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize="small")
    plt.close(figure)
    return figure
