"""Reviews, in three parts that share none: training, validation and test."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from trainlab import files, hub, paths
from trainlab.cleaning import text_key
from trainlab.errors import UserError, nearest, some
from trainlab.files import decode, parted_otherwise, read_bytes, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from experiments.sentiment.config import SentimentConfig


SIDES = ("training", "validation", "test")
TEST_SEED = 2021  # of every run: what one run's test has, no other run of the same shares has chosen by


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
        """Return what `run.json` keeps of the data: where from, digests, sizes, warnings."""
        sizes = {side: len(table) for side, table in self.parts().items()}
        tested = hashlib.sha256(self.test.to_csv().encode()).hexdigest()
        digests = {"sha256": self.sha256, "test_sha256": tested}
        return {"path": self.source, **digests, **sizes, "warnings": list(self.warnings)}

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
    """Read the reviews that `data` means, and split them; the test part is the same whatever the seed.

    A text that two parts share stays in the later one, of training, validation and test. Raises UserError
    for data that can't be used, within seconds.
    """
    if config.data == "imdb":
        parts, warnings, sha256 = read_imdb()
        source = REPOSITORY
    else:
        path = Path(config.data).expanduser().resolve()
        path = paths.data() / "sample" / "reviews.csv" if config.data == "sample" else path
        table, sha256 = read_table(path, f"data={config.data}")
        table, warnings = clean(path, table)
        parts, source = _split(config, table), str(path)
    parts, repeated = _apart(parts)
    for side, each in parts.items():
        if each["label"].nunique() < 2:
            raise UserError(
                f"{source}: {len(each)} reviews are left in the {side} set, not of both labels. Expected a "
                "few of each label in each part: give more reviews, or larger shares."
            )
    return Reviews(source, sha256, **parts, warnings=(*warnings, *repeated))


def preflight(config: SentimentConfig) -> None:
    """Check the data, the device and the backbone, within seconds and before a run exists.

    Raises UserError that says what was found, what was expected, and what to do.
    """
    draw(config)
    config.check_machine()


def _split(config: SentimentConfig, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    if config.validation + config.test >= 1:
        raise UserError(
            f"validation={config.validation:g} test={config.test:g}: nothing is left to train on. "
            "Expected shares of less than 1 together."
        )
    parts, rest = {}, table
    labels = table["label"].value_counts()
    for side, share, seed in (
        ("test", config.test, TEST_SEED),
        ("validation", config.validation, config.seed),
    ):
        counts = (share * labels).round().astype(int)
        if counts.min() < 1:
            raise UserError(
                f"data={config.data}: {len(table):,} reviews, {labels.min()} of one label, are too few: the "
                f"{side} set would get {counts.min()} of it. Expected a few of each in each part."
            )
        drawn = pd.concat(
            each.sample(counts[label], random_state=seed) for label, each in rest.groupby("label")
        )
        parts[side] = drawn.sample(frac=1, random_state=seed)  # `limit_val_batches` takes the first ones
        rest = rest.drop(drawn.index)
    return {"training": rest.sample(frac=1, random_state=config.seed), **parts}


def _apart(parts: dict[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Leave out of each part the texts that a later one holds too."""
    kept: dict[str, pd.DataFrame] = {}
    warnings, later = [], set[str]()
    for side in reversed(SIDES):
        own = parts[side]["text"].map(text_key)
        shared = own.isin(later)
        kept[side] = parts[side][~shared]
        if shared.any():
            rows = some_rows(shared.index[shared])
            warnings.append(f"{counted(shared, f'{side} text')} held out too, left out: {rows}")
        later |= set(own)
    return {side: kept[side] for side in SIDES}, warnings


COLUMNS = ("text", "label")
PARQUET = (".parquet", ".pq")
MOST_ROWS = 50_000_000
LONGEST = 20_000  # characters: 512 tokens, all that a backbone reads, are some 2,500 characters of English
ADVICE = "Expected data=sample, data=imdb, or the path of a CSV or Parquet table with the columns text,label."


def read_table(path: Path, setting: str) -> tuple[pd.DataFrame, str]:
    """Return a table's columns text and label as they stand, and the file's SHA-256; it may be packed.

    The index counts the table's rows from 1, without the header. Raises UserError for a file that is
    missing, no table, not UTF-8, or has other columns.
    """
    raw = read_bytes(path, setting, ADVICE)
    content = unpacked(path, raw)
    as_parquet = content.startswith(files.PARQUET) or path.suffix.lower() in PARQUET
    table = _parquet(path, content) if as_parquet else _csv(path, content)
    _require_columns(path, table.columns)
    table.index = pd.RangeIndex(1, len(table) + 1)
    return table[list(COLUMNS)], hashlib.sha256(raw).hexdigest()


def clean(path: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the table with labels as numbers, and sentences about what was left out or cut.

    Reviews without a word are left out, those of more than `LONGEST` characters are cut. Raises UserError
    for a label that is neither 0 nor 1, and where there are not two labels.
    """
    labels = _labels(path, table["label"])
    texts = table["text"].fillna("").astype(str).str.strip()
    empty, long = texts == "", texts.str.len() > LONGEST
    warnings = []
    if empty.any():
        warnings.append(f"{counted(empty, 'empty text')} left out: {some_rows(empty.index[empty])}")
    if long.any():
        warnings.append(
            f"{counted(long, 'text')} of more than {LONGEST:,} characters cut: {some_rows(long.index[long])}"
        )
    cleaned = pd.DataFrame({"text": texts.str.slice(0, LONGEST), "label": labels})[~empty]
    found = sorted(cleaned["label"].unique().tolist())
    if len(found) < 2:
        what = f"all {len(cleaned):,} reviews have the label {found[0]}" if found else "no review in it"
        raise UserError(f"{path}: {what}. Expected reviews of both labels, 0 and 1.")
    return cleaned, warnings


def some_rows(rows: Iterable[Any]) -> str:
    """Return the first few rows by number, and how many more there are."""
    listed = [str(row) for row in rows]
    return f"row{'s' if len(listed) > 1 else ''} {some(listed)}"


def _csv(path: Path, raw: bytes) -> pd.DataFrame:
    text = decode(path, raw)
    if not text.strip():
        raise UserError(f"{path} is empty. {ADVICE}")
    _require_commas(path, text)
    try:
        # 'NA' and 'null' are texts like others; a missing cell is ''
        return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except pd.errors.ParserError as error:
        raise UserError(f"{path} can't be read as a CSV: {_in_words(str(error))}. {ADVICE}") from None


def _parquet(path: Path, raw: bytes) -> pd.DataFrame:
    from fastparquet import ParquetFile

    try:
        file = ParquetFile(io.BytesIO(raw))
        _require_columns(path, file.columns)
        size = sum(
            chunk.meta_data.total_uncompressed_size for group in file.row_groups for chunk in group.columns
        )
        if file.count() > MOST_ROWS or size > files.LARGEST:
            raise UserError(
                f"{path} claims {file.count():,} rows of {size:,} bytes: more than can be read here."
            )
        return file.to_pandas(columns=list(COLUMNS))
    except UserError:
        raise
    except Exception as error:  # a damaged file fails anywhere in the reader
        raise UserError(
            f"{path} can't be read as a Parquet table ({type(error).__name__}: {error}). {ADVICE}"
        ) from None


def _require_commas(path: Path, text: str) -> None:
    """Raise UserError for a header that has the columns, parted by something else."""
    header = text.lstrip().partition("\n")[0]
    found = files.separator(header)
    names = [name.strip().strip("\"'") for name in header.split(found)] if found else []
    if found not in ("", ",") and set(COLUMNS) <= set(names):
        raise parted_otherwise(path, found, ",")


def _in_words(error: str) -> str:
    """Return what pandas says of a table in the words of whoever made it."""
    if match := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", error):
        expected, line, found = match.groups()
        return (
            f"line {line} has {found} columns instead of {expected}; a text with a comma must stand in "
            "quotation marks"
        )
    if match := re.search(r"EOF inside string starting at row (\d+)", error):
        return f"a quotation mark in row {match.group(1)} is never closed"
    return error.strip()


def _require_columns(path: Path, columns: Iterable[Any]) -> None:
    found = [str(column) for column in columns]
    other = files.separator(found[0]) if len(found) == 1 else ""  # of a header without commas
    parted = f", parted by commas and not by {files.SEPARATORS[other]}" if other else ""
    for missing in COLUMNS:
        if missing not in found:
            raise UserError(
                f"{path}: no column {missing!r}.{nearest(missing, found)} There: {', '.join(found)[:200]}. "
                f"Expected the columns text and label{parted}: rename yours."
            )


def _labels(path: Path, labels: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(labels, errors="coerce")
    wrong = ~numbers.isin([0, 1])
    if wrong.any():
        first = labels[wrong].iloc[0]
        what = "no label" if pd.isna(first) or not str(first).strip() else f"label {first!r}"
        raise UserError(
            f"{path}, row {wrong.idxmax()}: {what}. Expected 0 (negative) or 1 (positive). "
            f"{int(wrong.sum()):,} of {len(labels):,} rows are wrong: {some_rows(wrong.index[wrong])}."
        )
    return numbers.astype(int)


def counted(chosen: pd.Series, what: str) -> str:
    """Return how many rows are chosen, and of what: '2 empty texts'."""
    count = int(chosen.sum())
    return f"{count:,} {what}{'s' if count > 1 else ''}"


REPOSITORY = "stanfordnlp/imdb"
FILES = {split: f"plain_text/{split}-00000-of-00001.parquet" for split in ("train", "test")}
WAYS_OUT = (
    "data=sample (the default) needs no hub; data downloaded before works offline (HF_HUB_OFFLINE=1); "
    "a CSV or Parquet table of your own with the columns text,label works too."
)
# "Mastering Transformers", chapter 5: the rows are sorted by label, so each slice is balanced
SLICES = {
    "training": ("train", [slice(0, 2000), slice(-2000, None)]),
    "validation": ("test", [slice(500, 1000), slice(-1000, -500)]),
    "test": ("test", [slice(0, 500), slice(-500, None)]),
}


def read_imdb() -> tuple[dict[str, pd.DataFrame], list[str], str]:
    """Return the three slices, sentences about what was left out or cut, and the files' SHA-256.

    Downloads 42 MB the first time, into the Hub's cache. Raises UserError where the Hub can't be reached,
    or its files are not what the slices are made for.
    """
    whole, warnings, digests = {}, [], []
    for split, name in FILES.items():
        path = Path(hub.download("data", REPOSITORY, name, WAYS_OUT))
        table, digest = read_table(path, "data=imdb")
        table.index = [f"{split} {row}" for row in table.index]
        whole[split], found = clean(path, table)
        warnings += found
        digests.append(digest)
    slices = {side: _cut(side, whole[split], parts) for side, (split, parts) in SLICES.items()}
    return slices, warnings, hashlib.sha256("".join(digests).encode()).hexdigest()


def _cut(side: str, table: pd.DataFrame, parts: list[slice]) -> pd.DataFrame:
    cut = pd.concat([table.iloc[part] for part in parts])
    positive = int(cut["label"].sum())
    if positive * 2 != len(cut):
        raise UserError(
            f"data=imdb: {positive:,} of the {side} slice's {len(cut):,} reviews are positive. Expected half "
            f"of them: the files of {REPOSITORY} are no longer sorted by label."
        )
    return cut
