"""One run in full, and two runs side by side, as text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from trainlab.run import stop
from trainlab.run.monitor import VITALS
from trainlab.runs import columns, display, progress
from trainlab.runs.display import Column, table_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rich.console import Console

    from trainlab.run.record import Git, Record
    from trainlab.runs.listing import Row

_LONGEST_HEAD = 25  # characters of a run's name above a column
_SAME = "the same"


def show(row: Row) -> None:
    """Print everything that is known about a run."""
    console = display.text_console()
    _section(console, display.printable(row.label), _facts(row))
    _metrics(row)
    _section(console, "config", row.config)
    if row.record is not None:
        _section(console, "packages", row.record.packages)


def diff(first: Row, second: Row) -> None:
    """Print what differs between two runs (config, code, packages, machine), and the metrics of both."""
    console = display.text_console()
    heads = [display.printable(row.label) for row in (first, second)]
    if max(map(len, heads)) > _LONGEST_HEAD:
        console.print(f"first:  {heads[0]}\nsecond: {heads[1]}\n", markup=False)
        heads = ["first", "second"]
    for title, of in _ASPECTS.items():
        _difference(console, title, heads, (of(first), of(second)))
    tags = _ordered_tags(first, second)
    if tags:
        cells = [[display.best_and_last(row, tag) for tag in tags] for row in (first, second)]
        _print("metrics: best (last)", tags, heads, cells)


def _ordered_tags(*rows: Row) -> list[str]:
    """Return the tags of all metrics, as the table of runs has them, then baselines, the machine's last."""
    tags = dict.fromkeys(tag for row in rows for tag in row.last)
    others = sorted(tags, key=lambda tag: tag.startswith(VITALS))
    return list(dict.fromkeys([*columns.main_metrics(rows), *others]))


def _facts(row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "folder": row.folder,
        "status": row.status,
        "progress": progress.text(row) if row.status == "running" else None,
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
    code, ours = _version(known.git), _version(known.trainlab_git)
    facts |= {
        "process": _process(row),
        "resumed": _sessions(known),
        "command": known.command,
        "code": " ".join(code.values()),
        "trainlab": " ".join(ours.values()) if ours != code else None,
        "seed": known.seed,
        "data": known.data,
    }
    return facts | known.hardware | {"host": known.host} | (known.model_extra or {})


def _process(row: Row) -> str | None:
    """Return what does the work, and how to stop it."""
    if row.record is None or row.status != "running":
        return None
    known = row.record
    return f"{known.pid} on {known.host or 'this machine'}; to stop it: {stop.command('stop', row.run)}"


def _sessions(known: Record) -> str:
    """Return when the run went on, and from which step."""
    return ", ".join(
        f"{display.short(each.at)} UTC" + ("" if each.step is None else f" at step {each.step}")
        for each in known.resumes
    )


def _code(row: Row) -> dict[str, str]:
    if row.record is None:
        return {}
    ours = {f"trainlab's {key}": value for key, value in _version(row.record.trainlab_git).items()}
    return _version(row.record.git) | ours


def _version(git: Git | None) -> dict[str, str]:
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
    tags = _ordered_tags(row)
    if not tags:
        return
    best = [display.short(row.best.get(tag)) for tag in tags]
    steps = [str(row.best_steps.get(tag, "")) for tag in tags]
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
    console: Console, title: str, heads: list[str], values: tuple[Mapping[str, Any], Mapping[str, Any]]
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
    _print(title, keys, heads, cells)


def _print(title: str, keys: list[str], heads: list[str], cells: Iterable[list[str]]) -> None:
    shown = [Column(title, keys), *(Column(head, each) for head, each in zip(heads, cells, strict=True))]
    display.text_console(shown).print(table_text(shown), "\n", sep="")


def _text(found: Any) -> str:
    if isinstance(found, dict | list):
        return display.printable(json.dumps(found, default=str))
    return display.short(found) or "-"
