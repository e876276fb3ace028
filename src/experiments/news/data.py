"""News in MIND's layout: read, split by item, drawn as triplets; their tokens, made once for all runs."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.news.config import NewsConfig
from experiments.news.metrics import Vectors, mean_reciprocal_rank, precision_at, triplet_metrics
from trainlab import paths
from trainlab.cleaning import text_key
from trainlab.errors import UserError, some
from trainlab.files import decode, parted_otherwise, read_bytes, separator, unpacked

if TYPE_CHECKING:  # torch takes seconds to load, and data are checked before each run
    import torch
    from tokenizers import Tokenizer
    from torch import Tensor

COLUMNS = ("id", "category", "subcategory", "title", "abstract", "url", "title entities", "abstract entities")
KEPT = COLUMNS[:6]
TEXTS = {"title": 1, "title+abstract": 2}  # of an item that are read
LISTED = 20  # unreadable rows listed by number; the rest are counted
AT_ONCE = 20_000  # texts that the tokenizer is given in one call: its own form of them takes 1 kB each
FILES = ("ids", "ends")


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


def split_items(news: News, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the rows into seen (training) and unseen (validation) ones; the same seed gives the same split.

    Items with equal titles go to the same side. Each category gives `share` of its titles, rounded, to the
    unseen side, but keeps two for training: an anchor and a positive. Tiny categories stay in training whole.
    """
    rng = np.random.default_rng(seed)
    keys = news.table["title"].map(text_key)
    heads = news.table.loc[~keys.duplicated()]
    unseen: list[str] = []
    for _, group in heads.groupby("category", sort=True):
        rows = rng.permutation(group.index.to_numpy())
        count = max(0, min(round(len(rows) * share), len(rows) - 2))
        unseen.extend(keys.loc[rows[:count]])
    held = keys.isin(unseen).to_numpy()
    return np.flatnonzero(~held), np.flatnonzero(held)


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


@dataclass(frozen=True)
class Examples:
    """`training` [T, 3] and `unseen` [U] are rows of the news; `validation` [V, 3] are indices into `unseen`.

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

    Raises UserError when the file can't be used (see `read`), or one side is left without triplets.
    """
    news = read(config.data)
    sizes = news.table.groupby("category")["category"].transform("size")
    kept = np.flatnonzero(sizes >= config.min_class_items)
    if config.split == "item":
        seen, unseen = split_items(news, config.validation, config.seed)
        unseen = np.intersect1d(unseen, kept)
        training, held = (_triplets(news, rows, config) for rows in (np.intersect1d(seen, kept), unseen))
    else:
        drawn = np.random.default_rng(config.seed).permutation(_triplets(news, kept, config))
        held, training = np.split(drawn, [round(len(drawn) * config.validation)])
        unseen = np.unique(held)
    if not len(training) or not len(held):
        side = "training" if not len(training) else "validation"
        raise UserError(
            f"{news.path}: no triplets are left for {side} with class_size={config.class_size}, "
            f"min_class_items={config.min_class_items}, validation={config.validation}. Expected on each "
            "side two categories, one of them with two items: allow smaller categories, or change the share."
        )
    return Examples(news, training, unseen, np.searchsorted(unseen, held))


def preflight(config: NewsConfig) -> None:
    """Check the data, the device and the backbone, within seconds and before a run exists.

    Raises UserError that says what was found, what was expected, and what to do.
    """
    draw(config)
    config.check_machine()


def _triplets(news: News, rows: NDArray[np.int64], config: NewsConfig) -> NDArray[np.int64]:
    codes = news.codes("category")[rows]
    return rows[draw_triplets(codes, config.class_size, config.triplets_per_item, config.seed)]


class Tokens(NamedTuple):
    """Token ids and their mask, both [N, T, L]: N items of T texts, padded to L tokens.

    `hidden` [S, H] are the states of the S real tokens behind the layers that are not trained, if known.
    """

    ids: Tensor
    mask: Tensor
    hidden: Tensor | None = None

    def to(self, device: torch.device) -> Tokens:
        """Return the same tokens on another device."""
        return Tokens(*(None if each is None else each.to(device) for each in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class TokenTable:
    """The tokens of N items of `texts` texts each, one after the other, without padding.

    `ids` [S] are unsigned, of 16 bits where the vocabulary allows; `ends` [N·T] say where each text ends.
    `padding` is the id that fills up a batch, `hidden` [S, H] what `Tokens` says.
    """

    ids: NDArray[Any]
    ends: NDArray[np.int64]
    texts: int
    padding: int
    hidden: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ends) // self.texts

    def rows(self, items: Tensor | NDArray[Any] | Sequence[int]) -> Tokens:
        """Return the tokens of some items [N], padded to the longest text among them."""
        import torch

        wanted = np.asarray(items)[:, None] * self.texts + np.arange(self.texts)
        starts = np.where(wanted > 0, self.ends[wanted - 1], 0)
        lengths = self.ends[wanted] - starts
        columns = np.arange(lengths.max(initial=1))
        mask = columns < lengths[..., None]
        indices = (starts[..., None] + columns)[mask]
        ids = np.full(mask.shape, self.padding, np.int64)
        ids[mask] = self.ids[indices]
        hidden = None if self.hidden is None else self.hidden[torch.from_numpy(indices)]
        return Tokens(torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)), hidden)

    def batches(self, size: int) -> Iterator[Tokens]:
        """Yield the tokens of all items in turn, so many items at once."""
        for start in range(0, len(self), size):
            yield self.rows(np.arange(start, min(start + size, len(self))))

    def save(self, folder: Path) -> None:
        """Write the table so that its folder is either whole or not there, whoever else writes it."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as temporary:
            half = Path(temporary) / folder.name
            half.mkdir()
            for name in FILES:
                np.save(half / f"{name}.npy", getattr(self, name))
            half.rename(folder)


def tokenize(tokenizer: Tokenizer, items: Sequence[Sequence[str]]) -> TokenTable:
    """Tokenize texts without padding.

    Args:
        tokenizer: Its truncation applies, its padding does not.
        items: N items of T texts each; T is the first item's.

    Returns:
        Their ids, in 16 bits where the vocabulary has at most 65,536 tokens, else in 32.
    """
    plain = type(tokenizer).from_str(tokenizer.to_str())
    plain.no_padding()
    kind = np.uint16 if plain.get_vocab_size() <= 2**16 else np.uint32
    parts: list[NDArray[Any]] = []
    lengths: list[int] = []
    texts = list(chain.from_iterable(items))
    for start in range(0, len(texts), AT_ONCE):
        encoded = [each.ids for each in plain.encode_batch_fast(texts[start : start + AT_ONCE])]
        lengths += map(len, encoded)
        parts.append(np.fromiter(chain.from_iterable(encoded), kind))
    ids = np.concatenate(parts) if parts else np.empty(0, kind)
    padding = (tokenizer.padding or {}).get("pad_id", 0)
    return TokenTable(ids, np.cumsum(lengths), len(items[0]) if items else 1, padding)


def load_tokens(folder: Path, tokenizer: Tokenizer, texts: int) -> TokenTable:
    """Map a saved table into memory; raise OSError or ValueError for files that are missing or damaged."""
    ids, ends = (np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in FILES)
    if len(ends) % texts or len(ids) != (ends[-1] if len(ends) else 0):
        raise ValueError(f"{folder}: its files don't belong together")
    return TokenTable(ids, ends, texts, (tokenizer.padding or {}).get("pad_id", 0))


def tokens_folder() -> Path:
    """Return where the tokens of all data sets are kept."""
    return paths.data() / "tokens"


def tokens_of(news: News, text: str, tokenizer: Tokenizer) -> TokenTable:
    """Tokenize all news, or load what an earlier call made of the same data with the same tokenizer.

    Args:
        news: The items; their file's SHA-256 is part of the cache's key.
        text: Which texts of an item: "title" or "title+abstract".
        tokenizer: The backbone's.

    Returns:
        The tokens, mapped from the cache in data/tokens/; in memory where that can't be written.
    """
    key = "\0".join((tokenizer.to_str(), news.sha256, text))
    folder = tokens_folder() / hashlib.sha256(key.encode()).hexdigest()[:16]
    with suppress(OSError, ValueError):
        return load_tokens(folder, tokenizer, TEXTS[text])
    made = tokenize(tokenizer, news.texts(text))
    with suppress(
        OSError, ValueError
    ):  # a full disk, a folder of somebody else's: next time they are made again
        made.save(folder)
        return load_tokens(folder, tokenizer, TEXTS[text])
    return made
