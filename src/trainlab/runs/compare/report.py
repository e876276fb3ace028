"""One self-contained page about many runs: tables and pictures, no script, nothing to load."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from itertools import groupby
from typing import TYPE_CHECKING

import pandas as pd

from trainlab.runs import display, plots
from trainlab.runs.compare import importance
from trainlab.runs.compare.comparison import CompareConfig, check_tag, comparison
from trainlab.runs.display import Column

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trainlab.runs.compare.comparison import Comparison
    from trainlab.runs.listing import Row
    from trainlab.runs.plots import Picture


@dataclass(frozen=True)
class Part:
    """A table or a picture under a title; `picture` is a data address."""

    title: str
    note: str = ""
    table: list[Column] | None = None
    picture: str = ""


@dataclass(frozen=True)
class Section:
    """What is said of one experiment."""

    title: str
    about: str
    parts: list[Part]


def write(path: Path, rows: Sequence[Row], where: str = "", metric: str = "") -> None:
    """Write the report of some runs, a section for each experiment, all or nothing.

    `metric` says which run is better where an experiment has it; by default the main one does. Raises
    UserError for a metric that no run has, and when the file can't be written.
    """
    plots.save(path, html(rows, where, metric).encode(errors="backslashreplace"))


def html(rows: Sequence[Row], where: str = "", metric: str = "") -> str:
    """Return the page as HTML; names, settings and reasons are escaped: a run's name is never markup."""
    from jinja2 import Environment

    if metric:
        check_tag(rows, metric)
    chosen = f" with {where}" if where else ""
    about = f"{len(rows)} runs{chosen}, written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by trainlab."
    template = resources.files("trainlab.runs.compare").joinpath("report.html").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        title="Runs compared", about=about, sections=[section(*each, metric) for each in _experiments(rows)]
    )


def section(experiment: str, rows: list[Row], metric: str = "") -> Section:
    """Return everything about the runs of one experiment, by its main metric where none has this one."""
    known = any(metric in row.last for row in rows)
    compared = comparison(rows, CompareConfig.parse({"metric": metric if known else ""}))
    parts = _about_metric(compared) if compared.metric else []
    parts += [_cost(compared), Part("All runs", table=display.whole(rows))]
    return Section(display.printable(experiment) or "Runs without an experiment", str(compared), parts)


def _about_metric(compared: Comparison) -> list[Part]:
    config, metric = compared.config, compared.metric
    leaders = compared.leaders().reset_index()
    reason = importance.missing(compared.comparable, metric)
    apart = "The rank counts within the same data and split." if len(compared.groups) > 1 else ""
    parts = [Part(f"The best by {metric}", apart, _table(leaders)), _differences(compared)]
    smoothed = f"Smoothed by {config.smooth:g} as in TensorBoard; the exact curves are faint."
    notes = " ".join([smoothed, *compared.left_out()])
    parts.append(Part("Curves", notes, picture=_picture(compared.curves(for_file=True))))
    parts.append(Part("Settings against the metric", picture=_picture(compared.parallel())))
    if reason:
        return [*parts, Part("Importance of settings", reason)]
    note = "How much of the order of the runs each setting accounts for, by forests on 30 draws of the runs."
    return [*parts, Part("Importance of settings", note, picture=_picture(compared.importance()))]


def _differences(compared: Comparison) -> Part:
    best = compared.config.best
    frame = compared.differences()
    if frame.empty:
        return Part(
            "What sets the best apart", f"Nothing: no setting differs, or there are {best} runs at most."
        )
    note = (
        f"The best {best} against the others; 0: alike, 1: nothing in common. Few runs give a hint, no more."
    )
    return Part("What sets the best apart", note, _table(frame))


def _cost(compared: Comparison) -> Part:
    frame = compared.cost()
    total = frame[["seconds", "gpu_hours", "energy_wh"]].sum(min_count=1)
    amounts = [
        display.duration(None if pd.isna(total["seconds"]) else total["seconds"]),
        "" if pd.isna(total["gpu_hours"]) else f"{total['gpu_hours']:.3g} GPU hours",
        "" if pd.isna(total["energy_wh"]) else f"{total['energy_wh']:.3g} Wh of the GPUs",
    ]
    together = ", ".join(filter(None, amounts)) or "not recorded"
    return Part("Cost", f"Together: {together}. Empty: not recorded.", _table(frame))


def _table(frame: pd.DataFrame) -> list[Column]:
    return [
        Column(
            display.printable(str(name)),
            ["" if pd.isna(each) else display.short(each) for each in frame[name]],
            pd.api.types.is_numeric_dtype(frame[name]),
        )
        for name in frame
    ]


def _picture(picture: Picture) -> str:
    """Return a picture as an address that holds it: as an image, an SVG runs no script and loads nothing."""
    return "data:image/svg+xml;base64," + base64.b64encode(picture.image("svg")).decode()


def _experiments(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return the runs of each experiment, in the order of their newest runs."""
    names = list(dict.fromkeys(row.experiment for row in rows))
    ordered = sorted(rows, key=lambda row: names.index(row.experiment))
    return [(name, list(group)) for name, group in groupby(ordered, key=lambda row: row.experiment)]
