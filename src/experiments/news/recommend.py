"""The nearest news to a title, by a run's own tokens, pooling and distance."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.news.config import NewsConfig
from experiments.news.data import News, read
from experiments.news.model import NewsModel
from trainlab.cleaning import text_key
from trainlab.errors import UserError
from trainlab.run import record
from trainlab.run.restoring import best_of, restore, trained

COLUMNS = ["query", "rank", "title", "category", "distance"]
AT_ONCE = 256  # queries: 160 MB of scores at 160,000 candidates
GROUP = 64  # candidates whose least score is looked at first
SPARE = 6  # candidates beyond k that are measured again in double precision


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
    found, distances = nearest_rows(queries, vectors[different], k + 1)  # one may be the query itself
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


def nearest_rows(
    queries: NDArray[Any], candidates: NDArray[Any], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each query's k nearest candidates, nearest first: rows [Q, k], Euclidean distances [Q, k].

    `queries` [Q, D], `candidates` [N, D]; k is at most N. Equal distances rank by row.

    Single precision finds a few more than k, double precision ranks these. Where single precision might have
    missed one, the query is ranked among all candidates. A squared distance in single precision is a sum of D
    products, each rounded. The bound on its rounding is N. Higham's ("Accuracy and Stability of Numerical
    Algorithms", 2002, section 3.1): D roundings of terms that come to at most |q||c|, twice, and as many of
    each length.
    """
    k = min(k, len(candidates))
    table = torch.from_numpy(np.ascontiguousarray(candidates, np.float32))
    lengths = (table * table).sum(1)
    found, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
    for start in range(0, len(queries), AT_ONCE):
        part = queries[start : start + AT_ONCE]
        asked = torch.from_numpy(np.ascontiguousarray(part, np.float32))
        scores = torch.addmm(lengths, asked, table.T, alpha=-2)  # squared distances less the query's length
        least, likely = _least(scores, min(k + SPARE, len(candidates)))
        rows = np.sort(likely.numpy(), axis=1)
        near = np.linalg.norm(candidates[rows] - part[:, None], axis=2)
        order = near.argsort(axis=1, kind="stable")[:, :k]
        rows, near = np.take_along_axis(rows, order, 1), np.take_along_axis(near, order, 1)
        if least.shape[1] < len(candidates):
            own = (asked * asked).sum(1)
            rounding = 4 * table.shape[1] * torch.finfo(torch.float32).eps * (own + lengths.max())
            reach = (least[:, -1] + own - rounding).numpy()
            for query in np.flatnonzero(near[:, -1] ** 2 >= reach):
                exact = np.linalg.norm(candidates - part[query], axis=1)
                rows[query] = exact.argsort(kind="stable")[:k]
                near[query] = exact[rows[query]]
        found[start : start + AT_ONCE], distances[start : start + AT_ONCE] = rows, near
    return found, distances


def _least(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the least scores of each row, and where they are. A group's least stands for it at first."""
    groups = scores.shape[1] // GROUP
    if groups <= count:
        return torch.topk(scores, count, largest=False)
    whole = scores[:, : groups * GROUP].view(len(scores), groups, GROUP)
    chosen = torch.topk(whole.amin(2), count, largest=False).indices
    indices = (chosen[:, :, None] * GROUP + torch.arange(GROUP)).flatten(1)
    rest = torch.arange(groups * GROUP, scores.shape[1]).expand(len(scores), -1)
    indices = torch.cat([indices, rest], 1)
    least, which = torch.topk(scores.gather(1, indices), count, largest=False)
    return least, indices.gather(1, which)
