"""The nearest news to a title, by a run's own tokens, pooling and distance."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.news.config import NewsConfig
from experiments.news.data import News, read
from experiments.news.model import NewsModel
from trainlab.cleaning import text_key
from trainlab.errors import UserError
from trainlab.nearest import Index
from trainlab.run import record
from trainlab.run.restoring import best_of, restore, trained

COLUMNS = ["query", "rank", "title", "category", "distance"]


def recommend(run: str | Path, titles: str | Sequence[str], k: int = 10) -> pd.DataFrame:
    """Find the nearest news to each title by a run's best checkpoint.

    Candidates are all news of the run's data set, seen and unseen, each title once and never the query's own.
    Warns when the data has changed since the run.

    Args:
        run: Whatever `trainlab.find` understands.
        titles: One, or several.
        k: How many for each.

    Returns:
        The columns of `COLUMNS`; distances are Euclidean, as in training.

    Raises:
        UserError: An unknown run, one of another experiment or without a checkpoint yet, no title or an empty
            one, and k below 1.
    """
    check_query(titles, k)
    folder = trained(run, "news")
    path, recorded = best_of(folder, "news"), record.read(folder)
    news, before = read(NewsConfig.parse(recorded.config).data), recorded.data or {}
    if before.get("sha256") not in (None, news.sha256):
        warnings.warn(
            f"{news.path} has changed since {folder.name} was trained: {before.get('rows')} rows then, "
            f"{len(news.table)} now. The recommendations are from today's file.",
            stacklevel=2,
        )
    model = restore(NewsModel, path)
    return nearest(model, news, embed(model, news), titles, k)


def check_query(titles: str | Sequence[str], k: int) -> None:
    """Raise UserError unless there are titles to ask about and room for an answer."""
    if k < 1:
        raise UserError(f"k={k}: expected 1 or more.")
    if not titles or not all(title.strip() for title in ([titles] if isinstance(titles, str) else titles)):
        raise UserError(
            'No title to recommend for, or an empty one. Expected for instance: "Ten easy pasta dinners"'
        )


def nearest(
    model: NewsModel, news: News, vectors: NDArray[Any], titles: str | Sequence[str], k: int
) -> pd.DataFrame:
    """Return the k nearest of the news, embedded as `vectors` [N, D], to each title (see `recommend`).

    A title that is among the news is read with its abstract, where the network reads abstracts.
    """
    titles = [titles] if isinstance(titles, str) else list(titles)
    keys, asked = news.table["title"].map(text_key), [text_key(title) for title in titles]
    abstracts = dict(zip(keys, news.table["abstract"], strict=True))
    known = pd.DataFrame({"title": titles, "abstract": [abstracts.get(key, "") for key in asked]})
    queries = embed(model, News(news.path, known, news.sha256))
    different = np.flatnonzero(~keys.duplicated())
    index = Index(vectors[different].astype(np.float32))  # which is what the network computes in
    distances, found = index.nearest(queries.astype(np.float32), k + 1)  # one may be the query itself
    rankings = []
    for title, key, rows, near in zip(titles, asked, different[found], distances, strict=True):
        others = keys.to_numpy()[rows] != key
        table = news.table.iloc[rows[others][:k]][["title", "category"]].reset_index(drop=True)
        ranks = range(1, len(table) + 1)
        rankings.append(table.assign(query=title, rank=ranks, distance=near[others][:k])[COLUMNS])
    return pd.concat(rankings, ignore_index=True)


def embed(model: NewsModel, news: News) -> NDArray[np.float64]:
    """Return the embeddings [N, D] of all news, by the tokens and texts that the network was trained with."""
    return model.embed(model.tokenize(news.texts(model.hparams["text"]))).double().numpy()
