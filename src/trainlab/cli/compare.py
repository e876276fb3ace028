"""`trainlab runs plot` and `trainlab runs report`: pictures of several runs, and one page about them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from trainlab.cleaning import printable
from trainlab.cli.options import (
    Ending,
    Experiment,
    Logs,
    Mode,
    Since,
    Sweep,
    Where,
    chosen,
    folder_of,
    row,
)
from trainlab.runs.compare import XAxis

Metric = Annotated[str, typer.Option(help="What says which run is better; default: the main one.")]
FORMATS = (".png", ".svg", ".pdf")
Kind = Literal["curves", "parallel", "importance"]


def plot(  # noqa: PLR0913, PLR0917
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file: .png, .svg or .pdf.")],
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Runs; default: those that the options choose."),
    ] = None,
    kind: Annotated[
        Kind, typer.Option(help="Curves, settings against a metric, or their importance.")
    ] = "curves",
    tag: Annotated[list[str] | None, typer.Option(help="A curve to draw; may be repeated.")] = None,
    metric: Metric = "",
    mode: Mode = "auto",
    smooth: Annotated[float, typer.Option(min=0, max=0.999, help="TensorBoard's smoothing.")] = 0.0,
    x: Annotated[XAxis, typer.Option(help="What curves are drawn over.")] = XAxis.step,
    experiment: Experiment = None,
    sweep: Sweep = "",
    where: Where = "",
    status: Ending = "",
    since: Since = "",
    logs: Logs = None,
) -> None:
    """Draw several runs into one picture."""
    from trainlab.errors import UserError
    from trainlab.run.metrics import directions_of
    from trainlab.runs import columns, plots, ranking
    from trainlab.runs.compare.comparison import MOST_CURVES, CompareConfig, comparison

    if output.suffix.lower() not in FORMATS:
        raise UserError(f"{output}: expected a name that ends with {', '.join(FORMATS)}.")
    logs = folder_of(context, logs)
    directions = directions_of(metric, mode)
    rows = [row(each, logs, directions) for each in references or []]
    rows = rows or chosen(logs, experiment, where, status, since, directions, sweep=sweep)
    if not rows:
        raise typer.Exit(1)
    config = CompareConfig.parse(
        {"metric": metric, "tags": columns.join(tag or []), "smooth": smooth, "x": x}
    )
    compared = comparison(rows, config, most=len(references or []) or MOST_CURVES)
    if kind == "curves":
        picture, remarks = compared.curves(for_file=True), compared.left_out()
    else:
        picture = compared.parallel() if kind == "parallel" else compared.importance()
        remarks = [ranking.remark(rows, compared.metric)]
    plots.save(output, picture.image(output.suffix.lower().removeprefix(".")))
    for sentence in filter(None, remarks):
        print(printable(sentence), file=sys.stderr)
    print(output)


def report(  # noqa: PLR0913, PLR0917
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("report.html"),
    metric: Metric = "",
    mode: Mode = "auto",
    experiment: Experiment = None,
    sweep: Sweep = "",
    where: Where = "",
    status: Ending = "",
    since: Since = "",
    logs: Logs = None,
) -> None:
    """Write tables and pictures of runs into one HTML page that can be mailed."""
    from trainlab.run.metrics import directions_of
    from trainlab.runs import query
    from trainlab.runs.compare.report import write

    directions = directions_of(metric, mode)
    logs = folder_of(context, logs)
    rows = chosen(logs, experiment, where, status, since, directions, sweep=sweep)
    if not rows:
        raise typer.Exit(1)
    filters = filter(None, [query.of_sweep(sweep), where])
    write(output, rows, " and ".join(filters), metric)
    print(output)
