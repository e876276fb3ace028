"""Columns of the table of runs: their names, their values, their order."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from trainlab.errors import UserError, nearest
from trainlab.run.monitor import VITALS
from trainlab.runs import ranking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.runs.listing import Row

FACTS = ("experiment", "run", "status", "started", "seconds", "tags", "note", "reason", "folder")
_SPECIAL = "\\,\"'"  # what a backslash takes its meaning from, in a list of names
BASELINES = ("val_", "tfidf/", "untrained/", "commonest/")  # such as val_tfidf/mrr; the others until 2026
GROUPS = ("config", "best", "last")  # columns are named 'config.margin', 'best.val/loss', ...


def known(rows: Sequence[Row]) -> list[str]:
    """Return the names of all columns that any row has a value for, and the facts."""
    found = (f"{group}.{key}" for group in GROUPS for row in rows for key in getattr(row, group))
    return list(dict.fromkeys([*FACTS, *found]))


def resolve(name: str, rows: Sequence[Row], also: Sequence[str] = ()) -> str:
    """Return the full name of a column: 'margin' means 'config.margin', 'val/loss' means 'best.val/loss'.

    Raises UserError with the nearest names for one that no row has; `also` are names that may be meant, too.
    """
    columns = known(rows)
    for candidate in (name, *(f"{group}.{name}" for group in GROUPS)):
        if candidate in columns:
            return candidate
    short = [column if column in FACTS else column.partition(".")[2] for column in columns]
    spelled = columns if name.startswith(tuple(f"{group}." for group in GROUPS)) else short
    near = nearest(name, [*spelled, *also], most=3)
    raise UserError(f"No column {name!r}.{near} All columns: trainlab runs --format csv")


def split(text: str) -> list[str]:
    """Return the names that stand between commas: 'margin,"a, b",c\\, d' gives 'margin', 'a, b', 'c, d'.

    A name may stand in quotes; a backslash keeps the comma, quote or backslash behind it. Raises UserError
    for quotes that don't close.
    """
    names, letters, quote = [""], iter(text), ""
    for letter in letters:
        if letter == "\\":
            kept = next(letters, "")
            names[-1] += kept if kept and kept in _SPECIAL else letter + kept
        elif letter == quote:
            quote = ""
        elif letter in ("'", '"') and not quote and not names[-1].strip():
            quote = letter
        elif letter == "," and not quote:
            names.append("")
        else:
            names[-1] += letter
    if quote:
        raise UserError(f'{text}: a {quote} is not closed. Expected names such as: run,"a, b",val/loss')
    return [name.strip() for name in names if name.strip()]


def join(names: Sequence[str]) -> str:
    """Return names as one text that `split` parts again."""
    return ",".join("".join(f"\\{each}" if each in _SPECIAL else each for each in name) for name in names)


def value(row: Row, column: str) -> Any:
    """Return a row's value in a column given by its full name, None where it has none."""
    if column in FACTS:
        return getattr(row, column)
    group, _, key = column.partition(".")
    return getattr(row, group).get(key)


def ordered(rows: Sequence[Row], name: str) -> list[Row]:
    """Return the rows by a column: a metric's best first, durations and text rising, other numbers falling.

    By a metric, rows on other data stand behind (see `ranking.groups`), and the smallest come first where
    nobody has said what is better. Rows without a value, or with NaN, come last. Raises UserError for an
    unknown column.
    """
    column = resolve(name, rows)
    tag = metric_of(column)
    present = [row for row in rows if not _missing(value(row, column))]
    absent = [row for row in rows if _missing(value(row, column))]
    rises = column == "seconds" or (tag and ranking.direction(rows, tag) != "max")
    apart = ranking.groups(present) if tag else [present]
    return [
        row
        for group in apart
        for row in sorted(group, key=lambda row: _rank(value(row, column), bool(rises)))
    ] + absent


def metric_of(column: str) -> str:
    """Return the tag of a metric's column, 'val/loss' of 'best.val/loss'; '' for another column."""
    group, _, tag = column.partition(".")
    return tag if group in ("best", "last") else ""


def differing(rows: Sequence[Row]) -> list[str]:
    """Return the settings' columns that tell the rows apart: not one value in all, or missing in some."""
    columns = [name for name in known(rows) if name.startswith("config.")]
    return [name for name in columns if _differs(name, [row for row in rows if row.config])]


def main_metrics(rows: Sequence[Row]) -> list[str]:
    """Return the tags of all metrics: those that the runs call important, then val/*, losses, the others.

    What the machine did, vitals/*, and baselines are left out unless a run calls them important; columns can
    be asked for.
    """
    important = [tag for row in rows for tag in row.metrics]
    logged = list(dict.fromkeys(tag for row in rows for tag in row.last))
    known = {*important, *logged}
    aside = {tag for tag in logged if tag.startswith(VITALS) or _is_baseline(tag, rows, known)}
    aside -= set(important)
    tags = [tag for tag in logged if tag not in aside]
    val = [tag for tag in tags if tag.startswith(("val/", "val_", "eval/", "eval_"))]
    losses = [tag for tag in tags if "loss" in tag]
    shown = set(tags)
    return [tag for tag in dict.fromkeys([*important, *val, *losses, *tags]) if tag in shown]


def _is_baseline(tag: str, rows: Sequence[Row], known: set[str]) -> bool:
    """Tell whether a tag is a baseline's: val_tfidf/mrr, which stays as it is, beside val/mrr."""
    name = tag.partition("/")[2]
    if not tag.startswith(BASELINES) or not known & {f"val/{name}", f"test/{name}"}:
        return False
    return all(row.best.get(tag) == row.last[tag] for row in rows if tag in row.last)


def _differs(column: str, rows: Sequence[Row]) -> bool:
    key = column.partition(".")[2]
    if len({_text(row.config[key]) for row in rows if key in row.config}) > 1:
        return True
    having = {row.experiment for row in rows if key in row.config}
    lacking = {row.experiment for row in rows if key not in row.config}
    return bool(having & lacking)


def _missing(found: Any) -> bool:
    return found is None or (isinstance(found, float) and math.isnan(found))


def _rank(found: Any, rising: bool) -> tuple[int, float, str]:
    """Return a key to sort by, numbers before text: settings of different runs may have different types."""
    if hasattr(found, "timestamp"):
        found = found.timestamp()
    if isinstance(found, int | float):
        return 0, found if rising else -found, ""
    return 1, 0.0, _text(found)


def _text(found: Any) -> str:
    return found if isinstance(found, str) else json.dumps(found, sort_keys=True, default=str)
