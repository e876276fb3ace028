"""Runs as text: the table for a terminal and as Markdown, one run in full, two runs side by side."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from trainlab import cleaning
from trainlab.cleaning import printable
from trainlab.run import stopping
from trainlab.run.monitor import VITALS
from trainlab.runs import columns
from trainlab.runs.folding import Folded
from trainlab.runs.listing import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console
    from rich.text import Text

    from trainlab.run.record import Git, Record
    from trainlab.runs.listing import Row

_LONGEST_TEXT = 10_000  # characters of a value that are looked at
_GAP = 2  # spaces between columns
_NAMES_SHARE = 0.35  # of the width, for a run's name or a setting, where the table must fit into a terminal
_MOST_REASONS = 10  # below the table: the newest, or the first by what it is sorted by
_LONGEST_REASON = 300  # characters
_NOTHING: tuple[Any, ...] = (None, "", [], {})  # facts that are left out
_LONGEST_HEAD = 25  # characters of a run's name above a column
PIPED_WIDTH = 160  # columns to choose for where no terminal tells its width
_STYLES = {
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "interrupted": "yellow",
    "pruned": "yellow",  # of a sweep's trial
    "waiting": "dim",
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
    width = shutil.get_terminal_size((PIPED_WIDTH, 24)).columns
    # scripts that cut a piped table to pieces need whole names; a terminal needs them to fit
    limit = None if width >= PIPED_WIDTH else int(width * _NAMES_SHARE)
    shown = _chosen(rows, chosen, limit) if chosen else _fitting(rows, width, limit)
    console = text_console()
    console.print(table_text(shown))
    metrics = columns.main_metrics(rows)
    if not chosen and any("(" in cell for each in shown if each.title in metrics for cell in each.cells):
        console.print("metrics: best (last)", style="dim")
    if any(isinstance(row, Folded) and row.n > 1 for row in rows):
        console.print("n runs that differ by the seed alone: mean ± standard deviation", style="dim")
    lines = []
    for name, row in zip(labels(rows), rows, strict=True):
        if not chosen and (text := state(row)):
            lines.append(f"{name} {row.status}: {cut(text, _LONGEST_REASON)}")
    if more := len(lines[_MOST_REASONS:]):
        lines[_MOST_REASONS:] = [f"... and {more} more: trainlab runs --columns run,status,reason"]
    lines += [f"{row.label} is unreadable: {row.reason}" for row in rows if row.status == UNREADABLE]
    lines += [f"{row.label}: {sentence}" for row in rows for sentence in row.damaged]
    for line in lines:
        console.print(printable(line))


def progress(row: Row) -> str:
    """Return 'step 340 of 2,000, epoch 2 of 5, about 3 min left', or as much of it as is known."""
    if row.record is None:
        return ""
    planned = row.record.planned
    step = max((point.step for point in row.record.last.values()), default=None)  # the last one logged
    if step is None:
        return ""
    if planned is None or planned.steps is None:
        return f"step {step:,}"
    parts = [f"step {min(step, planned.steps):,} of {planned.steps:,}"]
    if planned.epochs:
        parts.append(
            f"epoch {min(planned.epochs, 1 + step * planned.epochs // planned.steps)} of {planned.epochs}"
        )
    if (pace := step_seconds(row.record)) is not None:
        parts.append(f"about {' '.join(duration(pace * (planned.steps - step)).split()[:2])} left")
    return ", ".join(parts)


def step_seconds(known: Record) -> float | None:
    """Return the seconds that each step has taken since the training began, or went on, by a run's record.

    None before the first step and after the last, and where nobody knows how many there will be.
    """
    planned = known.planned
    step = max((point.step for point in known.last.values()), default=0)
    if planned is None or planned.steps is None or not planned.step < step < planned.steps:
        return None
    return max(0.0, (datetime.now(UTC) - planned.at).total_seconds()) / (step - planned.step)


def state(row: Row) -> str:
    """Return how far a running run is, or the reason why one failed or was interrupted; '' for all others."""
    if row.status == "running":
        return progress(row)
    return " ".join((row.reason or "").split()) if row.status in ("failed", "interrupted") else ""


def text_console() -> Console:
    """Return a console on standard output, plain when piped, that neither wraps lines nor cuts them."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def markdown_text(rows: Sequence[Row], chosen: Sequence[str] | None) -> str:
    """Return the table that a terminal would show, with every column, as Markdown."""
    shown = _chosen(rows, chosen) if chosen else whole(rows)
    cells = zip(*(column.cells for column in shown), strict=True)
    right = [column.title for column in shown if column.right]
    return cleaning.markdown_table([column.title for column in shown], cells, right) + "\n"


def whole(rows: Sequence[Row]) -> list[Column]:
    """Return the columns that a terminal would show, however wide they are together."""
    shown = [column for group in _groups(rows) for column in group]
    states = Column("progress or reason", [printable(state(row)) for row in rows])
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

    lines, spans, start = [], [], 0
    widths = [column.width for column in shown]
    for number, cells in enumerate(zip(*([column.title, *column.cells] for column in shown), strict=True)):
        line = ""
        for column, cell, width in zip(shown, cells, widths, strict=True):
            space = " " * (width - _width(cell))
            line += space + cell if column.right else cell
            if style := _STYLES.get(cell) if number else "bold":
                end = start + len(line)
                spans.append(Span(end - len(cell), end, style))
            line += " " * _GAP if column.right else space + " " * _GAP
        lines.append(printable(line.rstrip()))
        start += len(lines[-1]) + 1
    return Text("\n".join(lines), spans=spans, no_wrap=True)


def _fitting(rows: Sequence[Row], width: int, limit: int | None) -> list[Column]:
    names, facts, settings, metrics, others = _groups(rows, limit)
    left = width + _GAP - sum(column.width + _GAP for column in names)
    kept = []
    first = metrics[:1] + settings[:2] + others[2:] + others[:2]
    for column in first + metrics[1:2] + settings[2:] + metrics[2:] + facts:
        if column.width + _GAP <= left:
            left -= column.width + _GAP
            kept.append(column)
    return names + [column for column in [*facts, *settings, *metrics, *others] if column in kept]


def _groups(rows: Sequence[Row], limit: int | None = None) -> tuple[list[Column], ...]:
    """Return columns: name and status, sweep and code, settings and metrics that differ, and times."""
    names = Column("run", [cut(name, limit) for name in labels(rows)])
    settings = [f"config.{key}" for key in columns.differing(rows)]
    metrics = [
        Column(printable(tag), [best_and_last(row, tag) for row in rows], right=True)
        for tag in columns.main_metrics(rows)
    ]
    metrics[1:] = [column for column in metrics[1:] if len(rows) == 1 or len(set(column.cells)) > 1]
    times = ["age", "duration", *(["tags"] if any(row.tags for row in rows) else [])]
    facts = [
        name
        for name in (*columns.OF_SWEEPS, *(["code"] if columns.folded(rows) else []))
        if len({columns.value(row, name) for row in rows}) > 1
    ]
    counted = _chosen(rows, ["n"]) if columns.folded(rows) else []
    return (
        [names, *counted, Column("status", [row.status for row in rows])],
        _chosen(rows, facts, limit),
        _chosen(rows, settings, limit),
        metrics,
        _chosen(rows, times, limit),
    )


def labels(rows: Sequence[Row]) -> list[str]:
    """Return the runs' names, with their experiments' where there are several; safe to print."""
    one = len({row.experiment for row in rows}) == 1
    names = [printable(row.run if one else row.label) for row in rows]
    more = [len(row.members) - 1 if isinstance(row, Folded) else 0 for row in rows]
    return [f"{name} +{others}" if others else name for name, others in zip(names, more, strict=True)]


def best_and_last(row: Row, tag: str) -> str:
    """Return a metric as a cell: 'best (last)', or one value where both are the same.

    Of several seeds it is the best's mean ± standard deviation, with the number of runs where some lack it.
    """
    if isinstance(row, Folded) and len(row.members) > 1:
        group = "best" if tag in row.best else "last"
        return (
            spread(row, group, tag) if tag in row.best else f"({spread(row, group, tag)})" * (tag in row.last)
        )
    best, last = short(row.best.get(tag)), short(row.last.get(tag))
    return best if best == last else f"{best} ({last})".strip()


def cell(row: Row, column: str) -> str:
    """Return a row's value in a column, given by its full name, as text; of several seeds with its spread."""
    group, _, tag = column.partition(".")
    if group in ("best", "last") and isinstance(row, Folded):
        return spread(row, group, tag)
    found = columns.value(row, column)
    if column == "tags":
        return short(" ".join(found))
    return short(
        ", ".join(map(str, found)) if column in columns.OF_FOLDS and isinstance(found, list) else found
    )


def spread(row: Folded, group: str, tag: str) -> str:
    """Return 'mean ± standard deviation' of a metric, of its `group` best or last; '' where no run has it."""
    mean, deviation = columns.value(row, f"{group}.{tag}"), columns.value(row, f"{group}_sd.{tag}")
    if mean is None:
        return ""
    shown = short(mean) + ("" if deviation is None else f" ± {deviation:.2g}")
    return shown if (count := row.counts[tag]) == row.n else f"{shown}, n {count}"


def _chosen(rows: Sequence[Row], names: Sequence[str], limit: int | None = None) -> list[Column]:
    """Return the columns of some names, 'age' and 'duration' among them."""
    found = []
    for name in names:
        if name == "age":
            found.append(Column(name, [age(row.started) for row in rows], right=True))
            continue
        if name == "duration":
            found.append(Column(name, [duration(row.seconds) for row in rows], right=True))
            continue
        column = columns.resolve(name, rows)
        values = [columns.value(row, column) for row in rows]
        cells = [cell(row, column) for row in rows]
        right = any(isinstance(each, int | float) and not isinstance(each, bool) for each in values)
        found.append(Column(name.removeprefix("config."), [cut(cell, limit) for cell in cells], right))
    return found


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: some letters are two wide, some marks none."""
    from rich.cells import cell_len

    return len(text) if text.isascii() else cell_len(text)


def cut(text: str, limit: int | None) -> str:
    """Return a text of at most `limit` characters, with … where it went on."""
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def about(row: Row) -> list[tuple[str, dict[str, str]]]:
    """Return everything that is known about a run but its metrics: titles, and facts by name, as text."""
    facts: dict[str, Any] = {
        "folder": row.folder,
        "status": row.status,
        "progress": progress(row) if row.status == "running" else None,
        "reason": row.reason,
        "started": f"{short(row.started)} UTC, {age(row.started)} ago" if row.started else None,
        "duration": duration(row.seconds),
        "tags": " ".join(row.tags),
        "note": row.note,
    }
    if (known := row.record) is not None:
        if known.sweep is not None:
            facts["sweep"] = f"{known.sweep.name}, trial {known.sweep.trial}"
        if row.status == "running":
            command = stopping.command("stop", row.run)
            facts["process"] = f"{known.pid} on {known.host or 'this machine'}; to stop it: {command}"
        code, ours = (" ".join(_version(each).values()) for each in (known.git, known.trainlab_git))
        sessions = [
            f"{short(each.at)} UTC" + ("" if each.step is None else f" at step {each.step}")
            for each in known.resumes
        ]
        facts |= {
            "resumed": ", ".join(sessions),
            "command": known.command,
            "code": code,
            "trainlab": ours if ours != code else None,
            "seed": known.seed,
            "data": known.data,
        }
        facts |= known.hardware | {"host": known.host} | (known.model_extra or {})
    titled = [(printable(row.label), facts), ("config", row.config)]
    if known is not None:
        titled += [("packages", known.packages), ("installed while it ran", known.installed)]
    return [
        (title, {printable(key): _whole_text(each) for key, each in values.items() if each not in _NOTHING})
        for title, values in titled
    ]


def metrics_table(row: Row) -> list[Column]:
    """Return a run's metrics: tag, best, the step of that, last."""
    tags = _ordered_tags(row)
    best = [short(row.best.get(tag)) for tag in tags]
    steps = [str(row.best_steps.get(tag, "")) for tag in tags]
    cells = {"metrics": tags, "best": best, "at step": steps, "last": [short(row.last[tag]) for tag in tags]}
    return [Column(title, each) for title, each in cells.items()]


def show(row: Row) -> None:
    """Print everything that is known about a run."""
    (name, facts), (settings, config), *others = about(row)
    _section(name, facts)
    if row.last:
        text_console().print(table_text(metrics_table(row)), "\n", sep="")
    _section(settings, config)
    for title, values in others:
        if values or title == "packages":
            _section(title, values)


def diff(first: Row, second: Row) -> None:
    """Print what differs between two runs (config, code, packages, machine), and the metrics of both."""
    console, both = text_console(), (first, second)
    heads = [printable(row.label) for row in both]
    if max(map(len, heads)) > _LONGEST_HEAD:
        console.print(f"first:  {heads[0]}\nsecond: {heads[1]}\n")
        heads = ["first", "second"]
    aspects: dict[str, list[dict[str, Any]]] = {"config": [row.config for row in both]}
    for row in both:
        known = row.record
        code = _version(known.git) if known else {}
        if known:
            code |= {f"trainlab's {key}": value for key, value in _version(known.trainlab_git).items()}
        aspects.setdefault("code", []).append(code)
        aspects.setdefault("packages", []).append(known.packages if known else {})
        aspects.setdefault("machine", []).append(known.hardware if known else {})
    for title, (one, other) in aspects.items():
        if keys := [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]:
            cells = [[_whole_text(each.get(key)) for key in keys] for each in (one, other)]
            _print_columns((title, keys), *zip(heads, cells, strict=True))
        else:
            console.print(f"{title}: {'the same' if one or other else 'not recorded'}\n")
    if tags := _ordered_tags(*both):
        cells = [[best_and_last(row, tag) for tag in tags] for row in both]
        _print_columns(("metrics: best (last)", tags), *zip(heads, cells, strict=True))


def _ordered_tags(*rows: Row) -> list[str]:
    """Return the tags of all metrics, as the table of runs has them, then baselines, the machine's last."""
    tags = dict.fromkeys(tag for row in rows for tag in row.last)
    others = sorted(tags, key=lambda tag: tag.startswith(VITALS))
    return list(dict.fromkeys([*columns.main_metrics(rows), *others]))


def _version(git: Git | None) -> dict[str, str]:
    if git is None:
        return {}
    return {"commit": git.commit, "state": "with uncommitted changes" if git.dirty else "clean"}


def _section(title: str, values: Mapping[str, str]) -> None:
    console = text_console()
    console.print(title, style="bold")
    width = max(map(len, values), default=0)
    for key, text in values.items():
        console.print(f"  {key:<{width}}  {text}")
    console.print()


def _print_columns(*parts: tuple[str, list[str]]) -> None:
    shown = [Column(title, cells) for title, cells in parts]
    text_console().print(table_text(shown), "\n", sep="")


def _whole_text(found: Any) -> str:
    if isinstance(found, dict | list):
        return printable(json.dumps(found, default=str))
    return short(found) or "-"
