"""News in MIND's layout: reading `news.tsv`, and splitting it by item."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.news.metrics import mean_reciprocal_rank, precision_at, triplet_metrics
from trainlab import paths
from trainlab.errors import UserError
from trainlab.files import decode, parted_otherwise, read_bytes, separator, unpacked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from experiments.news.config import NewsConfig
    from experiments.news.metrics import Vectors


COLUMNS = ("id", "category", "subcategory", "title", "abstract", "url", "title entities", "abstract entities")
KEPT = ("id", "category", "subcategory", "title", "abstract")
TEXTS = {"title": 1, "title+abstract": 2}  # of an item that are read
NAMED = 20  # unreadable rows listed by number; the rest are counted


@dataclass(frozen=True)
class News:
    """One `news.tsv`: a row of `table` for each readable news item, and what could not be read.

    `table` has the columns id, category, subcategory, title, abstract (empty where missing), and row numbers
    0, 1, ... as its index; `unreadable` maps a line's number in the file, from 1, to what is wrong with it.
    """

    path: Path
    table: pd.DataFrame
    sha256: str
    unreadable: dict[int, str] = field(default_factory=dict)

    def fingerprint(self) -> dict[str, Any]:
        """Return what `run.json` keeps of the data: path, rows, digest, unreadable rows."""
        return {
            "path": str(self.path),
            "rows": len(self.table),
            "sha256": self.sha256,
            "unreadable": len(self.unreadable),
        }

    def summary(self) -> str:
        """Return a few lines for people: what was read, from where, what was not and why."""
        counts = self.table["category"].value_counts()
        sizes = ", ".join(f"{name} {count}" for name, count in counts.items())
        lines = [f"{self.path}: {len(self.table):,} news in {len(counts)} categories", f"  {sizes}"]
        if self.unreadable:
            lines.append(f"  {len(self.unreadable):,} unreadable rows left out: {self._named()}")
        return "\n".join(lines)

    def codes(self, column: str) -> NDArray[np.int64]:
        """Return a label column as numbers [N], in the order of the names' alphabet."""
        names = self.table[column]
        return np.unique(names.to_numpy(dtype=str), return_inverse=True)[1]

    def texts(self, text: str) -> list[list[str]]:
        """Return each item's texts: [title], or [title, abstract] where a missing abstract is the title."""
        titles = self.table["title"].tolist()
        if text == "title":
            return [[title] for title in titles]
        return [
            [title, abstract or title] for title, abstract in zip(titles, self.table["abstract"], strict=True)
        ]

    def _named(self) -> str:
        named = [f"row {row} ({reason})" for row, reason in list(self.unreadable.items())[:NAMED]]
        more = len(self.unreadable) - len(named)
        return ", ".join(named) + (f" and {more:,} more" if more else "")


def locate(data: str) -> Path:
    """Return the news.tsv that `data` means: 'sample', 'mind-small', or the path of a file or its folder."""
    if data == "sample":
        return paths.data() / "sample" / "news.tsv"
    if data == "mind-small":
        return paths.data() / "mind-small" / "train" / "news.tsv"
    path = Path(data).expanduser()
    path = path / "news.tsv" if path.is_dir() else path
    return path.resolve()


def read(data: str) -> News:
    """Read the news that `data` means (see `locate`); the file may be packed by gzip or zip.

    Raises UserError that names the file, the row and what was expected: a file that is missing, unreadable,
    empty or not UTF-8, no row of 8 columns, or news of one category only.
    """
    path = locate(data)
    raw = read_bytes(path, f"data={data}", _advice(data))
    table, unreadable = _parse(path, decode(path, unpacked(path, raw)))
    return News(path, table, hashlib.sha256(raw).hexdigest(), unreadable)


def title_key(titles: pd.Series) -> pd.Series:
    """Return titles with case and white space levelled: equal keys are duplicates."""
    return titles.str.casefold().str.split().str.join(" ")


def split_items(news: News, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the rows into seen (training) and unseen (validation) ones; the same seed gives the same split.

    Items with equal titles go to the same side. Each category gives `share` of its titles, rounded, to the
    unseen side, but keeps two for training: an anchor and a positive. Tiny categories stay in training whole.
    """
    rng = np.random.default_rng(seed)
    keys = title_key(news.table["title"])
    heads = news.table.loc[~keys.duplicated()]
    unseen: list[str] = []
    for _, group in heads.groupby("category", sort=True):
        rows = rng.permutation(group.index.to_numpy())
        count = max(0, min(round(len(rows) * share), len(rows) - 2))
        unseen.extend(keys.loc[rows[:count]])
    held = keys.isin(unseen).to_numpy()
    return np.flatnonzero(~held), np.flatnonzero(held)


def _advice(data: str) -> str:
    if data == "mind-small":
        return "Download it first: trainlab data fetch mind-small"
    return "Expected data=sample, data=mind-small or the path of a news.tsv in MIND's layout."


def _parse(path: Path, text: str) -> tuple[pd.DataFrame, dict[int, str]]:
    """Split lines and tabs as they are: MIND has no quoting, so a lone quotation mark is part of a title."""
    lines = [line.removesuffix("\r").split("\t") for line in text.removesuffix("\n").split("\n")]
    if not text.strip():
        raise UserError(f"{path} is empty. Expected {_layout()}.")
    faults = {row: fault for row, cells in enumerate(lines, 1) if (fault := _fault(cells))}
    kept = [cells[: len(KEPT)] for row, cells in enumerate(lines, 1) if row not in faults]
    if not kept:
        found = separator(text.lstrip().partition("\n")[0], len(COLUMNS) - 1)
        if found not in ("", "\t"):
            raise parted_otherwise(path, found, "\t")
        raise UserError(f"{path}, row 1: {faults[1]}, and no other row is better. Expected {_layout()}.")
    table = pd.DataFrame(kept, columns=list(KEPT)).apply(lambda column: column.str.strip())
    _require_categories(path, table)
    return table, faults


def _fault(cells: list[str]) -> str:
    """Return what is wrong with one row, or ''."""
    if len(cells) != len(COLUMNS):
        return f"{len(cells)} columns instead of {len(COLUMNS)}"
    missing = [
        name
        for name, cell in zip(COLUMNS, cells, strict=True)
        if name in {"category", "title"} and not cell.strip()
    ]
    return f"no {missing[0]}" if missing else ""


def _require_categories(path: Path, table: pd.DataFrame) -> None:
    categories = table["category"].unique()
    if len(categories) < 2:
        raise UserError(
            f"{path}, rows 1 to {len(table)}: all news are of one category, {categories[0]!r}, in column 2. "
            "Expected two categories at least: a triplet's negative is drawn from another one."
        )


def _layout() -> str:
    return f"{len(COLUMNS)} tab-separated columns without header: {', '.join(COLUMNS)}"


def draw_triplets(
    categories: NDArray[np.integer],
    class_size: int,
    triplets_per_item: int,
    seed: int,
) -> NDArray[np.int64]:
    """Draw triplets of rows; the same arguments give the same triplets.

    The rule (V. Visheratin, "Deep learning with containers", part 1, 2021): of every category at most
    `class_size` items, drawn at random; each of them is the anchor of `triplets_per_item` triplets, with a
    positive from its own category and a negative whose category is drawn uniformly from the others. An
    anchor meets each positive once at most, so no triplet comes twice; a category with fewer others gives
    each (anchor, positive) pair once, and one with a single item serves as a negative only.

    `categories` [N] holds each item's category as a code. Returns [T, 3] row numbers; T is 0 where there are
    fewer than two categories.
    """
    rng = np.random.default_rng(seed)
    pools = _pools(categories, class_size, rng)
    if len(pools) < 2:
        return np.empty((0, 3), dtype=np.int64)
    sizes = np.array([len(pool) for pool in pools])
    pairs = [_pairs(pool, triplets_per_item, rng) for pool in pools]
    own = np.repeat(np.arange(len(pools)), [len(pair) for pair in pairs])
    other = rng.integers(len(pools) - 1, size=len(own))
    other += other >= own
    starts = np.cumsum(sizes) - sizes
    negatives = np.concatenate(pools)[starts[other] + rng.integers(sizes[other])]
    return np.column_stack([np.concatenate(pairs), negatives])


def _pools(
    categories: NDArray[np.integer], class_size: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Return the rows that take part, one array for each category."""
    order = np.argsort(categories, kind="stable")
    _, starts = np.unique(categories[order], return_index=True)
    groups = np.split(order, starts[1:]) if len(order) else []
    return [rng.permutation(group)[:class_size] for group in groups]


def _pairs(pool: NDArray[np.int64], per_item: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return [len(pool)·min(per_item, len(pool)-1), 2] different (anchor, positive) pairs."""
    others = len(pool) - 1
    anchors = np.arange(len(pool))[:, None]
    positives = _distinct(len(pool), others, min(per_item, others), rng)
    positives += positives >= anchors  # steps over the anchor itself
    anchors = np.broadcast_to(anchors, positives.shape)
    return pool[np.stack([anchors, positives], axis=-1).reshape(-1, 2)]


def _distinct(rows: int, population: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return [rows, size] numbers below `population`, none twice in a row of the array.

    R. W. Floyd's sampling without replacement ("A sample of brilliance", CACM 30(9), 1987), all rows at once:
    needs no [rows, population] matrix.
    """
    drawn = np.empty((rows, size), dtype=np.int64)
    for column, last in enumerate(range(population - size, population)):
        candidate = rng.integers(last, size=rows, endpoint=True)
        taken = (drawn[:, :column] == candidate[:, None]).any(axis=1)
        drawn[:, column] = np.where(taken, last, candidate)
    return drawn


MOST_UNSEEN = 10_000  # items measured each epoch; more would cost minutes and change the third digit


@dataclass(frozen=True)
class Examples:
    """`training` [T, 3] and `unseen` [U] are rows of the news; `validation` [V, 3] are places in `unseen`.

    With `split=item` no unseen item, nor one of the same title, is part of a training triplet. With
    `split=triplet` no validation triplet is a training triplet, but the articles are the same: their
    figures say how well training is remembered, not how well it carries over.
    """

    news: News
    training: NDArray[np.int64]
    unseen: NDArray[np.int64]
    validation: NDArray[np.int64]

    def measure(self, vectors: Vectors, margin: float) -> dict[str, float]:
        """Return all metrics of the unseen items' vectors [U, D]; those that are not defined are left out."""
        categories = self.news.codes("category")[self.unseen]
        subcategories = self.news.codes("subcategory")[self.unseen]
        metrics = triplet_metrics(vectors, self.validation, margin) | {
            "precision_at_10": precision_at(vectors, categories),
            "precision_at_10_subcategory": precision_at(vectors, subcategories),
            "mrr": mean_reciprocal_rank(vectors, categories),
        }
        return {name: value for name, value in metrics.items() if not np.isnan(value)}

    def summary(self) -> str:
        """Return a line for people: how much there is to learn from and to be measured by."""
        return (
            f"  {len(self.training):,} triplets to learn from; {len(self.validation):,} to be measured by, "
            f"among {len(self.unseen):,} items held out"
        )


def draw(config: NewsConfig) -> Examples:
    """Read the news, split them and draw the triplets; the same settings and file give the same examples.

    Raises UserError when the file can't be used (see `data.read`), or one side is left without triplets.
    """
    news = read(config.data)
    examples = _by_item(news, config) if config.split == "item" else _by_triplet(news, config)
    if not len(examples.training) or not len(examples.validation):
        side = "training" if not len(examples.training) else "validation"
        raise UserError(
            f"{news.path}: no triplets are left for {side} with class_size={config.class_size}, "
            f"min_class_items={config.min_class_items}, validation={config.validation}. Expected on each "
            "side two categories, one of them with two items: allow smaller categories, or change the share."
        )
    return examples


def _by_item(news: News, config: NewsConfig) -> Examples:
    kept = _large_enough(news, config.min_class_items)
    seen, unseen = split_items(news, config.validation, config.seed)
    seen, unseen = np.intersect1d(seen, kept), np.intersect1d(unseen, kept)
    unseen = np.sort(np.random.default_rng(config.seed).permutation(unseen)[:MOST_UNSEEN])
    training, validation = _triplets(news, seen, config), _triplets(news, unseen, config)
    return Examples(news, training, unseen, np.searchsorted(unseen, validation))


def _by_triplet(news: News, config: NewsConfig) -> Examples:
    triplets = _triplets(news, _large_enough(news, config.min_class_items), config)
    triplets = np.random.default_rng(config.seed).permutation(triplets)
    held = round(len(triplets) * config.validation)
    unseen, places = np.unique(triplets[:held], return_inverse=True)
    return Examples(news, triplets[held:], unseen, places.reshape(-1, 3))


def _triplets(news: News, rows: NDArray[np.int64], config: NewsConfig) -> NDArray[np.int64]:
    codes = news.codes("category")[rows]
    return rows[draw_triplets(codes, config.class_size, config.triplets_per_item, config.seed)]


def _large_enough(news: News, min_items: int) -> NDArray[np.int64]:
    sizes = news.table.groupby("category")["category"].transform("size")
    return np.flatnonzero(sizes >= min_items)
