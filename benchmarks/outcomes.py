"""What the benchmarks of quality keep: outcomes by data set, way and seed in a .json, a table in a .md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path


def read(path: Path) -> dict[str, Any]:
    """Return what is kept; nothing where there is no such file yet."""
    return json.loads(path.read_text()) if path.exists() else {}


def keep(path: Path, data: str, way: str, seed: int, found: Any) -> None:
    """Add an outcome to those that are kept."""
    known = read(path)
    known.setdefault(data, {}).setdefault(way, {})[str(seed)] = found
    path.write_text(json.dumps(known))


def write_table(
    path: Path,
    opening: Iterable[str],
    notes: Mapping[str, str],
    columns: Iterable[str],
    rows: Callable[[dict[str, Any]], Iterable[str]],
) -> None:
    """Write a table for each data set beside what is kept; `rows` makes its lines of what its ways gave."""
    head = f"| | {' | '.join(columns)} |"
    lines = [*opening]
    for data, known in read(path).items():
        rule = "| --- |" + " ---: |" * (head.count("|") - 2)
        lines += [f"\n## {data}\n", notes.get(data, ""), head, rule, *rows(known)]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
