"""What two notebooks call: the article's eight settings (article.ipynb), small trainings (training.ipynb)."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pandas as pd
from pydantic import Field

from experiments.news.config import NewsConfig
from trainlab import Config, Run, paths, scalars
from trainlab.cleaning import markdown_table
from trainlab.errors import UserError
from trainlab.run import record
from trainlab.training.config import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from trainlab.run.metrics import Direction

Split = Literal["triplet", "item"]
SPLITS: tuple[Split, ...] = ("triplet", "item")
METRICS = ("loss", "precision_at_10")
LOSSES: dict[str, Direction] = {f"val/loss_{split}": "min" for split in SPLITS}

PATIENCE = 180.0  # seconds for another process to get as far as its first checkpoint
LOOK_EVERY = 0.05  # seconds
# The article's loss, whose steps are as many as there are triplets for
TOUR = {"loss": "triplet", "learning_rate": 1e-4, "freeze": 0}
TRAIN = (
    "import sys; from experiments.news.config import NewsConfig; from experiments.news.train import train; "
    "train(NewsConfig.model_validate_json(sys.argv[1]))"
)


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
        """A name such as 'M=5 CS=60 TI=20 title'."""
        if not self.trained:
            return f"M={self.margin:g} untrained, Euclidean"
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
        own |= {"split": split, "test": 0, "loss": "triplet", "freeze": 0}
        own |= {"monitor": "val/loss"}  # of one margin, losses compare: the article's choice
        return NewsConfig.parse(self.model_dump(exclude={"only"}) | own)

    def preflight(self) -> None:
        """Check data, device and backbone before a run exists; raise UserError otherwise."""
        self.news(SETTINGS[0], "item").preflight()


class SettingResult(NamedTuple):
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

    results: list[SettingResult] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """Put ours beside what was published.

        Returns:
            A row for each setting: its triplets, what was published, and with either split the best epoch's
            loss and precision at 10, and the training's seconds.
        """
        rows: dict[str, dict[str, Any]] = {}
        for each in self.results:
            row = rows.setdefault(each.setting.name, {"triplets": each.triplets})
            row |= {f"{name}, by {each.split}": each.metrics[name] for name in METRICS}
            row |= {f"seconds, by {each.split}": each.seconds, "published": each.setting.published}
        order = [f"{name}, by {split}" for name in (*METRICS, "seconds") for split in SPLITS]
        frame = pd.DataFrame(list(rows.values()), index=list(rows))
        return frame[["triplets", *(name for name in order if name in frame), "published"]]

    def curves(self) -> Figure:
        """Draw the validation loss over the epochs, in units of the margin; a panel for each split."""
        import matplotlib.pyplot as plt

        figure, panels = plt.subplots(1, len(SPLITS), figsize=(11, 4), layout="constrained", sharey=True)
        for axes, split in zip(panels, SPLITS, strict=True):
            for each in (found for found in self.results if found.split == split and found.setting.trained):
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

    Args:
        config: What the settings share, and how many of them are trained.

    Returns:
        The results so far; a line is printed for each.

    Raises:
        UserError: Before there is a run, where data or backbone can't be used.
    """
    from experiments.news.train import EUCLIDEAN, TRAINED, train

    config.preflight()
    found = Series()
    chosen = [(setting, split) for setting in SETTINGS[: config.only] for split in SPLITS]
    with Run("article", config, seed=config.seed, metrics=LOSSES) as run:
        for number, (setting, split) in enumerate(chosen, 1):
            began = time.monotonic()
            with redirect_stdout(StringIO()):  # what each prints on the way would fill the screen
                trained = train(config.news(setting, split))
            examples, metrics = trained.examples, trained.metrics["validation"]
            validated = len(examples.validation.triplets) if split == "triplet" else 0
            result = SettingResult(
                setting,
                split,
                trained.run,
                len(examples.training) + validated,
                metrics[TRAINED if setting.trained else EUCLIDEAN],
                time.monotonic() - began,
            )
            found.results.append(result)
            run.log({f"val/loss_{split}": result.metrics["loss"]}, number)
            run.update(runs=[each.run.name for each in found.results])
            figures = ", ".join(f"{name} {result.metrics[name]:.3f}" for name in METRICS)
            print(f"{setting.name}, split by {split}: {figures}, {result.seconds:.0f} s, {result.run.name}")
        table = found.table().map(lambda cell: f"{cell:.3f}" if isinstance(cell, float) else cell)
        run.log_text("series", markdown_table(("setting", *table.columns), table.itertuples()), 0)
    return found


class TourConfig(Config):
    """How small `training.ipynb` makes it.

    Items of a category, triplets an item, tokens a title, triplets a step, epochs.
    """

    class_size: int = Field(12, ge=2)
    triplets_per_item: int = Field(4, ge=1)
    max_tokens: int = Field(16, ge=3)
    batch_size: int = Field(32, ge=1)
    epochs: int = Field(2, ge=1)
    seed: int = Field(0, ge=0, lt=2**32)

    def news(self, **changes: Any) -> NewsConfig:
        """Return the news experiment's settings of this size, with some of them changed."""
        return NewsConfig.parse(self.model_dump() | TOUR | changes)


def train_and_kill(config: NewsConfig, step: int) -> Path:
    """Train in a process of its own, and kill that (SIGKILL) once it has saved a checkpoint.

    Args:
        config: The training's settings; `checkpoint_every` says how often it saves.
        step: It is killed as soon as the checkpoint of this step, or of a later one, is there.

    Returns:
        The folder of its run.

    Raises:
        UserError: Where it ended before, or did not get so far in three minutes.
    """
    # of its own altogether: what a killed process leaves behind is not this one's to complain about
    command = [sys.executable, "-c", TRAIN, config.model_dump_json()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    try:
        while process.poll() is None and time.monotonic() < deadline:
            for file in paths.logs().glob("news/*/run.json"):
                saved = [int(each.stem[5:]) for each in file.parent.glob("checkpoints/step-*.ckpt")]
                if max(saved, default=0) >= step and record.read(file.parent).pid == process.pid:
                    return file.parent
            time.sleep(LOOK_EVERY)
    finally:
        process.kill()
        code = process.wait()
    raise UserError(
        f"The training was to be killed once it had saved step {step}, and ended before that or took more "
        f"than {PATIENCE:.0f} s (exit code {code}). Take a smaller step, or look at the newest run in "
        f"{paths.logs()}."
    )


def overlay(runs: Mapping[str, Path], tags: Sequence[str]) -> Figure:
    """Draw the same curves of several runs over each other.

    Args:
        runs: Run folders by the name that the legend has; later ones are drawn thinner.
        tags: One panel for each.
    """
    import matplotlib.pyplot as plt

    histories = {name: scalars(run) for name, run in runs.items()}
    figure, panels = plt.subplots(
        1, len(tags), figsize=(4.5 * len(tags), 3.2), layout="constrained", squeeze=False
    )
    for axes, tag in zip(panels[0], tags, strict=True):
        for index, (name, history) in enumerate(histories.items()):
            curve = history[history["tag"] == tag]
            axes.plot(curve["step"], curve["value"], ".-", label=name, linewidth=4 / (1 + index))
        axes.set(title=tag, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    plt.close(figure)
    return figure


def worker_rates(config: NewsConfig, candidates: Sequence[int] = (0, 1, 2)) -> pd.DataFrame:
    """Measure how many batches of training triplets so many workers make in a second."""
    from experiments.news.data import draw
    from experiments.news.model import NewsModel
    from experiments.news.tokens import tokens_of
    from experiments.news.train import NewsData
    from trainlab.training.workers import measure_workers

    examples = draw(config)
    tokens = tokens_of(examples.news, config.text, NewsModel.pretrained(config).tokenizer)
    rates = measure_workers(NewsData(examples, tokens, config).train_dataloader(), candidates)
    return pd.DataFrame({"batches a second": rates}).rename_axis("workers")
