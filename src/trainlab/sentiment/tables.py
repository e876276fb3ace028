"""Tables of reviews, text and label: a CSV or Parquet file, and what is wrong with it."""

from __future__ import annotations

import hashlib
import io
import re
from typing import TYPE_CHECKING, Any

import pandas as pd

from trainlab import textfiles
from trainlab.errors import UserError, nearest
from trainlab.textfiles import decode, parted_otherwise, read_bytes, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

COLUMNS = ("text", "label")
PARQUET = (".parquet", ".pq")
MOST_ROWS = 50_000_000
LONGEST = 20_000  # characters: 512 tokens, all that a backbone reads, are some 2,500 characters of English
NAMED = 5  # rows named in a message; the rest are counted
ADVICE = "Expected data=sample, data=imdb, or the path of a CSV or Parquet table with the columns text,label."


def read(path: Path, setting: str) -> tuple[pd.DataFrame, str]:
    """Return a table's columns text and label as they stand, and the file's SHA-256; it may be packed.

    The index counts the table's rows from 1, without the header. Raises UserError for a file that is
    missing, no table, not UTF-8, or has other columns.
    """
    raw = read_bytes(path, setting, ADVICE)
    content = unpacked(path, raw)
    as_parquet = content.startswith(textfiles.PARQUET) or path.suffix.lower() in PARQUET
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
        if file.count() > MOST_ROWS or size > textfiles.LARGEST:
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
    found = textfiles.separator(header)
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
    for missing in COLUMNS:
        if missing not in found:
            raise UserError(
                f"{path}: no column {missing!r}.{nearest(missing, found)} There: {', '.join(found)[:200]}. "
                f"Expected the columns text and label{_parted(found)}: rename yours."
            )


def _parted(columns: list[str]) -> str:
    """Return a remark where a header without commas has other separators."""
    found = textfiles.separator(columns[0]) if len(columns) == 1 else ""
    return f", parted by commas and not by {textfiles.SEPARATORS[found]}" if found else ""


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
