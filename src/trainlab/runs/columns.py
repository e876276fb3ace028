"""Columns of the table of runs: their names, their values, their order."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from trainlab.errors import UserError, nearest
from trainlab.run.monitor import VITALS
from trainlab.runs import ranking
from trainlab.runs.folding import Folded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.runs.listing import Row

FACTS = ("experiment", "run", "status", "started", "seconds", "tags", "note", "reason", "folder")
OF_SWEEPS = ("sweep", "trial")  # facts that are shown where any run has them
GROUPS = ("config", "best", "last")  # columns are named 'config.margin', 'best.val/loss', ...
OF_FOLDS = ("n", "seeds", "code", "runs")  # facts of runs of several seeds (see `folding`)
SPREADS = ("best_sd", "last_sd", "counts")  # columns 'best_sd.val/loss', ... of these
BASELINES = ("val_", "tfidf/", "untrained/", "commonest/")  # such as val_tfidf/mrr; the others until 2026
_ESCAPED = re.compile(r"""\\([\\,"'])""")  # in a list of names
_NAME = re.compile(r"""\s*(?:(["'])((?:\\[\\,"']|(?!\1).)*)\1|((?:\\[\\,"']|[^,])*?))\s*(?:,|$)""", re.DOTALL)


def known(rows: Sequence[Row]) -> list[str]:
    """Return the names of all columns that any row has a value for, and the facts."""
    groups = (*GROUPS, *SPREADS) if folded(rows) else GROUPS
    keys = {
        group: dict.fromkeys(chain.from_iterable(getattr(row, group) for row in rows)) for group in groups
    }
    found = (f"{group}.{key}" for group, own in keys.items() for key in own)
    return list(dict.fromkeys([*FACTS, *folded(rows), *swept(rows), *found]))


def folded(rows: Sequence[Row]) -> Sequence[str]:
    """Return the columns that rows of several seeds have besides; all rows are, or none."""
    return OF_FOLDS if any(isinstance(row, Folded) for row in rows) else ()


def swept(rows: Sequence[Row]) -> Sequence[str]:
    """Return the columns of the sweep and the trial where any run belongs to one."""
    return OF_SWEEPS if any(row.sweep is not None for row in rows) else ()


def resolve(name: str, rows: Sequence[Row], also: Sequence[str] = ()) -> str:
    """Return the full name of a column: 'margin' means 'config.margin', 'val/loss' means 'best.val/loss'.

    Raises UserError with the nearest names for one that no row has; `also` are names that may be meant, too.
    """
    columns = known(rows)
    for candidate in (name, *(f"{group}.{name}" for group in GROUPS)):
        if candidate in columns:
            return candidate
    if name in OF_SWEEPS:
        return name
    whole = name.startswith(tuple(f"{group}." for group in GROUPS))
    spelled = [each if whole else each.partition(".")[2] or each for each in columns]
    near = nearest(name, [*spelled, *also], most=3)
    raise UserError(f"No column {name!r}.{near} All columns: trainlab runs --format csv")


def split(text: str) -> list[str]:
    """Return the names that stand between commas: 'margin,"a, b",c\\, d' gives 'margin', 'a, b', 'c, d'.

    A name may stand in quotes; a backslash keeps the comma, quote or backslash behind it. Raises UserError
    for quotes that don't close.
    """
    names, place = [], 0
    while place < len(text) and (found := _NAME.match(text, place)):
        quoted, plain = found[2], found[3] or ""
        if quoted is None and plain.startswith(('"', "'")):
            raise UserError(
                f'{text}: a {plain[0]} is not closed. Expected names such as: run,"a, b",val/loss'
            )
        names.append(_ESCAPED.sub(r"\1", plain if quoted is None else quoted).strip())
        place = found.end()
    return [name for name in names if name]


def join(names: Sequence[str]) -> str:
    """Return names as one text that `split` parts again."""
    return ",".join(re.sub(r"""([\\,"'])""", r"\\\1", name) for name in names)


def value(row: Row, column: str) -> Any:
    """Return a row's value in a column given by its full name, None where it has none."""
    group, _, key = column.partition(".")
    return getattr(row, group).get(key) if key and group in (*GROUPS, *SPREADS) else getattr(row, column)


def metric_of(column: str) -> str:
    """Return the tag of a metric's column, 'val/loss' of 'best.val/loss'; '' for another column."""
    group, _, tag = column.partition(".")
    return tag if group in ("best", "last") else ""


def ordered(rows: Sequence[Row], name: str) -> list[Row]:
    """Return the rows by a column: a metric's best first, durations, trials and text rising, others falling.

    By a metric, rows on other data stand behind (see `ranking.groups`), and the smallest come first where
    it isn't known what is better. Rows without a value, or with NaN, come last. Raises UserError for an
    unknown column.
    """
    column = resolve(name, rows)
    tag = metric_of(column)
    rising = rises(rows, column)

    def rank(row: Row) -> tuple[int, float, str]:  # numbers before text: types of a setting may differ
        found = value(row, column)
        number = found.timestamp() if isinstance(found, datetime) else found
        if number is None or number != number:  # noqa: PLR0124  # NaN
            return 2, 0.0, ""
        if isinstance(number, int | float):
            return 0, number if rising else -number, ""
        return 1, 0.0, _text(found)

    present, absent = ([row for row in rows if (rank(row)[0] == 2) == missing] for missing in (False, True))
    apart = ranking.groups(present) if tag else [present]
    return [row for group in apart for row in sorted(group, key=rank)] + absent


def rises(rows: Sequence[Row], column: str) -> bool:
    """Tell whether `ordered` puts the smallest number of a column first."""
    tag = metric_of(column)
    return column in ("seconds", "trial") or bool(tag and ranking.direction(rows, tag) != "max")


def differing(rows: Sequence[Row]) -> list[str]:
    """Return the settings that tell the rows apart: not one value in all, or missing in some."""
    configs: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row.config:
            configs.setdefault(row.experiment, []).append(row.config)
    counts = [(len(own), Counter(chain.from_iterable(own))) for own in configs.values()]
    found = []
    for key in dict.fromkeys(chain.from_iterable(row.config for row in rows)):
        texts: set[str] = set()
        if not any(0 < having[key] < size for size, having in counts):
            for row in rows:
                if key in row.config:
                    texts.add(_text(row.config[key]))
                    if len(texts) > 1:
                        break
            else:
                continue
        found.append(key)
    return found


def main_metrics(rows: Sequence[Row]) -> list[str]:
    """Return the tags of all metrics: those that the runs call important, then val/*, losses, the others.

    What the machine did, vitals/*, and baselines are left out unless a run calls them important; columns can
    be asked for. A baseline is one such as val_tfidf/mrr, which stays as it is, beside val/mrr.
    """
    important = list(dict.fromkeys(tag for row in rows for tag in row.metrics))
    logged = dict.fromkeys(tag for row in rows for tag in row.last)
    known, tags = {*important, *logged}, []
    for tag in logged:
        name = tag.partition("/")[2]
        baseline = tag.startswith(BASELINES) and known & {f"val/{name}", f"test/{name}"}
        stays = baseline and all(row.best.get(tag) == row.last[tag] for row in rows if tag in row.last)
        if tag in important or not (tag.startswith(VITALS) or stays):
            tags.append(tag)

    def place(tag: str) -> int:
        if tag in important:
            return important.index(tag) - len(important)
        return 0 if tag.startswith(("val/", "val_", "eval/", "eval_")) else 1 if "loss" in tag else 2

    return sorted(tags, key=place)


def _text(found: Any) -> str:
    if isinstance(found, str):
        return found
    if type(found) in (int, float):  # as json has them, in a fifth of its time
        return repr(found)
    return json.dumps(found, sort_keys=True, default=str)
