"""How much each setting matters for a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from trainlab import extras
from trainlab.runs import columns, display
from trainlab.runs.compare.differences import is_number
from trainlab.runs.ranking import ranked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.runs.listing import Row

MINIMUM = 16  # runs with the metric: below, see `missing`
RUNS_PER_SETTING = 4
COLUMNS = ("setting", "importance", "low", "high")
_RESAMPLES = 30
_SHUFFLES = 5
_TREES = 60


def missing(rows: Sequence[Row], metric: str) -> str:
    """Return why there is no importance to speak of, or ''."""
    order = ranked(rows, metric)
    settings = columns.differing(order)
    needed = max(MINIMUM, RUNS_PER_SETTING * len(settings))
    if len(order) < needed:
        return (
            f"The importance of settings needs {needed} runs with {metric or 'a metric'} "
            f"({MINIMUM}, and {RUNS_PER_SETTING} for each setting that differs); there are {len(order)}."
        )
    if not settings or len({row.best[metric] for row in order}) == 1:
        return f"The {len(order)} runs do not differ in {'their settings' if not settings else metric}."
    return ""


def table(rows: Sequence[Row], metric: str, seed: int = 0) -> pd.DataFrame:
    """Return how much each setting matters: setting, importance, low, high; the most important first.

    `importance` is the share of the variance of the runs' ranks by the metric that a setting accounts for,
    by itself or together with others: the rise of a random forest's squared error when the setting is
    shuffled among runs that the forest hasn't seen (L. Breiman, "Random forests", 2001), over twice the
    variance, since shuffling counts a setting's variance twice (B. Gregorutti, B. Michel and P. Saint-Pierre,
    "Correlation and variable importance in random forests", 2017). Ranks, because one diverged run would
    outweigh all others. `low` to `high` holds 95 % of what forests on other draws of the same runs say: where
    it begins below 0, the setting may not matter at all. Empty where `missing` says why.
    """
    order = ranked(rows, metric)
    if missing(order, metric):
        return pd.DataFrame(columns=list(COLUMNS))
    names = columns.differing(order)
    settings = pd.DataFrame([[row.config.get(name) for name in names] for row in order], columns=names)
    ranks = pd.Series([row.best[metric] for row in order]).rank(pct=True).to_numpy()
    found = _resampled(settings.apply(_coded).to_numpy(), ranks, np.random.default_rng(seed))
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    frame = pd.DataFrame({"setting": names, "importance": found.mean(axis=0), "low": low, "high": high})
    return frame.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def _coded(values: pd.Series) -> pd.Series:
    """Return numbers as floats and names as their places in the alphabet: a tree's cuts need no more.

    A missing number is NaN, which trees can read.
    """
    if all(is_number(each) or pd.isna(each) for each in values):
        return values.astype(float)
    texts = values.map(lambda each: display.short(each) or "none")
    return pd.Series(pd.factorize(texts, sort=True)[0], index=values.index, dtype=float)


def _resampled(settings: np.ndarray, ranks: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return importances, [resample, setting].

    A forest learns from a draw of the runs with replacement, and is asked about those that weren't drawn.
    """
    extras.need("sklearn", "The importance of settings")
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    found = []
    for seed in range(_RESAMPLES):
        drawn = random.integers(len(ranks), size=len(ranks))
        left = np.setdiff1d(np.arange(len(ranks)), drawn)
        forest = RandomForestRegressor(_TREES, random_state=seed).fit(settings[drawn], ranks[drawn])
        shuffled = permutation_importance(
            forest,
            settings[left],
            ranks[left],
            scoring="neg_mean_squared_error",
            n_repeats=_SHUFFLES,
            random_state=seed,
        )
        found.append(shuffled.importances_mean / (2 * ranks.var()))
    return np.array(found)
