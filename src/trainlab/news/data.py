"""News in MIND's layout: reading `news.tsv`, and splitting it by item."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trainlab import folders
from trainlab.errors import UserError
from trainlab.textfiles import decode, parted_otherwise, read_bytes, separator, unpacked

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        return folders.data() / "sample" / "news.tsv"
    if data == "mind-small":
        return folders.data() / "mind-small" / "train" / "news.tsv"
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
