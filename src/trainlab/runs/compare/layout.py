"""Where curves are drawn: in which panel, and by which line."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Layout(NamedTuple):
    """Panels from top to bottom, and the lines in them; of one run val/loss and train/loss share a panel."""

    panels: list[str]
    lines: list[str]
    places: dict[str, tuple[int, int]]  # of a tag: its panel, and the line where that isn't a run's


def layout(names: Sequence[str], tags: Sequence[str]) -> Layout:
    """Return where curves of runs that are called `names` are drawn."""
    if len(names) != 1:
        return Layout([*tags], [*names], {tag: (place, 0) for place, tag in enumerate(tags)})
    parts = {tag: (tag.rpartition("/")[2], tag.rpartition("/")[0]) for tag in tags}
    panels, lines = (
        list(dict.fromkeys(each)) for each in (zip(*parts.values(), strict=True) if tags else ((), ()))
    )
    places = {tag: (panels.index(panel), lines.index(line)) for tag, (panel, line) in parts.items()}
    return Layout(panels, [line or names[0] for line in lines], places)
