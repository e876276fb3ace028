"""News in MIND's layout: read, split into parts, drawn as triplets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.news.config import NewsConfig
from experiments.news.metrics import (
    Vectors,
    contrastive_loss,
    mean_reciprocal_rank,
    precision_at,
    triplet_metrics,
)
from trainlab import paths
from trainlab.cleaning import text_key
from trainlab.errors import UserError, some
from trainlab.files import decode, parted_otherwise, read_bytes, separator, unpacked

COLUMNS = ("id", "category", "subcategory", "title", "abstract", "url", "title entities", "abstract entities")
KEPT = COLUMNS[:6]
TEXTS = {"title": 1, "title+abstract": 2}  # of an item that are read
LISTED = 20  # unreadable rows listed by number; the rest are counted
TEST_SEED = 2021  # of every run: what one run's test has, no other run of the same shares has chosen by


@dataclass(frozen=True)
class News:
    """One `news.tsv`: a row of `table` for each readable news item, and what could not be read.

    `table` has the columns id, category, subcategory, title, abstract and url (both empty where missing),
    and row numbers 0, 1, ... as its index; `unreadable` maps a line's number in the file, from 1, to what is
    wrong with it.
    """

    path: Path
    table: pd.DataFrame
    sha256: str
    unreadable: dict[int, str] = field(default_factory=dict)

    def fingerprint(self) -> dict[str, Any]:
        """Return what `run.json` keeps of the data: path, rows, digest, unreadable rows."""
        sizes = {"rows": len(self.table), "unreadable": len(self.unreadable)}
        return {"path": str(self.path), "sha256": self.sha256, **sizes}

    def summary(self) -> str:
        """Return a few lines for people: what was read, from where, what was not and why."""
        counts = self.table["category"].value_counts()
        sizes = ", ".join(f"{name} {count}" for name, count in counts.items())
        lines = [f"{self.path}: {len(self.table):,} news in {len(counts)} categories", f"  {sizes}"]
        if self.unreadable:
            rows = some((f"row {row} ({reason})" for row, reason in self.unreadable.items()), LISTED)
            lines.append(f"  {len(self.unreadable):,} unreadable rows left out: {rows}")
        return "\n".join(lines)

    def codes(self, column: str) -> NDArray[np.int64]:
        """Return a label column as numbers [N], in the order of the names' alphabet."""
        return np.unique(self.table[column].to_numpy(dtype=str), return_inverse=True)[1]

    def texts(self, text: str) -> list[list[str]]:
        """Return each item's texts: [title], or [title, abstract] where a missing abstract is the title."""
        pairs = zip(self.table["title"], self.table["abstract"], strict=True)
        return [[title] if text == "title" else [title, abstract or title] for title, abstract in pairs]


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
    """Read news; the file may be packed by gzip or zip.

    Args:
        data: Which ones, see `locate`.

    Raises:
        UserError: A file that is missing, unreadable, empty or not UTF-8, no row of 8 columns, or news of one
            category only. Its text names the file, the row and what was expected.
    """
    path = locate(data)
    advice = "Expected data=sample, data=mind-small or the path of a news.tsv in MIND's layout."
    if data == "mind-small":
        advice = "Download it first: trainlab data fetch mind-small"
    raw = read_bytes(path, f"data={data}", advice)
    table, unreadable = _parse(path, decode(path, unpacked(path, raw)))
    return News(path, table, hashlib.sha256(raw).hexdigest(), unreadable)


def _parse(path: Path, text: str) -> tuple[pd.DataFrame, dict[int, str]]:
    """Split lines and tabs as they are: MIND has no quoting, so a lone quotation mark is part of a title."""
    layout = f"{len(COLUMNS)} tab-separated columns without header: {', '.join(COLUMNS)}"
    if not text.strip():
        raise UserError(f"{path} is empty. Expected {layout}.")
    kept, faults = [], {}
    for row, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        cells = line.removesuffix("\r").split("\t")
        if len(cells) != len(COLUMNS):
            faults[row] = f"{len(cells)} columns instead of {len(COLUMNS)}"
        elif missing := [name for name in ("category", "title") if not cells[COLUMNS.index(name)].strip()]:
            faults[row] = f"no {missing[0]}"
        else:
            kept.append(cells[: len(KEPT)])
    if not kept:
        found = separator(text.lstrip().partition("\n")[0], len(COLUMNS) - 1)
        if found not in ("", "\t"):
            raise parted_otherwise(path, found, "\t")
        raise UserError(f"{path}, row 1: {faults[1]}, and no other row is better. Expected {layout}.")
    table = pd.DataFrame(kept, columns=list(KEPT)).apply(lambda column: column.str.strip())
    categories = table["category"].unique()
    if len(categories) < 2:
        raise UserError(
            f"{path}, rows 1 to {len(table)}: all news are of one category, {categories[0]!r}, in column 2. "
            "Expected two categories at least: a triplet's negative is drawn from another one."
        )
    return table, faults


def split_items(
    news: News, share: float, seed: int, among: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into those that stay and those held out; the same seed gives the same split.

    Items with equal titles go to the same side. Each category holds out `share` of its titles, rounded, but
    keeps two for training: an anchor and a positive. Tiny categories stay whole.

    Args:
        news: The items.
        share: Of each category's titles.
        seed: Of the draw.
        among: The rows that are split, in ascending order; all unless given.

    Returns:
        The rows that stay and the rows held out, both in ascending order.
    """
    rng = np.random.default_rng(seed)
    table = news.table if among is None else news.table.iloc[among]
    keys = table["title"].map(text_key)
    heads = table.loc[~keys.duplicated()]
    unseen: list[str] = []
    for _, group in heads.groupby("category", sort=True):
        rows = rng.permutation(group.index.to_numpy())
        count = max(0, min(round(len(rows) * share), len(rows) - 2))
        unseen.extend(keys.loc[rows[:count]])
    held, rows = keys.isin(unseen).to_numpy(), table.index.to_numpy()
    return rows[~held], rows[held]


def draw_triplets(
    categories: NDArray[np.integer], class_size: int, triplets_per_item: int, seed: int
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
    order = np.argsort(categories, kind="stable")
    _, starts = np.unique(categories[order], return_index=True)
    groups = np.split(order, starts[1:]) if len(order) else []
    pools = [rng.permutation(group)[:class_size] for group in groups]
    if len(pools) < 2:
        return np.empty((0, 3), dtype=np.int64)
    pairs = []  # of each pool, (anchor, positive) [items · positives, 2]
    for pool in pools:
        others = len(pool) - 1
        anchors = np.arange(len(pool))[:, None]
        positives = _distinct(len(pool), others, min(triplets_per_item, others), rng)
        positives += positives >= anchors  # steps over the anchor itself
        both = np.stack([np.broadcast_to(anchors, positives.shape), positives], axis=-1)
        pairs.append(pool[both.reshape(-1, 2)])
    sizes = np.array([len(pool) for pool in pools])
    own = np.repeat(np.arange(len(pools)), [len(pair) for pair in pairs])
    other = rng.integers(len(pools) - 1, size=len(own))
    other += other >= own
    starts = np.cumsum(sizes) - sizes
    negatives = np.concatenate(pools)[starts[other] + rng.integers(sizes[other])]
    return np.column_stack([np.concatenate(pairs), negatives])


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


Part = Literal["validation", "test"]


class Held(NamedTuple):
    """Items held out: rows of the news [U], and triplets among them [V, 3] as indices into these rows."""

    items: NDArray[np.int64]
    triplets: NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Triplets [T, 3] of rows of the news to train on, and what is held out: to choose by, and to report.

    With `split=item` no item held out, nor one of the same title, is part of a training triplet, and none of
    the `test` part is in `validation`; the test part is the same whatever the seed, and None with `test=0`.
    With `split=triplet` no validation triplet is a training triplet, but the articles are the same: their
    figures say how well training is remembered, not how well it carries over; there is no test part.
    """

    news: News
    training: NDArray[np.int64]
    validation: Held
    test: Held | None = None

    @property
    def unseen(self) -> NDArray[np.int64]:
        """The rows [U] of the validation part."""
        return self.validation.items

    def measure(self, vectors: Vectors, config: NewsConfig, part: Part = "validation") -> dict[str, float]:
        """Return all metrics of a part's vectors [U, D]; those that are not defined are left out.

        The loss is the one that the settings train by; the contrastive one is of vectors of length 1.
        """
        items, triplets = self.held(part)
        categories = self.news.codes("category")[items]
        subcategories = self.news.codes("subcategory")[items]
        metrics = triplet_metrics(vectors, triplets, config.margin) | {
            "precision_at_10": precision_at(vectors, categories),
            "precision_at_10_subcategory": precision_at(vectors, subcategories),
            "mrr": mean_reciprocal_rank(vectors, categories),
        }
        if config.loss == "contrastive":
            share, temperature = config.subcategories, config.temperature
            coarse, fine = (
                contrastive_loss(vectors, each, temperature) for each in (categories, subcategories)
            )
            known = share and not np.isnan(fine)  # NaN where no two items have one in common
            metrics["loss"] = (1 - share) * coarse + share * fine if known else coarse
        return {name: value for name, value in metrics.items() if not np.isnan(value)}

    def held(self, part: Part) -> Held:
        """Return a part that is there."""
        found = self.validation if part == "validation" else self.test
        assert found is not None, "asked for where there is one"
        return found

    def summary(self) -> str:
        """Return a line for people: how much there is to learn from, to choose by and to report."""
        reported = "" if self.test is None else f"; {len(self.test.items):,} items for the test"
        return (
            f"  {len(self.training):,} triplets to learn from; {len(self.validation.triplets):,} to choose "
            f"by, among {len(self.unseen):,} items held out{reported}"
        )


def draw(config: NewsConfig) -> Examples:
    """Read the news, split them and draw the triplets; the same settings and file give the same examples.

    Raises UserError when the file can't be used (see `read`), or one part is left without triplets.
    """
    if config.validation + config.test >= 1:
        raise UserError(
            f"validation={config.validation:g} test={config.test:g}: nothing is left to train on. "
            "Expected shares of less than 1 together."
        )
    news = read(config.data)
    sizes = news.table.groupby("category")["category"].transform("size")
    kept = np.flatnonzero(sizes >= config.min_class_items)
    parts: dict[str, NDArray[np.int64]] = {}
    tested = None
    if config.split == "item":
        rest = news.table.index.to_numpy()
        if config.test:
            rest, tested = split_items(news, config.test, TEST_SEED)
            tested = np.intersect1d(tested, kept)
        seen, unseen = split_items(news, config.validation / (1 - config.test), config.seed, rest)
        unseen = np.intersect1d(unseen, kept)
        parts["training"], parts["validation"] = (
            _triplets(news, rows, config, config.seed) for rows in (np.intersect1d(seen, kept), unseen)
        )
    else:
        drawn = np.random.default_rng(config.seed).permutation(_triplets(news, kept, config, config.seed))
        parts["validation"], parts["training"] = np.split(drawn, [round(len(drawn) * config.validation)])
        unseen = np.unique(parts["validation"])
    if tested is not None:
        parts["test"] = _triplets(news, tested, config, TEST_SEED)
    for part, triplets in parts.items():
        if not len(triplets):
            raise UserError(
                f"{news.path}: no triplets are left for {part} with class_size={config.class_size}, "
                f"min_class_items={config.min_class_items}, validation={config.validation:g} "
                f"test={config.test:g}. Expected in each part two categories, one of them with two items: "
                "allow smaller categories, or change the shares."
            )
    held = Held(unseen, np.searchsorted(unseen, parts["validation"]))
    test = None if tested is None else Held(tested, np.searchsorted(tested, parts["test"]))
    return Examples(news, parts["training"], held, test)


def preflight(config: NewsConfig) -> None:
    """Check the data, the device and the backbone, within seconds and before a run exists.

    Raises UserError that says what was found, what was expected, and what to do.
    """
    draw(config)
    config.check_machine()


def _triplets(news: News, rows: NDArray[np.int64], config: NewsConfig, seed: int) -> NDArray[np.int64]:
    codes = news.codes("category")[rows]
    return rows[draw_triplets(codes, config.class_size, config.triplets_per_item, seed)]
