"""The nearest news to a title, by a run's own tokens, pooling and distance."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from experiments.news.config import NewsConfig
from experiments.news.data import News, read, title_key
from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from experiments.news.model import NewsModel
    from trainlab.run.record import Record


BEST = "checkpoints/best.ckpt"
COLUMNS = ["query", "rank", "title", "category", "distance"]


def recommend(run: str | Path, titles: str | Sequence[str], k: int = 10) -> pd.DataFrame:
    """Return the k nearest news to each title by a run's best checkpoint: the columns of `COLUMNS`.

    `run` is whatever `trainlab.find` understands. Candidates are all news of the run's data set, seen
    and unseen, each title once and never the query's own. Distances are Euclidean, as in training.
    Raises UserError for an unknown run, one of another experiment or without a checkpoint yet, no title or
    an empty one, and k below 1. Warns when the data has changed since the run.
    """
    from trainlab.run import record
    from trainlab.run.restoring import trained

    check_query(titles, k)
    folder = trained(run, "news")
    recorded = record.read(folder)
    config, best = _config(folder, recorded), folder / BEST
    if not best.is_file():
        raise UserError(
            f"{folder.name} has no {BEST}: it is {recorded.status}, and no epoch of it was completed. "
            "Choose another run: trainlab runs --experiment news"
        )
    from experiments.news.model import NewsModel
    from trainlab.run.restoring import restore

    news = read(config.data)
    _warn_if_changed(news, recorded.data or {}, folder.name)
    model = restore(NewsModel, best)
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
    keys, asked = title_key(news.table["title"]), title_key(pd.Series(titles))
    queries = embed(model, _as_news(titles, asked, news, keys))
    different = np.flatnonzero(~keys.duplicated())
    rows, near = nearest_rows(queries, vectors[different], k + 1)  # one of them may be the query itself
    rows = different[rows]
    others = keys.to_numpy()[rows] != asked.to_numpy()[:, None]
    rankings = [
        _ranking(title, rows[number, others[number]][:k], near[number, others[number]][:k], news)
        for number, title in enumerate(titles)
    ]
    return pd.concat(rankings, ignore_index=True)


def embed(model: NewsModel, news: News) -> NDArray[np.float64]:
    """Return the embeddings [N, D] of all news, by the tokens and texts that the network was trained with."""
    return model.embed(model.tokenize(news.texts(model.hparams["text"]))).double().numpy()


def _ranking(title: str, rows: NDArray[np.int64], near: NDArray[np.float64], news: News) -> pd.DataFrame:
    found = news.table.iloc[rows][["title", "category"]].reset_index(drop=True)
    return found.assign(query=title, rank=range(1, len(rows) + 1), distance=near)[COLUMNS]


def _as_news(titles: Sequence[str], asked: pd.Series, news: News, keys: pd.Series) -> News:
    """Return the titles as news, with the abstracts of those that are known."""
    abstracts = dict(zip(keys, news.table["abstract"], strict=True))
    known = [abstracts.get(key, "") for key in asked]
    return News(news.path, pd.DataFrame({"title": titles, "abstract": known}), news.sha256)


def _config(folder: Path, recorded: Record) -> NewsConfig:
    try:
        return NewsConfig.parse(recorded.config)
    except UserError as error:
        if recorded.experiment == "news":
            raise
        first = str(error).partition("\n")[0].partition(". ")[0][:200]
        raise UserError(
            f"{folder} is no run of the news experiment but of {recorded.experiment} ({first}). "
            "Choose another: trainlab runs --experiment news"
        ) from None


def _warn_if_changed(news: News, recorded: dict[str, Any], name: str) -> None:
    if recorded.get("sha256") not in (None, news.sha256):
        warnings.warn(
            f"{news.path} has changed since {name} was trained: {recorded.get('rows')} rows then, "
            f"{len(news.table)} now. The recommendations are from today's file.",
            stacklevel=3,
        )


AT_ONCE = 256  # queries: 160 MB of scores at 160,000 candidates
GROUP = 64  # candidates whose least score is looked at first
SPARE = 6  # candidates beyond k that are measured again in double precision


def nearest_rows(
    queries: NDArray[Any], candidates: NDArray[Any], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each query's k nearest candidates, nearest first: rows [Q, k], Euclidean distances [Q, k].

    `queries` [Q, D], `candidates` [N, D]; k is at most N. Equal distances rank by row.

    Single precision finds a few more than k, double precision ranks these. Where single precision might have
    missed one, by the bound on its rounding, the query is ranked among all candidates.
    """
    k = min(k, len(candidates))
    table = torch.from_numpy(np.ascontiguousarray(candidates, np.float32))
    lengths = (table * table).sum(1)
    found = [
        _ranked(queries[start : start + AT_ONCE], candidates, k, table, lengths)
        for start in range(0, len(queries), AT_ONCE)
    ]
    rows, near = zip(*found, strict=True) if found else ([np.empty((0, k), np.int64)], [np.empty((0, k))])
    return np.concatenate(rows), np.concatenate(near)


def _ranked(
    queries: NDArray[Any], candidates: NDArray[Any], k: int, table: Tensor, lengths: Tensor
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    asked = torch.from_numpy(np.ascontiguousarray(queries, np.float32))
    scores = torch.addmm(lengths, asked, table.T, alpha=-2)  # squared distance less the query's own length
    least, likely = _least(scores, min(k + SPARE, len(candidates)))
    rows = np.sort(likely.numpy(), axis=1)
    near = np.linalg.norm(candidates[rows] - queries[:, None], axis=2)
    order = near.argsort(axis=1, kind="stable")[:, :k]
    rows, near = np.take_along_axis(rows, order, 1), np.take_along_axis(near, order, 1)
    if least.shape[1] < len(candidates):
        own = (asked * asked).sum(1)
        reach = (least[:, -1] + own - _rounding(own, lengths, table.shape[1])).numpy()
        for query in np.flatnonzero(near[:, -1] ** 2 >= reach):
            rows[query], near[query] = _among_all(queries[query], candidates, k)
    return rows, near


def _least(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the least scores of each row, and where they are. A group's least stands for it at first."""
    groups = scores.shape[1] // GROUP
    if groups <= count:
        return torch.topk(scores, count, largest=False)
    whole = scores[:, : groups * GROUP].view(len(scores), groups, GROUP)
    chosen = torch.topk(whole.amin(2), count, largest=False).indices
    places = (chosen[:, :, None] * GROUP + torch.arange(GROUP)).flatten(1)
    rest = torch.arange(groups * GROUP, scores.shape[1]).expand(len(scores), -1)
    places = torch.cat([places, rest], 1)
    least, which = torch.topk(scores.gather(1, places), count, largest=False)
    return least, places.gather(1, which)


def _rounding(own: Tensor, lengths: Tensor, width: int) -> Tensor:
    """Return how far a squared distance in single precision can be off: a sum of D products, each rounded.

    N. Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1: D roundings of terms that
    come to at most |q||c|, twice, and as many of each length.
    """
    return 4 * width * torch.finfo(torch.float32).eps * (own + lengths.max())


def _among_all(
    query: NDArray[Any], candidates: NDArray[Any], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    near = np.linalg.norm(candidates - query, axis=1)
    rows = near.argsort(kind="stable")[:k]
    return rows, near[rows]
