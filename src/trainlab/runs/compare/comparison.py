"""Runs of one experiment side by side: what `notebooks/compare.ipynb` and the report call."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trainlab.config import Config
from trainlab.run.metrics import directions_of
from trainlab.runs import columns, listing, query, ranking
from trainlab.runs.compare import XAxis

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from trainlab.runs.listing import Row
    from trainlab.runs.plots import Picture

NEWEST, ALL = "newest", "all"
MOST_CURVES = 10  # runs: more lines can't be told apart
_PLACELESS = {  # why runs are missing along an axis
    XAxis.time: "The times of the points can't be right: {} can't be drawn over the time at work.",
    XAxis.examples: "Neither a batch size nor a tag such as train/examples is recorded: {} can't be drawn "
    "over the examples seen.",
}


class CompareConfig(Config):
    """What is compared, and how.

    `experiment` is a name, newest (that of the newest run with metrics) or all; `where` a filter such as
    'margin>=5 and age<7d'. `metric` says which run is better; by default the one that the runs call the most
    important; `mode`, min or max, whether less or more of it is better, where the runs don't say so. `tags`
    names curves, by commas; by default the metric and the training's counterpart. `smooth` is TensorBoard's
    smoothing; `x` what curves are drawn over; `best` how many runs are set against the rest.
    """

    experiment: str = Field(NEWEST, min_length=1)
    where: str = ""
    metric: str = ""
    mode: Literal["auto", "min", "max"] = "auto"
    tags: str = ""
    smooth: float = Field(0.6, ge=0, lt=1)
    x: XAxis = XAxis.step
    best: int = Field(3, ge=1)


@dataclass(frozen=True)
class Comparison:
    """Runs, the newest first, and how to compare them; without runs tables are empty and pictures say so."""

    rows: list[Row]
    metric: str  # '' where no run has any
    config: CompareConfig
    most: int = MOST_CURVES  # runs whose curves are drawn

    def __str__(self) -> str:
        """Return in a sentence what is compared."""
        if not self.rows:
            return "No run with metrics is chosen: choose less narrowly, or record one: trainlab run news"
        runs = f"{len(self.rows)} run{'s' * (len(self.rows) != 1)}"
        if not self.metric:
            return f"{runs}, none with a metric."
        having = sum(self.metric in row.last for row in self.rows)
        direction = ranking.direction(self.rows, self.metric)
        better = {"min": ", lower is better", "max": ", higher is better", None: ""}[direction]
        said = [f"{runs}, {having} with {self.metric}{better}.", ranking.remark(self.rows, self.metric)]
        if direction is None:
            said.append("So none is called the best: say metric and mode=min or mode=max.")
        elif len(self.groups) > 1:
            said.append(f"What follows of settings is about the first {len(self.groups[0])}.")
        return " ".join(filter(None, said))

    @property
    def tags(self) -> list[str]:
        """Return the tags whose curves are drawn."""
        return columns.split(self.config.tags) or default_tags(self.rows, self.metric)

    def table(self) -> pd.DataFrame:
        """Return one row a run: run, status, age, duration, settings that differ, metrics."""
        from trainlab.runs.compare import tables

        return tables.runs(self.rows)

    def leaders(self) -> pd.DataFrame:
        """Return the best runs, on each data apart: their rank, metric, settings that differ, cost."""
        from trainlab.runs.compare import tables

        return tables.leaders(self.groups, self.metric, self.config.best)

    def differences(self) -> pd.DataFrame:
        """Return what sets the best runs apart from the rest, as `differences.table`."""
        from trainlab.runs.compare import differences

        return differences.table(self.comparable, self.metric, self.config.best)

    def cost(self) -> pd.DataFrame:
        """Return what each run cost, as `cost.table`."""
        from trainlab.runs.compare import cost

        return cost.table(self.rows)

    def curves(self, for_file: bool = False) -> Picture:
        """Return the curves of the runs; of the best where there are too many."""
        from trainlab.runs import plots

        return plots.curves(self.points, self.tags, self.config.smooth, self.config.x, for_file)

    def parallel(self) -> Picture:
        """Return the runs across parallel axes: the settings that differ, and the metric."""
        from trainlab.runs import plots

        return plots.parallel(self.comparable, self.metric)

    def importance(self) -> Picture:
        """Return how much each setting matters, or how many runs it takes to tell."""
        from trainlab.runs import plots
        from trainlab.runs.compare import importance

        reason = importance.missing(self.comparable, self.metric)
        return plots.importance(importance.table(self.comparable, self.metric), reason)

    @cached_property
    def ranked(self) -> list[Row]:
        """The runs that have the metric, the best first; those on other data behind them."""
        return ranking.ranked(self.rows, self.metric)

    @cached_property
    def groups(self) -> list[list[Row]]:
        """The ranked runs of each data and split; the newest run's first."""
        return ranking.groups(self.ranked)

    @property
    def comparable(self) -> list[Row]:
        """Return the runs whose settings are weighed: those on the newest one's data."""
        return self.groups[0] if self.groups else []

    @property
    def drawn(self) -> list[Row]:
        """Return the runs whose curves are drawn: those with any of the tags, the best of too many."""
        return self._with_curves[: self.most]

    def left_out(self) -> list[str]:
        """Return a sentence for each reason why runs are missing among the curves."""
        if not self.tags:
            return []
        having = self._with_curves
        without = len(self.rows) - len(having)
        known = self.points.dropna(subset=[self.config.x.value])
        placeless = sorted(set(self.points["run"]) - set(known["run"]))
        first = "best" if self.ranked else "newest"
        found = {
            f"{without} of {len(self.rows)} runs have no {' or '.join(self.tags)}.": without,
            f"Of {len(having)} runs with curves the {first} {self.most} are drawn.": len(having) > self.most,
            _PLACELESS.get(self.config.x, "").format(", ".join(placeless)): placeless,
            f"Logged without steps, and drawn at one: {', '.join(self._stepless)}. Over time (x=time) the "
            "points lie apart.": self._stepless and self.config.x is XAxis.step,
        }
        return [sentence for sentence, holds in found.items() if holds]

    @cached_property
    def points(self) -> pd.DataFrame:
        """The points of the curves that are drawn."""
        from trainlab.runs.compare import curves

        return curves.points(self.drawn, self.tags)

    @property
    def _stepless(self) -> list[str]:
        """Return the drawn runs that have logged several points of a tag, and all at the same step."""
        found = self.points.groupby(["run", "tag"], sort=False)["step"].agg(["nunique", "size"])
        alike = found[(found["nunique"] == 1) & (found["size"] > 1)]
        return list(dict.fromkeys(run for run, _ in alike.index))

    @cached_property
    def _with_curves(self) -> list[Row]:
        placed = {row.folder for row in self.ranked}
        unranked = [row for row in self.rows if row.folder not in placed]
        return [row for row in [*self.ranked, *unranked] if any(tag in row.last for tag in self.tags)]


def compare(config: CompareConfig, logs: Path | None = None) -> Comparison:
    """Read the runs that the settings choose.

    Raises UserError for a filter that can't be read, an unknown experiment, metric or tag; no runs are fine.
    """
    directions = directions_of(config.metric, config.mode)
    rows = [row for row in listing.rows(logs, directions=directions) if not row.looks]
    if rows and config.experiment not in (NEWEST, ALL):
        rows = listing.rows(logs, config.experiment, directions)
    elif config.experiment == NEWEST:
        rows = of_newest(rows)
    return comparison(query.select(rows, config.where), config)


def comparison(rows: list[Row], config: CompareConfig, most: int = MOST_CURVES) -> Comparison:
    """Compare runs that are known; raise UserError for an unknown metric or tag."""
    for name in filter(None, [config.metric, *columns.split(config.tags)]):
        check_tag(rows, name)
    return Comparison(rows, config.metric or default_metric(rows), config, most)


def of_newest(rows: Sequence[Row]) -> list[Row]:
    """Return the runs of the experiment of the newest run with metrics; none where no run has any."""
    newest = next((row.experiment for row in rows if columns.main_metrics([row])), None)
    return [row for row in rows if row.experiment == newest]


def default_metric(rows: Sequence[Row]) -> str:
    """Return the tag that the runs call most important, or the first of val/*, or any; '' for none.

    One that has a best value goes first: without a direction nothing can be ranked.
    """
    known = columns.main_metrics(rows)
    return next((tag for tag in known if any(tag in row.best for row in rows)), next(iter(known), ""))


def default_tags(rows: Sequence[Row], metric: str) -> list[str]:
    """Return the metric, and train/loss beside val/loss where it was logged."""
    known = {tag for row in rows for tag in row.last}
    trained = [f"train/{metric.rpartition('/')[2]}", "train/loss", "loss"]
    return [tag for tag in dict.fromkeys([metric, *trained]) if tag in known][:2]


def check_tag(rows: Sequence[Row], tag: str) -> None:
    """Raise UserError with the nearest tag where no run has this one; without runs nothing is unknown."""
    from trainlab.errors import UserError, nearest, some

    known = sorted({each for row in rows for each in row.last})
    if rows and tag not in known:
        main = columns.main_metrics(rows)
        raise UserError(f"No run has {tag!r}.{nearest(tag, known, most=3)} There: {some(main or known)}.")
