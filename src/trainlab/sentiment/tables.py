"""Tables of reviews, text and label: a CSV or Parquet file, and what is wrong with it."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

import pandas as pd

from trainlab.errors import UserError, nearest
from trainlab.textfiles import decode, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

COLUMNS = ("text", "label")
PARQUET = (".parquet", ".pq")
LONGEST = 20_000  # characters: 512 tokens, all that a backbone reads, are some 2,500 characters of English
NAMED = 5  # rows named in a message; the rest are counted
ADVICE = "Expected data=sample, data=imdb, or the path of a CSV or Parquet table with the columns text,label."


def read(path: Path, setting: str) -> tuple[pd.DataFrame, str]:
    """Return a table's columns text and label as they stand, and the file's SHA-256.

    The index counts the table's rows from 1, without the header. Raises UserError for a file that is
    missing, no table, not UTF-8, or has other columns.
    """
    raw = read_bytes(path, setting, ADVICE)
    table = _parquet(path, raw) if path.suffix.lower() in PARQUET else _csv(path, raw)
    _require_columns(path, table)
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
    _require_both(path, cleaned)
    return cleaned, warnings


def keys(texts: pd.Series) -> pd.Series:
    """Return texts with case and white space levelled: equal keys are duplicates."""
    return texts.str.casefold().str.split().str.join(" ")


def some_rows(rows: Iterable[Any]) -> str:
    """Return the first few rows by number, and how many more there are."""
    listed = [str(row) for row in rows]
    more = f" and {len(listed) - NAMED:,} more" if len(listed) > NAMED else ""
    return f"row{'s' if len(listed) > 1 else ''} {', '.join(listed[:NAMED])}{more}"


def _csv(path: Path, raw: bytes) -> pd.DataFrame:
    text = decode(path, raw)
    if not text.strip():
        raise UserError(f"{path} is empty. {ADVICE}")
    try:
        # 'NA' and 'null' are texts like others; a missing cell is ''
        return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except pd.errors.ParserError as error:
        raise UserError(f"{path} can't be read as a CSV: {str(error).strip()}. {ADVICE}") from None


def _parquet(path: Path, raw: bytes) -> pd.DataFrame:
    from fastparquet import ParquetFile

    try:
        return ParquetFile(io.BytesIO(raw)).to_pandas()
    except Exception as error:  # a damaged file fails anywhere in the reader
        raise UserError(
            f"{path} can't be read as a Parquet table ({type(error).__name__}: {error}). {ADVICE}"
        ) from None


def _require_columns(path: Path, table: pd.DataFrame) -> None:
    found = [str(column) for column in table.columns]
    for missing in COLUMNS:
        if missing not in found:
            raise UserError(
                f"{path}: no column {missing!r}.{nearest(missing, found)} There: {', '.join(found)}. "
                "Expected the columns text and label: rename yours."
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


def _require_both(path: Path, table: pd.DataFrame) -> None:
    found = sorted(table["label"].unique().tolist())
    if len(found) < 2:
        what = f"all {len(table):,} reviews have the label {found[0]}" if found else "no review in it"
        raise UserError(f"{path}: {what}. Expected reviews of both labels, 0 and 1.")


def counted(chosen: pd.Series, what: str) -> str:
    """Return how many rows are chosen, and of what: '2 empty texts'."""
    count = int(chosen.sum())
    return f"{count:,} {what}{'s' if count > 1 else ''}"
