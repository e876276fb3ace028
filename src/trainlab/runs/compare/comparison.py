"""Runs of one experiment side by side: what `notebooks/compare.ipynb` and the report call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import pandas as pd
from pydantic import Field

from trainlab.config import Config
from trainlab.errors import UserError, nearest, some
from trainlab.run.metrics import directions_of
from trainlab.runs import columns, display, folding, listing, plots, query, ranking
from trainlab.runs.compare import XAxis, cost, curves, differences, importance

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trainlab.runs.folding import Folded
    from trainlab.runs.listing import Row

NEWEST, ALL = "newest", "all"
MOST_CURVES = 10  # runs: more lines can't be distinguished
_PLACELESS = {  # why runs are missing along an axis
    XAxis.time: "The times of the points can't be right: {} can't be drawn over the running time.",
    XAxis.epoch: "Neither a tag such as epoch nor how many epochs are planned is recorded: {} can't be "
    "drawn over the epochs.",
    XAxis.examples: "Neither a batch size nor a tag such as train/examples is recorded: {} can't be drawn "
    "over the examples seen.",
}


class CompareConfig(Config):
    """What is compared, and how.

    `experiment` is a name, newest (that of the newest run with metrics) or all; `sweep` that of one whose
    trials alone are compared; `where` a filter such as 'margin>=5 and age<7d'. `metric` says which run is
    better; by default the one that the runs call the most important; `mode`, min or max, whether less or more
    of it is better, where the runs don't say so. `tags` names curves, by commas; by default the metric and
    the training's counterpart. `smooth` is TensorBoard's smoothing; `x` what curves are drawn over; `best`
    how many runs are set against the rest.
    """

    experiment: str = Field(NEWEST, min_length=1)
    sweep: str = ""
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
        sentences = [f"{runs}, {having} with {self.metric}{better}.", ranking.remark(self.rows, self.metric)]
        if direction is None:
            sentences.append("So none is called the best: say metric and mode=min or mode=max.")
        elif len(self.groups) > 1:
            sentences.append(f"What follows of settings is about the first {len(self.groups[0])}.")
        return " ".join(filter(None, sentences))

    @property
    def tags(self) -> list[str]:
        """Return the tags whose curves are drawn: by default the metric, and train/loss beside val/loss."""
        if chosen := columns.split(self.config.tags):
            return chosen
        known = {tag for row in self.rows for tag in row.last}
        trained = [f"train/{self.metric.rpartition('/')[2]}", "train/loss", "loss"]
        return [tag for tag in dict.fromkeys([self.metric, *trained]) if tag in known][:2]

    def table(self) -> pd.DataFrame:
        """Return one row a run, as text: run, status, age, duration, settings that differ, metrics."""
        shown = display.whole(self.rows) if self.rows else []
        return pd.DataFrame({column.title: column.cells for column in shown})

    def leaders(self) -> pd.DataFrame:
        """Return the best few with their metric, the settings that differ, and their cost.

        Runs that differ by the seed alone are one row where there are any, with the mean of `n` runs, the
        standard deviation `sd`, and what all of them cost (see `folding`). The rank starts again with each
        group of runs on the same data, named where there are several.
        """
        metric, most = self.metric, self.config.best
        groups = ranking.groups(ranking.ranked(self.folds, metric))
        names = columns.differing([row for group in groups for row in group])
        best = [row for group in groups for row in group[:most]]
        label = dict(zip([row.folder for row in best], display.labels(best), strict=True))
        found = [
            {
                "rank": rank,
                "run": label[row.folder],
                **({"data": data} if len(groups) > 1 else {}),
                metric: row.best[metric],
                **({"sd": row.best_sd.get(metric), "n": row.counts[metric]} if self.repeats else {}),
                "last": row.last.get(metric),
                "at step": row.best_steps.get(metric),
                **{name: display.short(row.config.get(name)) for name in names},
                "duration": display.duration(row.seconds),
                "GPU hours": sum(map(cost.gpu_hours, row.members)),
            }
            for group, data in zip(groups, ranking.names(groups), strict=True)
            for rank, row in enumerate(group[:most], 1)
        ]
        return pd.DataFrame(found, columns=None if found else ["rank"]).set_index("rank")

    def differences(self) -> pd.DataFrame:
        """Return what sets the best runs apart from the rest, as `differences.table`."""
        return differences.table(self.comparable, self.metric, self.config.best)

    def cost(self) -> pd.DataFrame:
        """Return what each run cost, as `cost.table`."""
        return cost.table(self.rows)

    def curves(self, for_file: bool = False, logarithmic: bool = False) -> plots.Picture:
        """Return the curves of the runs; of the best where there are too many."""
        along, smooth = self.config.x, self.config.smooth
        return plots.curves(self.points, self.tags, smooth, along, for_file, logarithmic)

    def parallel(self) -> plots.Picture:
        """Return the runs across parallel axes: the settings that differ, and the metric."""
        return plots.parallel(self.comparable, self.metric)

    def importance(self) -> plots.Picture:
        """Return how much each setting matters, or how many runs that needs."""
        reason = importance.missing(self.comparable, self.metric)
        return plots.importance(importance.table(self.comparable, self.metric), reason)

    @cached_property
    def folds(self) -> list[Folded]:
        """The runs, those that differ by the seed alone as one."""
        return folding.fold(self.rows)

    @property
    def folded(self) -> Comparison:
        """Return the same with one row for runs that differ by the seed alone: their mean, see `folding`."""
        return replace(self, rows=[*self.folds])

    @property
    def repeats(self) -> bool:
        """Return whether any setting was run with several seeds."""
        return len(self.folds) < len(self.rows)

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

    @cached_property
    def having(self) -> list[Row]:
        """The runs with any of the tags, the best first."""
        placed = {row.folder for row in self.ranked}
        unranked = [row for row in self.rows if row.folder not in placed]
        return [row for row in [*self.ranked, *unranked] if any(tag in row.last for tag in self.tags)]

    @property
    def drawn(self) -> list[Row]:
        """Return the runs whose curves are drawn: the best of too many."""
        return self.having[: self.most]

    @cached_property
    def points(self) -> pd.DataFrame:
        """The points of the curves that are drawn."""
        return curves.points([run for row in self.drawn for run in folding.members(row)], self.tags)

    def left_out(self) -> list[str]:
        """Return a sentence for each reason why runs are missing among the curves."""
        if not self.tags:
            return []
        having, points, x = len(self.having), self.points, self.config.x
        first, sentences = "best" if self.ranked else "newest", []
        kind = "settings" if columns.folded(self.rows) else "runs"
        if without := len(self.rows) - having:
            sentences.append(f"{without} of {len(self.rows)} {kind} have no {' or '.join(self.tags)}.")
        if having > self.most:
            sentences.append(f"Of {having} {kind} with curves the {first} {self.most} are drawn.")
        if placeless := sorted(set(points["run"]) - set(points.dropna(subset=[x.value])["run"])):
            sentences.append(_PLACELESS[x].format(", ".join(placeless)))
        steps = points.groupby(["run", "tag"], sort=False)["step"].agg(["nunique", "size"])
        alike = steps[(steps["nunique"] == 1) & (steps["size"] > 1)]
        if len(alike) and x is XAxis.step:
            stepless = ", ".join(dict.fromkeys(run for run, _ in alike.index))
            sentences.append(
                f"Logged without steps, and drawn at one: {stepless}. Over time (x=time) "
                "the points lie apart."
            )
        return sentences


def compare(config: CompareConfig, logs: Path | None = None) -> Comparison:
    """Read the runs that the settings choose.

    Raises UserError for a filter that can't be read, an unknown experiment, sweep, metric or tag; no runs are
    fine.
    """
    return chosen(listing.rows(logs, directions=directions_of(config.metric, config.mode)), config)


def chosen(rows: list[Row], config: CompareConfig) -> Comparison:
    """Compare those of some runs, the newest first, that the settings choose, as `compare` does."""
    trained = [row for row in rows if not row.looks]
    if trained and config.experiment not in (NEWEST, ALL):
        trained = listing.of_experiment(rows, config.experiment)
    elif config.experiment == NEWEST and not config.sweep:
        newest = next((row.experiment for row in trained if columns.main_metrics([row])), None)
        trained = [row for row in trained if row.experiment == newest]
    return comparison(query.select(trained, query.of_sweep(config.sweep), config.where), config)


def comparison(rows: list[Row], config: CompareConfig, most: int = MOST_CURVES) -> Comparison:
    """Compare runs that are known, by default by the metric that they call the most important.

    Raises UserError for an unknown metric or tag.
    """
    for name in filter(None, [config.metric, *columns.split(config.tags)]):
        check_tag(rows, name)
    # without a direction nothing can be ranked: one with a best goes first
    known = sorted(columns.main_metrics(rows), key=lambda tag: all(tag not in row.best for row in rows))
    return Comparison(rows, config.metric or next(iter(known), ""), config, most)


def check_tag(rows: Sequence[Row], tag: str) -> None:
    """Raise UserError with the nearest tag where no run has this one; without runs nothing is unknown."""
    known = sorted({each for row in rows for each in row.last})
    if rows and tag not in known:
        main = columns.main_metrics(rows)
        raise UserError(f"No run has {tag!r}.{nearest(tag, known, most=3)} There: {some(main or known)}.")
