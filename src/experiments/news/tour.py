"""What `notebooks/training.ipynb` shows, on a news experiment small enough to be trained again and again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import Field

from experiments.news.config import NewsConfig
from trainlab import paths
from trainlab.config import Config
from trainlab.errors import UserError
from trainlab.run import record
from trainlab.runs.frames import scalars

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

PATIENCE = 180.0  # seconds for another process to get as far as its first checkpoint
LOOK_EVERY = 0.05  # seconds
TRAIN = (
    "import sys; from experiments.news.config import NewsConfig; from experiments.news.train import train; "
    "train(NewsConfig.model_validate_json(sys.argv[1]))"
)


class TourConfig(Config):
    """How small: items of a category, triplets an item, tokens a title, triplets a step, epochs."""

    class_size: int = Field(12, ge=2)
    triplets_per_item: int = Field(4, ge=1)
    max_tokens: int = Field(16, ge=3)
    batch_size: int = Field(32, ge=1)
    epochs: int = Field(2, ge=1)
    seed: int = Field(0, ge=0, lt=2**32)

    def news(self, **changes: Any) -> NewsConfig:
        """Return the news experiment's settings of this size, with some of them changed."""
        return NewsConfig.parse(self.model_dump() | changes)


def killed(config: NewsConfig, step: int) -> Path:
    """Train in a process of its own, kill that as soon as it has saved `step` or a later one; return the run.

    Raises UserError where it ended before, or did not get so far in three minutes.
    """
    # of its own altogether: what a killed process leaves behind is not this one's to complain about
    command = [sys.executable, "-c", TRAIN, config.model_dump_json()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return _run_that_saved(step, process)
    finally:
        process.kill()
        process.wait()


def _run_that_saved(step: int, process: subprocess.Popen[bytes]) -> Path:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        for file in paths.logs().glob("news/*/run.json"):
            if record.read(file.parent).pid == process.pid and _saved(file.parent) >= step:
                return file.parent
        time.sleep(LOOK_EVERY)
    raise UserError(
        f"The training was to be killed once it had saved step {step}, and ended before that"
        f" ({_how(process.returncode)}). Take a smaller step, or look at the newest run in {paths.logs()}."
    )


def _saved(folder: Path) -> int:
    steps = [int(path.stem.rpartition("-")[2]) for path in (folder / "checkpoints").glob("step-*.ckpt")]
    return max(steps, default=0)


def _how(code: int | None) -> str:
    if code is None:
        return f"not within {PATIENCE:.0f} s"
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def overlay(runs: Mapping[str, Path], tags: Sequence[str]) -> Figure:
    """Draw the same curves of several runs, one panel a tag; later runs are drawn thinner."""
    import matplotlib.pyplot as plt

    histories = {name: scalars(run) for name, run in runs.items()}
    figure, panels = plt.subplots(
        1, len(tags), figsize=(4.5 * len(tags), 3.2), layout="constrained", squeeze=False
    )
    for axes, tag in zip(panels[0], tags, strict=True):
        for place, (name, history) in enumerate(histories.items()):
            curve = history[history["tag"] == tag]
            axes.plot(curve["step"], curve["value"], ".-", label=name, linewidth=4 / (1 + place))
        axes.set(title=tag, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    plt.close(figure)
    return figure


def last(runs: Mapping[str, Path], tags: Sequence[str]) -> pd.DataFrame:
    """Return the median over a run's second half of each tag, one row a run: its first steps warm up."""
    rows = {}
    for name, run in runs.items():
        history = scalars(run)
        curves = {tag: history[history["tag"] == tag]["value"] for tag in tags}
        rows[name] = {tag: curve.iloc[len(curve) // 2 :].median() for tag, curve in curves.items()}
    return pd.DataFrame(rows).T


def same_curve(first: Path, second: Path, tag: str) -> bool:
    """Tell whether two runs have the same values of a tag at the same steps, one a step."""
    curves = []
    for run in (first, second):
        history = scalars(run)
        curves.append(history[history["tag"] == tag][["step", "value"]].to_numpy().tolist())
    steps = [step for step, _ in curves[0]]
    return bool(steps) and curves[0] == curves[1] and len(set(steps)) == len(steps)


def worker_rates(config: NewsConfig, candidates: Sequence[int] = (0, 1, 2)) -> pd.DataFrame:
    """Return the batches of training triplets that so many workers make in a second."""
    from experiments.news.data import draw
    from experiments.news.frozen import tokens_of
    from experiments.news.model import NewsModel
    from experiments.news.train import NewsData
    from trainlab.training.workers import measure_workers

    examples = draw(config)
    tokens = tokens_of(examples, NewsModel.pretrained(config), config.text)
    rates = measure_workers(NewsData(examples, tokens, config).train_dataloader(), candidates)
    return pd.DataFrame({"batches a second": rates}).rename_axis("workers")
