"""The nearest news to a title, by a run's own tokens, pooling and distance.

The vectors of all news lie in the run's folder once they are known: 1 kB an item, and minutes of a CPU for
each 100,000 of them. Titles that are news themselves are answered from these, without the network.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.news.config import NewsConfig
from experiments.news.data import News, read
from experiments.news.tokens import tokens_of
from trainlab import files
from trainlab.cleaning import text_key
from trainlab.errors import UserError
from trainlab.nearest import Index
from trainlab.run import record
from trainlab.run.restoring import BEST, best_of, restore, trained

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from experiments.news.model import NewsModel

VECTORS = "vectors.npz"  # in a run's folder
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

    @cache
    def model() -> NewsModel:
        from experiments.news.model import NewsModel  # it takes seconds to load

        return restore(NewsModel, path)

    vectors = saved_vectors(folder, news)
    if vectors is None:
        tokens = tokens_of(news, model().hparams["text"], model().tokenizer)
        vectors = model().embed(tokens).numpy()
        save_vectors(folder, news, vectors)
    return nearest(lambda asked: embed(model(), asked), news, vectors, titles, k)


def saved_vectors(folder: Path, news: News) -> NDArray[np.float32] | None:
    """Return the vectors [N, D] of these very news by the run's best checkpoint as it is now, if saved."""
    with suppress(OSError, ValueError, KeyError, BadZipFile), np.load(folder / VECTORS) as saved:
        vectors = saved["vectors"]
        known = str(saved["made_of"]) == _made_of(folder, news)
        if known and vectors.dtype == np.float32 and vectors.ndim == 2 and len(vectors) == len(news.table):
            return vectors
    return None


def save_vectors(folder: Path, news: News, vectors: NDArray[np.float32]) -> None:
    """Keep the vectors of all news by a run's best checkpoint, where its folder can be written."""
    content = io.BytesIO()
    np.savez(content, vectors=vectors, made_of=_made_of(folder, news))
    with suppress(OSError):  # a full disk, somebody else's run: next time they are made again
        files.write(folder / VECTORS, content.getvalue())


def _made_of(folder: Path, news: News) -> str:
    """Return what tells apart vectors of other news, or by another network."""
    return hashlib.sha256(f"{files.digest(folder / BEST)} {news.sha256}".encode()).hexdigest()


def check_query(titles: str | Sequence[str], k: int) -> None:
    """Raise UserError unless there are titles to ask about and room for an answer."""
    if k < 1:
        raise UserError(f"k={k}: expected 1 or more.")
    if not titles or not all(title.strip() for title in ([titles] if isinstance(titles, str) else titles)):
        raise UserError(
            'No title to recommend for, or an empty one. Expected for instance: "Ten easy pasta dinners"'
        )


def nearest(
    embedding: Callable[[News], NDArray[Any]],
    news: News,
    vectors: NDArray[Any],
    titles: str | Sequence[str],
    k: int,
) -> pd.DataFrame:
    """Return the k nearest of the news, embedded as `vectors` [N, D], to each title (see `recommend`).

    A title that is among the news is read with its abstract, where the network reads abstracts. Titles that
    are none of the news, letter by letter, are embedded by `embedding`.
    """
    titles = [titles] if isinstance(titles, str) else list(titles)
    keys, asked = news.table["title"].map(text_key), [text_key(title) for title in titles]
    rows = dict(zip(keys, range(len(keys)), strict=True))  # of equal titles the last
    known = [rows.get(key) for key in asked]
    queries = np.empty((len(titles), vectors.shape[1]), np.float32)  # which is what the network computes in
    other = []
    for place, (row, title) in enumerate(zip(known, titles, strict=True)):
        if row is not None and news.table["title"].iloc[row] == title:
            queries[place] = vectors[row]
        else:
            other.append(place)
    if other:
        read = [(titles[place], known[place]) for place in other]
        table = pd.DataFrame(
            {
                "title": [title for title, _ in read],
                "abstract": ["" if row is None else news.table["abstract"].iloc[row] for _, row in read],
            }
        )
        queries[other] = embedding(News(news.path, table, news.sha256))
    different = np.flatnonzero(~keys.duplicated())
    index = Index(vectors[different].astype(np.float32))
    distances, found = index.nearest(queries, k + 1)  # one may be the query itself
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
