"""The article's series: its eight settings in turn, split as it split and split by item, in one table."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pandas as pd
from pydantic import Field

from experiments.news.config import NewsConfig
from trainlab.config import Config
from trainlab.training.config import Precision

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.news.train import Result
    from trainlab.run.metrics import Direction

Split = Literal["triplet", "item"]
SPLITS: tuple[Split, ...] = ("triplet", "item")
METRICS = ("loss", "precision_at_10")


class Setting(NamedTuple):
    """One row of the article's table: what was set, and what came out on MINDsmall."""

    margin: float
    class_size: int
    triplets_per_item: int
    text: Literal["title", "title+abstract"]
    published: str
    trained: bool = True

    @property
    def name(self) -> str:
        """Return a name such as 'M=5 CS=60 TI=20 title'."""
        if not self.trained:
            return f"M={self.margin:g} untrained"
        return f"M={self.margin:g} CS={self.class_size} TI={self.triplets_per_item} {self.text}"


# V. Visheratin, "Deep learning with containers", part 2, 2021
SETTINGS = (
    Setting(3, 30, 10, "title", "validation loss 2.47", trained=False),
    Setting(3, 30, 10, "title", "training and validation loss near 0"),
    Setting(5, 30, 10, "title", "worse than M=3; both rise after an added epoch"),
    Setting(5, 60, 20, "title", "as good as M=3; one more epoch, 6 times as long"),
    Setting(5, 60, 20, "title+abstract", "overfits after epoch 4"),
    Setting(10, 60, 20, "title", "validation stops falling after epoch 3"),
    Setting(10, 100, 30, "title", "validation under 0.1 after epoch 4"),
    Setting(30, 200, 50, "title", "validation 0.13 after epoch 5"),
)


LOSSES: dict[str, Direction] = {f"val/loss_{split}": "min" for split in SPLITS}


class ArticleConfig(Config):
    """What all settings of the series share; each is a run of the news experiment.

    The article had `data=mind-small backbone=distilbert-base-uncased pooling=cls epochs=5 batch_size=6
    learning_rate=5e-5 head_learning_rate=5e-5`. `only` takes the first so many settings.
    """

    data: str = Field("sample", min_length=1)
    backbone: str = Field("minilm", min_length=1)
    pooling: Literal["mean", "cls"] = "mean"
    epochs: int = Field(2, ge=1)
    batch_size: int = Field(1536, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    head_learning_rate: float = Field(2e-3, gt=0)
    precision: Precision = "auto"
    seed: int = Field(0, ge=0, lt=2**32)
    only: int = Field(len(SETTINGS), ge=1, le=len(SETTINGS))

    def news(self, setting: Setting, split: Split) -> NewsConfig:
        """Return the news experiment's settings for one row of the table."""
        own = setting._asdict()
        del own["published"]
        own |= {"split": split, "monitor": "val/loss"}  # of one margin, losses compare: the article's choice
        return NewsConfig.parse(self.model_dump(exclude={"only"}) | own)

    def preflight(self) -> None:
        """Check data, device and backbone before there is a run; raise UserError otherwise."""
        self.news(SETTINGS[0], "item").preflight()


class Outcome(NamedTuple):
    """One trained setting: its run's folder, how many triplets, the best epoch's metrics, seconds."""

    setting: Setting
    split: Split
    run: Path
    triplets: int
    metrics: dict[str, float]
    seconds: float


@dataclass
class Series:
    """The runs so far, each setting with both splits."""

    outcomes: list[Outcome] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """Return a row a setting: the triplets, what was published, and ours with either split."""
        rows: dict[str, dict[str, Any]] = {}
        for each in self.outcomes:
            row = rows.setdefault(each.setting.name, {"triplets": each.triplets})
            row |= {f"{name}, by {each.split}": each.metrics[name] for name in METRICS}
            row |= {f"seconds, by {each.split}": each.seconds, "published": each.setting.published}
        order = [f"{name}, by {split}" for name in (*METRICS, "seconds") for split in SPLITS]
        frame = pd.DataFrame(list(rows.values()), index=list(rows))
        return frame[["triplets", *(name for name in order if name in frame), "published"]]

    def curves(self) -> Figure:
        """Draw the validation loss over the epochs, in units of the margin; a panel for each split."""
        import matplotlib.pyplot as plt

        from trainlab.runs.frames import scalars

        figure, panels = plt.subplots(1, len(SPLITS), figsize=(11, 4), layout="constrained", sharey=True)
        for axes, split in zip(panels, SPLITS, strict=True):
            for each in (found for found in self.outcomes if found.split == split and found.setting.trained):
                history = scalars(each.run)
                curve = history[history["tag"] == "val/loss"]["value"] / each.setting.margin
                axes.plot(range(1, len(curve) + 1), curve, "o-", label=each.setting.name)
            axes.set(title=f"split by {split}", xlabel="epoch", ylabel="validation loss / margin")
            axes.grid(alpha=0.3)
        panels[-1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
        plt.close(figure)
        return figure


def series(config: ArticleConfig) -> Series:
    """Train every setting with both splits, each as a run of its own, and record the table beside them.

    Prints a line a run. Raises UserError when data or backbone can't be used, before there is a run.
    """
    from trainlab.run.run import Run

    config.preflight()
    found = Series()
    with Run("article", config, seed=config.seed, metrics=LOSSES) as run:
        for number, (setting, split) in enumerate(_all(config), 1):
            outcome = _train(config, setting, split)
            found.outcomes.append(outcome)
            tag = f"val/loss_{split}"
            run.log({tag: outcome.metrics["loss"]}, number)
            run.update(runs=[str(each.run.name) for each in found.outcomes])
            print(f"{setting.name}, split by {split}: {_line(outcome)}", flush=True)
        run.log_text("series", _markdown(found.table()), 0)
    return found


def _all(config: ArticleConfig) -> list[tuple[Setting, Split]]:
    return [(setting, split) for setting in SETTINGS[: config.only] for split in SPLITS]


def _train(config: ArticleConfig, setting: Setting, split: Split) -> Outcome:
    """Train one setting; what it prints on the way would fill the screen eight times."""
    from contextlib import redirect_stdout
    from io import StringIO

    from experiments.news.train import train as train_news

    began = time.monotonic()
    with redirect_stdout(StringIO()):
        result = train_news(config.news(setting, split))
    return _outcome(result, setting, split, time.monotonic() - began)


def _outcome(result: Result, setting: Setting, split: Split, seconds: float) -> Outcome:
    metrics: dict[str, Any] = result.metrics["trained" if setting.trained else "untrained"]
    triplets = len(result.examples.training) + (len(result.examples.validation) if split == "triplet" else 0)
    return Outcome(setting, split, result.run, triplets, metrics, seconds)


def _line(outcome: Outcome) -> str:
    figures = ", ".join(f"{name} {outcome.metrics[name]:.3f}" for name in METRICS)
    return f"{figures}, {outcome.seconds:.0f} s, {outcome.run.name}"


def _markdown(table: pd.DataFrame) -> str:
    head = ["setting", *table.columns]
    rows = [[name, *map(_cell, row)] for name, *row in table.itertuples()]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def _cell(found: Any) -> str:
    return f"{found:.3f}" if isinstance(found, float) else str(found)
