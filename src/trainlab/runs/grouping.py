"""Runs in groups under titles: by experiment, by sweep, and apart where data or split can't be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from trainlab.runs import columns, ranking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trainlab.runs.listing import Row

By = Literal["", "experiment", "sweep", "data", "settings"]


def titled(rows: Sequence[Row], by: By, column: str = "") -> Iterator[tuple[str, Row]]:
    """Yield each row with its group's title, '' where there is one group alone.

    Groups, and the rows in each, stand in the order of the rows. Where these are ordered by a metric's
    `column`, those on other data or another split stand apart in each group, and those without it behind.
    Settings, which `folding` has made one row each, are no groups.
    """
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kind = (getattr(row, by) or f"no {by}") if by in ("experiment", "sweep") else ""
        kinds.setdefault(kind, []).append(row)
    tag = columns.metric_of(column)
    if not tag and by != "data":
        yield from ((kind, row) for kind, own in kinds.items() for row in own)
        return
    grounds = ranking.groups([row for row in rows if not tag or columns.value(row, column) is not None])
    places = {id(row): number for number, ground in enumerate(grounds) for row in ground}
    names = ranking.names(grounds) if len(grounds) > 1 or by == "data" else [""] * len(grounds)
    names.append(f"without {tag}")
    for kind, own in kinds.items():
        for place, row in sorted(
            ((places.get(id(row), len(grounds)), row) for row in own), key=lambda each: each[0]
        ):
            yield " · ".join(filter(None, [kind, names[place]])), row
