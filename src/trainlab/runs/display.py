"""The table of runs as text: for a terminal, as CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from trainlab import cleaning
from trainlab.cleaning import printable
from trainlab.runs import columns, progress
from trainlab.runs.listing import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.text import Text

    from trainlab.runs.listing import Row

_LONGEST_TEXT = 10_000  # characters of a value that are looked at
_GAP = 2  # spaces between columns
_NAMES_SHARE = 0.35  # of the width, for a run's name or a setting, where the table must fit into a terminal
_MOST_REASONS = 10  # below the table: the newest, or the first by what it is sorted by
_LONGEST_REASON = 300  # characters
_PIPED_WIDTH = 160  # columns to choose for where no terminal tells its width
_STYLES = {
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "interrupted": "yellow",
    UNREADABLE: "red",
}


@dataclass(frozen=True)
class Column:
    """A column of text."""

    title: str
    cells: list[str]
    right: bool = False

    @property
    def width(self) -> int:
        """Return the width of the widest cell, in columns of a terminal."""
        return max(map(_width, [self.title, *self.cells]))


def print_table(rows: Sequence[Row], chosen: Sequence[str] | None) -> None:
    """Print the runs with as many columns as fit, those that tell most first, and how some ended or go on."""
    width = shutil.get_terminal_size((_PIPED_WIDTH, 24)).columns
    # scripts that cut a piped table to pieces need whole names; a terminal needs them to fit
    limit = None if width >= _PIPED_WIDTH else int(width * _NAMES_SHARE)
    shown = _chosen(rows, chosen, limit) if chosen else _fitting(rows, width, limit)
    console = text_console(shown)
    console.print(table_text(shown))
    metrics = columns.main_metrics(rows)
    if not chosen and any("(" in cell for each in shown if each.title in metrics for cell in each.cells):
        console.print("metrics: best (last)", style="dim")
    if not chosen:
        for sentence in _states(rows):
            console.print(printable(sentence), markup=False)
    for row in rows:
        if row.status == UNREADABLE:
            console.print(printable(f"{row.label} is unreadable: {row.reason}"), markup=False)
        for sentence in row.damaged:
            console.print(printable(f"{row.label}: {sentence}"), markup=False)


def _states(rows: Sequence[Row]) -> list[str]:
    """Return a line for each run that is at work, failed or was interrupted: how far it is, or the reason."""
    names = dict(zip([row.folder for row in rows], labels(rows), strict=True))
    known = [(row, text) for row in rows if (text := state(row))]
    said = [f"{names[row.folder]} {row.status}: {_cut(text, _LONGEST_REASON)}" for row, text in known]
    if len(said) <= _MOST_REASONS:
        return said
    left = len(said) - _MOST_REASONS
    return [*said[:_MOST_REASONS], f"... and {left} more: trainlab runs --columns run,status,reason"]


def state(row: Row) -> str:
    """Return how far a run at work is, or the reason why one failed or was interrupted; '' for all others."""
    if row.status == "running":
        return progress.text(row)
    return " ".join((row.reason or "").split()) if row.status in ("failed", "interrupted") else ""


def text_console(shown: Sequence[Column] = ()) -> Console:
    """Return a console on standard output, plain when piped, that is as wide as the columns need."""
    from rich.console import Console

    need = sum(column.width + _GAP for column in shown)
    width = max(need, shutil.get_terminal_size((_PIPED_WIDTH, 24)).columns)
    return Console(highlight=False, soft_wrap=True, width=width, markup=False, emoji=False)


def csv_text(rows: Sequence[Row], chosen: Sequence[str] | None) -> str:
    """Return all columns, or the chosen ones, as CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(chosen or columns.known(rows))
    writer.writerow(map(_cell, names))
    full = [columns.resolve(name, rows) for name in names]
    writer.writerows([_cell(columns.value(row, name)) for name in full] for row in rows)
    return text.getvalue()


def json_text(rows: Sequence[Row], chosen: Sequence[str] | None) -> str:
    """Return a list with one object a run; numbers that JSON has no word for are null."""
    if chosen:
        full = {name: columns.resolve(name, rows) for name in chosen}
        objects = [{name: columns.value(row, column) for name, column in full.items()} for row in rows]
    else:
        facts = ("experiment", "run", "status", "started", "seconds", "tags", "note", "reason")
        names = (*facts, "config", "last", "best")
        objects = [{name: getattr(row, name) for name in names} for row in rows]
    text = json.dumps(_strict(objects), indent=2, allow_nan=False, default=_exact)
    return text.replace("\x7f", "\\u007f") + "\n"  # all others are escaped


def markdown_text(rows: Sequence[Row], chosen: Sequence[str] | None) -> str:
    """Return the table that a terminal would show, with every column, as Markdown."""
    shown = _chosen(rows, chosen) if chosen else whole(rows)
    lines = [[column.title for column in shown], ["--:" if column.right else "---" for column in shown]]
    lines += [list(cells) for cells in zip(*(column.cells for column in shown), strict=True)]
    return "".join("| " + " | ".join(map(cleaning.markdown, line)) + " |\n" for line in lines)


def whole(rows: Sequence[Row]) -> list[Column]:
    """Return the columns that a terminal would show, however wide they are together."""
    states = Column("progress or reason", [printable(state(row)) for row in rows])
    shown = [*_facts(rows), *_settings(rows), *_metrics(rows), *_circumstances(rows)]
    return [*shown, states] if any(states.cells) else shown


def duration(seconds: float | None) -> str:
    """Return '12 s', '3 min 20 s', '2 h 5 min' or '4 d 3 h'."""
    if seconds is None:
        return ""
    whole = round(seconds)
    for size, unit, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def age(started: datetime | None) -> str:
    """Return how long ago a run started, in its largest unit."""
    if started is None:
        return ""
    words = duration(max(0.0, (datetime.now(UTC) - started).total_seconds())).split()
    return " ".join(words[:2])


def short(found: Any) -> str:
    """Return a value as a cell: four digits of a number, one line of anything."""
    if found is None:
        return ""
    if isinstance(found, float):
        return f"{found:.4g}"
    if isinstance(found, datetime):
        with suppress(OverflowError):  # the year 1 may be the year 0 elsewhere
            return found.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        return found.isoformat(" ", "seconds")
    return printable(" ".join(str(found)[:_LONGEST_TEXT].split()))


def table_text(shown: Sequence[Column]) -> Text:
    """Return columns of text as a table without lines; Rich's own takes a second for a thousand runs."""
    from rich.text import Span, Text

    widths = [column.width for column in shown]
    lines, spans, start = [], [], 0
    for number, cells in enumerate(zip(*([column.title, *column.cells] for column in shown), strict=True)):
        parts: list[str] = []
        place = start
        for column, cell, width in zip(shown, cells, widths, strict=True):
            space = " " * (width - _width(cell))
            parts.append(space + cell if column.right else cell + space)
            if style := _STYLES.get(cell) if number else "bold":
                first = place + (len(space) if column.right else 0)
                spans.append(Span(first, first + len(cell), style))
            place += len(parts[-1]) + _GAP
        line = (" " * _GAP).join(parts).rstrip()
        lines.append(line if line.isprintable() else printable(line))
        start += len(line) + 1
    return Text("\n".join(lines), spans=spans, no_wrap=True)


def _fitting(rows: Sequence[Row], width: int, limit: int | None) -> list[Column]:
    facts, settings, metrics = _facts(rows, limit), _settings(rows, limit), _metrics(rows)
    others = _circumstances(rows, limit)
    left = width + _GAP - sum(column.width + _GAP for column in facts)
    kept = []
    first = [
        *metrics[:1],
        *settings[:2],
        *others[2:],
        *others[:2],
        *metrics[1:2],
        *settings[2:],
        *metrics[2:],
    ]
    for column in first:
        if column.width + _GAP <= left:
            left -= column.width + _GAP
            kept.append(column)
    return facts + [column for column in [*settings, *metrics, *others] if column in kept]


def _facts(rows: Sequence[Row], limit: int | None = None) -> list[Column]:
    return [
        Column("run", [_cut(name, limit) for name in labels(rows)]),
        Column("status", [row.status for row in rows]),
    ]


def _circumstances(rows: Sequence[Row], limit: int | None = None) -> list[Column]:
    return [
        Column("age", [age(row.started) for row in rows], right=True),
        Column("duration", [duration(row.seconds) for row in rows], right=True),
        *([_tags(rows, limit)] if any(row.tags for row in rows) else []),
    ]


def _tags(rows: Sequence[Row], limit: int | None = None) -> Column:
    return Column("tags", [_cut(printable(" ".join(row.tags)), limit) for row in rows])


def _settings(rows: Sequence[Row], limit: int | None = None) -> list[Column]:
    return _chosen(rows, columns.differing(rows), limit)


def _metrics(rows: Sequence[Row]) -> list[Column]:
    """Return the most important metric's column, and the others that are not the same in all runs."""
    found = [
        Column(printable(tag), [best_and_last(row, tag) for row in rows], right=True)
        for tag in columns.main_metrics(rows)
    ]
    return found[:1] + [column for column in found[1:] if len(rows) == 1 or len(set(column.cells)) > 1]


def labels(rows: Sequence[Row]) -> list[str]:
    """Return the runs' names, with their experiments' where there are several; safe to print."""
    one = len({row.experiment for row in rows}) == 1
    return [printable(row.run if one else row.label) for row in rows]


def best_and_last(row: Row, tag: str) -> str:
    """Return a metric as a cell: 'best (last)', or one value where both are the same."""
    best, last = short(row.best.get(tag)), short(row.last.get(tag))
    return best if best == last else f"{best} ({last})".strip()


def _chosen(rows: Sequence[Row], names: Sequence[str], limit: int | None = None) -> list[Column]:
    return [_column(rows, name, limit) for name in names]


def _column(rows: Sequence[Row], name: str, limit: int | None) -> Column:
    title = name.removeprefix("config.")
    if name in ("age", "duration"):
        return next(column for column in _circumstances(rows) if column.title == name)
    if name == "tags":
        return _tags(rows, limit)
    values = [columns.value(row, columns.resolve(name, rows)) for row in rows]
    right = any(isinstance(each, int | float) and not isinstance(each, bool) for each in values)
    return Column(title, [_cut(short(each), limit) for each in values], right)


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: some letters are two wide, some marks none."""
    from rich.cells import cell_len

    return len(text) if text.isascii() else cell_len(text)


def _cut(text: str, limit: int | None) -> str:
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def _cell(found: Any) -> Any:
    """Return a value as a cell of a sheet: exact where it is a number, harmless where it is text."""
    exact = _exact(found)
    return cleaning.sheet(exact) if isinstance(exact, str) else exact


def _exact(found: Any) -> Any:
    """Return a value as CSV and JSON hold it."""
    if isinstance(found, datetime):
        return found.isoformat(timespec="milliseconds")
    return (
        json.dumps(found)
        if isinstance(found, list | dict)
        else str(found)
        if hasattr(found, "parts")
        else found
    )


def _strict(found: Any) -> Any:
    if isinstance(found, float) and not math.isfinite(found):
        return None
    if isinstance(found, dict):
        return {key: _strict(each) for key, each in found.items()}
    return [_strict(each) for each in found] if isinstance(found, list) else found
