"""One run in full, and two runs side by side, as text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from trainlab.runs import display
from trainlab.runs.display import Column, table_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rich.console import Console

    from trainlab.runs.listing import Row
    from trainlab.runs.record import Record

_SAME = "the same"


def show(row: Row) -> None:
    """Print everything that is known about a run."""
    console = display.text_console()
    _section(console, display.printable(row.label), _facts(row))
    _section(console, "config", row.config)
    _metrics(row)
    if row.record is not None:
        _section(console, "packages", row.record.packages)


def diff(first: Row, second: Row) -> None:
    """Print what differs between two runs (config, code, packages, machine), and the metrics of both."""
    console = display.text_console()
    for title, of in _ASPECTS.items():
        _difference(console, title, (first, second), (of(first), of(second)))
    tags = list(dict.fromkeys([*first.last, *second.last]))
    if tags:
        cells = [[display.best_and_last(row, tag) for tag in tags] for row in (first, second)]
        _print("metrics: best (last)", tags, [display.printable(row.label) for row in (first, second)], cells)


def _facts(row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "folder": row.folder,
        "status": row.status,
        "reason": row.reason,
        "started": f"{display.short(row.started)} UTC, {display.age(row.started)} ago"
        if row.started
        else None,
        "duration": display.duration(row.seconds),
        "tags": " ".join(row.tags),
        "note": row.note,
    }
    if row.record is None:
        return facts
    known = row.record
    git = _code(row)
    facts |= {
        "resumed": _sessions(known),
        "command": known.command,
        "code": " ".join(git.values()),
        "seed": known.seed,
        "data": known.data,
    }
    return facts | known.hardware | {"host": known.host} | (known.model_extra or {})


def _sessions(known: Record) -> str:
    """Return when the run went on, and from which step."""
    return ", ".join(
        f"{display.short(each.at)} UTC" + ("" if each.step is None else f" at step {each.step}")
        for each in known.resumes
    )


def _code(row: Row) -> dict[str, Any]:
    git = row.record.git if row.record else None
    if git is None:
        return {}
    return {"commit": git.commit, "state": "with uncommitted changes" if git.dirty else "clean"}


def _packages(row: Row) -> Mapping[str, Any]:
    return row.record.packages if row.record else {}


def _machine(row: Row) -> Mapping[str, Any]:
    return row.record.hardware if row.record else {}


_ASPECTS: dict[str, Callable[[Row], Mapping[str, Any]]] = {
    "config": lambda row: row.config,
    "code": _code,
    "packages": _packages,
    "machine": _machine,
}


def _metrics(row: Row) -> None:
    tags = list(row.last)
    if not tags:
        return
    points = row.record.best if row.record else {}
    best = [display.short(row.best.get(tag)) for tag in tags]
    steps = [str(points[tag].step) if tag in points else "" for tag in tags]
    last = [display.short(row.last[tag]) for tag in tags]
    _print("metrics", tags, ["best", "at step", "last"], [best, steps, last])


def _section(console: Console, title: str, values: Mapping[str, Any]) -> None:
    present = {
        display.printable(key): _text(each) for key, each in values.items() if each not in (None, "", [], {})
    }
    console.print(title, style="bold", markup=False)
    width = max(map(len, present), default=0)
    for key, text in present.items():
        console.print(f"  {key:<{width}}  {text}", markup=False)
    console.print()


def _difference(
    console: Console, title: str, rows: tuple[Row, Row], values: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> None:
    keys = [
        key for key in dict.fromkeys([*values[0], *values[1]]) if values[0].get(key) != values[1].get(key)
    ]
    if not keys:
        known = values[0] or values[1]
        console.print(f"{title}: {_SAME if known else 'not recorded'}", markup=False)
        console.print()
        return
    cells = [[_text(each.get(key)) for key in keys] for each in values]
    _print(title, keys, [display.printable(row.label) for row in rows], cells)


def _print(title: str, keys: list[str], heads: list[str], cells: Iterable[list[str]]) -> None:
    shown = [Column(title, keys), *(Column(head, each) for head, each in zip(heads, cells, strict=True))]
    display.text_console(shown).print(table_text(shown), "")


def _text(found: Any) -> str:
    if isinstance(found, dict | list):
        return display.printable(json.dumps(found, default=str))
    return display.short(found) or "-"
