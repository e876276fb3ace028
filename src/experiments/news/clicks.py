"""Reading next, measured as the field does: what readers clicked is ranked by what they had read before.

A candidate's score is minus its mean distance to the NEAREST nearest of the reader's last 50 items. Each
impression has its own AUC, MRR and nDCG as MIND's evaluation has them (F. Wu et al., "MIND: A Large-scale
Dataset for News Recommendation", ACL 2020); the figures are means over impressions.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.news import behaviors as files
from experiments.news.behaviors import Behaviors
from experiments.news.config import NewsConfig
from experiments.news.metrics import Vectors, distances
from experiments.news.model import NewsModel
from experiments.news.tokens import TokenTable
from experiments.news.train import Result, tfidf
from trainlab.cleaning import json_of
from trainlab.errors import UserError
from trainlab.run import record
from trainlab.run.restoring import best_of, restore, trained
from trainlab.training.workers import set_threads

NEAREST = 3  # read items that count for a candidate: a reader has more tastes than one
COLD = 5  # read items, at most, of a reader who counts as cold
METRICS = {"auc": "AUC", "mrr": "MRR", "ndcg_at_5": "nDCG@5", "ndcg_at_10": "nDCG@10"}
RUN, CHANCE, POPULARITY = "run", "random", "popularity"
SYSTEMS = {
    CHANCE: "random",
    POPULARITY: "popularity",
    "tfidf": "TF-IDF, cosine",
    "untrained": "untrained backbone, cosine",
    RUN: "the run",
}
ALL, FEW, NONE = "history", "cold", "none"
GROUPS = {
    ALL: "Readers who had read something",
    FEW: f"Of them, cold readers: 1 to {COLD} items read",
    NONE: "Readers who had read nothing: no distance to go by",
}
REPEATS, LEVEL = 1_000, (2.5, 97.5)  # of the bootstrap, and its percentiles
ROUNDED = 5  # digits of a score, in units of the mean one: single precision tells no finer ones apart
CELLS = 1 << 22  # distances at once: four tables of 32 MB on the way
ENTRIES = 1 << 16  # candidates at once: 26 MB of distances to histories
EXPLAINED = (
    "Percent, means over impressions, with 95 % intervals by drawing the readers again 1,000 times (a "
    "reader's impressions share a history). Equal scores count as the mean over all their orders. "
    "Popularity: how many readers had read an item before their first impression of the file."
)
PUBLISHED = (
    "Published for MIND-small's dev part, AUC / MRR / nDCG@5 / nDCG@10: NAML 66.8 / 31.6 / 34.8 / 41.1, "
    "NRMS 64.2 / 29.9 / 32.5 / 38.9 (github.com/yusanshi/news-recommendation). Those learned from the "
    "clicks of MIND's training part, the run from categories alone; with figures of another file they "
    "don't compare."
)


class Figure(NamedTuple):
    """A mean and its interval, NaN where there is one reader only: no second one to draw."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it in percent, such as '66.8 (66.1 to 67.3)'."""
        if np.isnan(self.low):
            return f"{100 * self.value:.1f}"
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True)
class Group:
    """Some of the impressions: how many, of how many readers, and each system's figures by metric.

    `ahead` is how far the run's AUC is ahead of each other system's, on the same readers drawn.
    """

    impressions: int
    readers: int
    figures: dict[str, dict[str, Figure]]
    ahead: dict[str, Figure]

    def table(self) -> pd.DataFrame:
        """Return the figures as text in percent, a row for each system."""
        rows = {
            SYSTEMS[system]: {METRICS[metric]: str(each) for metric, each in found.items()}
            for system, found in self.figures.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def differences(self) -> str:
        """Return how far the run's AUC is ahead of the others', in a line."""
        return "; ".join(f"{SYSTEMS[system]}: {each}" for system, each in self.ahead.items())


@dataclass(frozen=True)
class Evaluation:
    """What a run's distances are worth to readers, by the groups of `GROUPS` that are not empty."""

    run: Path
    behaviors: Behaviors
    groups: dict[str, Group]
    missing: str  # why the untrained backbone is not among the systems, or ''

    def summary(self) -> str:
        """Return a few lines for people: the files, and what of them is not measured."""
        return f"{self.run.name}\n{self.behaviors.summary()}"

    def as_json(self) -> str:
        """Return everything as JSON; figures are shares, not percent."""
        known = self.behaviors
        plain = {
            "run": self.run.name,
            "behaviors": str(known.path),
            "news": str(known.news.path),
            "unreadable": len(known.unreadable),
            "left_out": known.left_out,
            "not_among_the_news": known.unknown,
            "groups": {
                name: {
                    "impressions": group.impressions,
                    "readers": group.readers,
                    "figures": {
                        system: {metric: _plain(each) for metric, each in found.items()}
                        for system, found in group.figures.items()
                    },
                    "auc_ahead_of": {system: _plain(each) for system, each in group.ahead.items()},
                }
                for name, group in self.groups.items()
            },
        }
        return json_of(plain)


def evaluate(run: str | Path, behaviors: str, news: str = "") -> Evaluation:
    """Measure how well a run's distances, and simpler ways, rank what readers clicked.

    Nothing is recorded: the figures belong to the file of behaviours, and a run that is finished stays as it
    is.

    Args:
        run: Whatever `trainlab.find` understands.
        behaviors: 'sample', 'mind-small' or the path of a behaviors.tsv.
        news: The news.tsv that its ids stand for; default: the one beside it.

    Raises:
        UserError: An unknown run, one of another experiment or without a checkpoint yet, and files that can't
            be used (see `behaviors.read` and `data.read`).
    """
    folder = trained(run, "news")
    path, config = best_of(folder, "news"), NewsConfig.parse(record.read(folder).config)
    return compare(folder, restore(NewsModel, path), config, files.read(behaviors, news))


def of(result: Result, behaviors: str = "sample") -> Evaluation:
    """Measure a training that has just ended, in the same way."""
    return compare(result.run, result.model, result.config, files.read(behaviors))


def compare(run: Path, model: NewsModel, config: NewsConfig, known: Behaviors) -> Evaluation:
    """Measure a run's network on what was read of the behaviours, beside the simpler ways."""
    if not (known.histories >= 0).any():
        raise UserError(
            f"{known.path}: no reader had read any of the news in {known.news.path}. Expected their ids in "
            "the fourth column, the history: it is what a run ranks by."
        )
    set_threads()
    texts, missing = known.news.texts(config.text), ""
    items = model.tokenize([texts[row] for row in known.items])
    tell(f"measuring TF-IDF, and the run on {len(known.items):,} news")
    found = {
        CHANCE: np.zeros(len(known.candidates)),
        POPULARITY: known.popularity[known.candidates].astype(np.float64),
        "tfidf": scores(known, tfidf(known.news, config.text)[known.items], cosine=True),
        RUN: scores(known, embedded(model, items)),
    }
    try:
        backbone = NewsModel.pretrained(config)
    except UserError as error:
        missing = f"The untrained backbone is left out: {error}"
    else:
        tell("measuring the untrained backbone")
        found["untrained"] = scores(known, embedded(backbone, items, raw=True), cosine=True)
    values = {system: measure(known, found[system]) for system in SYSTEMS if system in found}
    return Evaluation(run, known, groups(known, values), missing)


def tell(text: str) -> None:
    """Say what takes its time, where it is in the way of no table."""
    print(text, file=sys.stderr, flush=True)


def embedded(model: NewsModel, items: TokenTable, *, raw: bool = False) -> NDArray[np.float64]:
    """Return the vectors [N, D] of items, made on a GPU where there is one; raise UserError for NaN."""
    model = model.to(NewsConfig.parse({}).device)
    vectors = (model.embed_raw(items) if raw else model.embed(items)).double().numpy()
    if not np.isfinite(vectors).all():
        raise UserError("The network's vectors are no numbers: its training went astray. Choose another run.")
    return vectors


def scores(behaviors: Behaviors, vectors: Vectors, *, cosine: bool = False) -> NDArray[np.float64]:
    """Return each candidate's score [M]: minus its mean distance to the nearest of what its reader had read.

    Args:
        behaviors: Who had read what, and what was shown.
        vectors: Of its items, [N, D], dense or sparse.
        cosine: Take 1 - cosine for the distance, else the Euclidean one, as in training.

    Returns:
        NaN for readers who had read nothing.
    """
    vectors = normalize(vectors) if cosine else vectors
    read = np.unique(behaviors.histories[behaviors.histories >= 0])
    places = np.searchsorted(read, behaviors.histories)
    places[behaviors.histories < 0] = len(read)  # a column of infinite distances
    order = np.argsort(behaviors.candidates, kind="stable")
    shown, starts = np.unique(behaviors.candidates[order], return_index=True)
    starts = np.append(starts, len(order))
    impression = np.repeat(np.arange(len(behaviors.ends)), np.diff(behaviors.ends, prepend=0))
    found = np.empty(len(order))
    at_once = max(1, CELLS // len(read))
    for start in range(0, len(shown), at_once):
        part = shown[start : start + at_once]
        near = np.full((len(part), len(read) + 1), np.inf)
        near[:, :-1] = distances(vectors[part], vectors[read])
        begin, end = starts[start], starts[start + len(part)]
        for first in range(begin, end, ENTRIES):
            entries = order[first : min(first + ENTRIES, end)]
            rows = np.searchsorted(part, behaviors.candidates[entries])
            all_read = near[rows[:, None], places[impression[entries]]]
            least = np.partition(all_read, NEAREST - 1, axis=1)[:, :NEAREST]
            there = np.isfinite(least)
            least = np.where(there, least, 0)
            least = least * least / 2 if cosine else least  # of vectors of length 1
            with np.errstate(invalid="ignore"):
                found[entries] = least.sum(axis=1) / there.sum(axis=1)
    scale = float(np.nanmean(found)) or 1.0
    return -np.round(found / scale, ROUNDED) * scale


def measure(behaviors: Behaviors, ranked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each impression's metrics [I, 4], in the order of `METRICS`, by its candidates' scores [M].

    Candidates of equal scores count as the mean over all their orders: what a coin in place of the file's
    order, or of a sorting program's, would give. NaN for impressions with scores of NaN.
    """
    ends, clicked = behaviors.ends, behaviors.clicked
    sizes = np.diff(ends, prepend=0)
    begins = np.repeat(ends - sizes, sizes)
    blank = np.isnan(ranked)
    order = np.lexsort((np.where(blank, 0, -ranked), begins))
    ordered, begins = np.where(blank, 0, ranked)[order], begins[order]
    fresh = np.ones(len(order), np.bool_)  # where a group of equals begins
    fresh[1:] = (ordered[1:] != ordered[:-1]) | (begins[1:] != begins[:-1])
    first = np.flatnonzero(fresh)
    lengths = np.diff(first, append=len(order))
    before = np.repeat(first, lengths) - begins  # candidates ranked above a candidate's group
    length = np.repeat(lengths, lengths)
    clicks = clicked[order]

    def summed(worth: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.add.reduceat(np.where(clicks, worth, 0), ends - sizes)

    def mean_of(gains: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the clicks' mean gain over the ranks of their groups, summed; gains [most] by rank."""
        total = np.append(0, np.cumsum(gains))
        return summed((total[before + length] - total[before]) / length)

    ranks = np.arange(1, sizes.max() + 1)
    count = summed(np.ones(len(order)))
    from_below = np.repeat(sizes, sizes) - before - (length - 1) / 2  # the mean rank, the worst one's is 1
    auc = (summed(from_below) - count * (count + 1) / 2) / (count * (sizes - count))
    found = [auc, mean_of(1 / ranks) / count]
    for most in (5, 10):
        gains = np.where(ranks <= most, 1 / np.log2(ranks + 1), 0)  # of a click: 2^1 - 1, of no click 2^0 - 1
        found.append(mean_of(gains) / np.cumsum(gains)[count.astype(int) - 1])
    values = np.column_stack(found)
    values[np.logical_or.reduceat(blank, ends - sizes)] = np.nan
    return values


def groups(behaviors: Behaviors, values: dict[str, NDArray[np.float64]]) -> dict[str, Group]:
    """Return the figures of each group of readers that is not empty; `values` [I, 4] of each system."""
    count = (behaviors.histories >= 0).sum(axis=1)
    members = {ALL: count > 0, FEW: (count > 0) & (count <= COLD), NONE: count == 0}
    return {
        name: summarized(
            {system: each[rows] for system, each in values.items() if not np.isnan(each[rows]).any()},
            behaviors.readers[rows],
        )
        for name, rows in members.items()
        if rows.any()
    }


def summarized(values: dict[str, NDArray[np.float64]], readers: NDArray[np.int64]) -> Group:
    """Return means over impressions [I, 4] of each system, with intervals by drawing readers [I] again.

    A reader who is drawn brings all of their impressions; the systems are compared on the same readers drawn.
    """
    codes = np.unique(readers, return_inverse=True)[1]
    count = int(codes.max()) + 1
    sums = np.zeros((count, len(values) * len(METRICS) + 1))
    np.add.at(sums, codes, np.column_stack([*values.values(), np.ones(len(codes))]))
    rng = np.random.default_rng(0)
    drawn = np.stack(
        [
            np.bincount(rng.integers(count, size=count), minlength=count).astype(float) @ sums
            for _ in range(REPEATS)
        ]
    )
    whole = sums.sum(axis=0)
    means = (whole[:-1] / whole[-1]).reshape(len(values), -1)
    again = (drawn[:, :-1] / drawn[:, -1:]).reshape(REPEATS, len(values), -1)

    def figure(value: float, draws: NDArray[np.float64]) -> Figure:
        low, high = np.percentile(draws, LEVEL) if count > 1 else (np.nan, np.nan)
        return Figure(float(value), float(low), float(high))

    figures = {
        system: {
            metric: figure(means[row, column], again[:, row, column]) for column, metric in enumerate(METRICS)
        }
        for row, system in enumerate(values)
    }
    ahead, own = {}, list(values).index(RUN) if RUN in values else None
    if own is not None:
        for row, system in enumerate(values):
            if row != own:
                ahead[system] = figure(means[own, 0] - means[row, 0], again[:, own, 0] - again[:, row, 0])
    return Group(len(codes), count, figures, ahead)


def normalize(vectors: Vectors) -> Vectors:
    """Return vectors [N, D] of length 1; those of length 0 stay."""
    from sklearn.preprocessing import normalize as scaled

    return scaled(vectors)


def _plain(figure: Figure) -> dict[str, float | None]:
    return {name: None if np.isnan(each) else each for name, each in figure._asdict().items()}
