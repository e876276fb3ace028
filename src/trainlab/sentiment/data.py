"""Reviews, in three parts that share none: training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from trainlab import folders
from trainlab.errors import UserError
from trainlab.sentiment import imdb, tables

if TYPE_CHECKING:
    from trainlab.sentiment.config import SentimentConfig

SIDES = ("training", "validation", "test")


@dataclass(frozen=True)
class Reviews:
    """Reviews in three parts, tables of text and label (1 positive) whose index names the row they come from.

    `warnings` are sentences about what was left out or cut.
    """

    source: str
    sha256: str
    training: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    warnings: tuple[str, ...] = ()

    def parts(self) -> dict[str, pd.DataFrame]:
        """Return the three parts by name."""
        return {side: getattr(self, side) for side in SIDES}

    def fingerprint(self) -> dict[str, Any]:
        """Return what `run.json` keeps of the data: where from, digest, sizes, warnings."""
        sizes = {side: len(table) for side, table in self.parts().items()}
        return {"path": self.source, "sha256": self.sha256, **sizes, "warnings": list(self.warnings)}

    def summary(self) -> str:
        """Return a few lines for people: how many reviews of each label, and what was left out or cut."""
        sizes = [
            f"{side} {len(table):,} ({table['label'].mean():.0%} positive)"
            for side, table in self.parts().items()
        ]
        return "\n".join(
            [f"{self.source}: {', '.join(sizes)}", *(f"  warning: {each}" for each in self.warnings)]
        )


def draw(config: SentimentConfig) -> Reviews:
    """Read the reviews that `data` means, and split them; the same seed gives the same split.

    A text that two parts share stays in the later one, of training, validation and test. Raises UserError
    for data that can't be used, within seconds.
    """
    if config.data == "imdb":
        parts, warnings, sha256 = imdb.read()
        source = imdb.REPOSITORY
    else:
        path = _locate(config.data)
        table, sha256 = tables.read(path, f"data={config.data}")
        table, warnings = tables.clean(path, table)
        parts, source = _split(config, table), str(path)
    parts, repeated = _apart(parts)
    _require_labels(source, parts)
    return Reviews(source, sha256, **parts, warnings=(*warnings, *repeated))


def _locate(data: str) -> Path:
    return (
        folders.data() / "sample" / "reviews.csv" if data == "sample" else Path(data).expanduser().resolve()
    )


def _split(config: SentimentConfig, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    from sklearn.model_selection import train_test_split

    if config.validation + config.test >= 1:
        raise UserError(
            f"validation={config.validation:g} test={config.test:g}: nothing is left to train on. "
            "Expected shares of less than 1 together."
        )
    parts, rest = {}, table
    for side in SIDES[1:]:
        count = round(getattr(config, side) * len(table))
        try:
            rest, parts[side] = train_test_split(
                rest, test_size=count, stratify=rest["label"], random_state=config.seed
            )
        except ValueError:  # fewer reviews of a label than parts
            raise UserError(
                f"data={config.data}: {len(table):,} reviews, {table['label'].value_counts().min()} of one "
                f"label, are too few: the {side} set would get {count}. Expected a few of each in each part."
            ) from None
    return {"training": rest, **parts}


def _apart(parts: dict[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Leave out of each part the texts that a later one holds too."""
    kept: dict[str, pd.DataFrame] = {}
    warnings, later = [], set[str]()
    for side in reversed(SIDES):
        own = tables.keys(parts[side]["text"])
        shared = own.isin(later)
        kept[side] = parts[side][~shared]
        if shared.any():
            rows = tables.some_rows(shared.index[shared])
            warnings.append(f"{tables.counted(shared, f'{side} text')} held out too, left out: {rows}")
        later |= set(own)
    return {side: kept[side] for side in SIDES}, warnings


def _require_labels(source: str, parts: dict[str, pd.DataFrame]) -> None:
    for side, table in parts.items():
        if table["label"].nunique() < 2:
            raise UserError(
                f"{source}: {len(table)} reviews are left in the {side} set, not of both labels. Expected a "
                "few of each label in each part: give more reviews, or larger shares."
            )
