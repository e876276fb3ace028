"""One self-contained page about many runs: tables and pictures, no script, nothing to load."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

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


class Part(NamedTuple):
    """A table or a picture under a title; `picture` is a data address."""

    title: str
    note: str = ""
    table: list[Column] | None = None
    picture: str = ""


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
    experiments: dict[str, list[Row]] = {}  # in the order of their newest runs
    for row in rows:
        experiments.setdefault(row.experiment, []).append(row)
    sections = []
    for name, own in experiments.items():
        known = any(metric in row.last for row in own)
        compared = comparison(own, CompareConfig.parse({"metric": metric if known else ""}))
        title = display.printable(name) or "Runs without an experiment"
        sections.append({"title": title, "about": str(compared), "parts": _parts(compared)})
    chosen = f" with {where}" if where else ""
    about = f"{len(rows)} runs{chosen}, written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by trainlab."
    template = resources.files("trainlab.runs.compare").joinpath("report.html").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(title="Runs compared", about=about, sections=sections)


def _parts(compared: Comparison) -> list[Part]:
    """Return everything about the runs of one experiment."""
    cost = compared.cost()
    seconds, hours, energy = cost[["seconds", "gpu_hours", "energy_wh"]].sum(min_count=1)
    amounts = [
        "" if pd.isna(seconds) else display.duration(seconds),
        "" if pd.isna(hours) else f"{hours:.3g} GPU hours",
        "" if pd.isna(energy) else f"{energy:.3g} Wh of the GPUs",
    ]
    together = ", ".join(filter(None, amounts)) or "not recorded"
    last = [
        Part("Cost", f"Together: {together}. Empty: not recorded.", as_columns(cost)),
        Part("All runs", table=display.whole(compared.rows)),
    ]
    if not compared.metric:
        return last
    best, metric = compared.config.best, compared.metric
    about = [
        "The rank counts within the same data and split." if len(compared.groups) > 1 else "",
        "Runs that differ by the seed alone are one row: the mean of n runs, sd the standard deviation of a "
        "sample; unfinished runs count where none has finished."
        if compared.repeats
        else "",
    ]
    differences = compared.differences()
    alone = f"Nothing: no setting differs, or there are {best} runs at most."
    scale = "0: alike, 1: nothing in common. Few runs give a hint, no more."
    smooth = f"Smoothed by {compared.config.smooth:g} as in TensorBoard; the exact curves are faint."
    reason = importance.missing(compared.comparable, metric)
    drawn = "" if reason else _address(compared.importance())
    share = "How much of the order of the runs each setting accounts for, by forests on 30 draws of the runs."
    return [
        Part(
            f"The best by {metric}",
            " ".join(filter(None, about)),
            as_columns(compared.leaders().reset_index()),
        ),
        Part(
            "What sets the best apart",
            alone if differences.empty else f"The best {best} against the others; {scale}",
            as_columns(differences),
        ),
        Part("Curves", " ".join([smooth, *compared.left_out()]), picture=_address(compared.curves(True))),
        Part("Settings against the metric", picture=_address(compared.parallel())),
        Part("Importance of settings", reason or share, picture=drawn),
        *last,
    ]


def as_columns(frame: pd.DataFrame) -> list[Column] | None:
    """Return a table as text, with NaN as nothing; None for an empty one."""
    if frame.empty:
        return None
    cells = {name: ["" if pd.isna(each) else display.short(each) for each in frame[name]] for name in frame}
    return [
        Column(display.printable(str(name)), texts, pd.api.types.is_numeric_dtype(frame[name]))
        for name, texts in cells.items()
    ]


def _address(picture: plots.Picture) -> str:
    """Return a picture as an address that holds it: as an image, an SVG runs no script and loads nothing."""
    return "data:image/svg+xml;base64," + base64.b64encode(picture.image("svg")).decode()
