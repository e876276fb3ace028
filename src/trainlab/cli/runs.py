"""`trainlab runs`: the table of all runs, one run in full, two runs side by side, and more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainlab.cli import compare as comparing
from trainlab.cli import life
from trainlab.cli.options import (
    Ending,
    Everything,
    Experiment,
    Logs,
    Mode,
    Reference,
    Since,
    Where,
    chosen,
    folder_of,
    row,
)
from trainlab.errors import UserError

if TYPE_CHECKING:
    from trainlab.runs.listing import Row

app = typer.Typer(help="List, show and compare runs; label, keep and delete them.")
for each in (comparing.plot, comparing.report, life.tag, life.note, life.trim, life.delete, life.restore):
    app.command()(each)
app.command("trash")(life.list_trash)
app.command()(life.archive)


@app.callback(invoke_without_command=True)
def runs(  # noqa: PLR0913, PLR0917
    context: typer.Context,
    experiment: Experiment = None,
    sort: Annotated[
        str | None, typer.Option(help="A column to sort by, such as val/loss: best first.")
    ] = None,
    format: Annotated[
        Literal["table", "csv", "json", "markdown"], typer.Option(help="How to print it.")
    ] = "table",
    columns: Annotated[str | None, typer.Option(help="Which columns, such as run,margin,val/loss.")] = None,
    where: Where = "",
    status: Ending = "",
    since: Since = "",
    mode: Mode = "auto",
    everything: Everything = False,
    logs: Logs = None,
) -> None:
    """List the runs under logs/, the newest first, or by `--sort`; a filter chooses among them."""
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        context.obj = logs
        return
    from trainlab.run.metrics import directions_of
    from trainlab.runs import display, frames
    from trainlab.runs.columns import split

    names, shown = split(sort or ""), split(columns or "") or None
    by = names[0] if len(names) == 1 else sort or ""
    directions = directions_of(by, mode)
    rows = chosen(folder_of(context, logs), experiment, where, status, since, directions, everything)
    if rows and by:
        rows = _sorted(rows, by)
    if format == "json":
        sys.stdout.write(frames.json_text(rows, shown))
    elif format == "csv":
        sys.stdout.write(frames.csv_text(rows, shown))
    elif rows and format == "markdown":
        sys.stdout.write(display.markdown_text(rows, shown))
    elif rows:
        display.print_table(rows, shown)


@app.command()
def show(context: typer.Context, run: Reference, logs: Logs = None) -> None:
    """Show everything that is known about one run."""
    from trainlab.runs import display

    display.show(row(run, folder_of(context, logs)))


@app.command()
def diff(context: typer.Context, first: Reference, second: Reference, logs: Logs = None) -> None:
    """Show what differs between two runs: config, code, packages, machine, metrics."""
    from trainlab.runs import display

    logs = folder_of(context, logs)
    display.diff(row(first, logs), row(second, logs))


def _refuse_options(context: typer.Context) -> None:
    """Refuse what would be ignored: of the table's options, a command behind it knows `--logs` alone."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name != "logs" and source is not None and source.name == "COMMANDLINE":
            command = context.invoked_subcommand
            raise UserError(
                f"--{name} stands before {command!r}. Write it behind: trainlab runs {command} --{name} ..."
            )


def _sorted(rows: list[Row], name: str) -> list[Row]:
    """Return the rows by a column; what an order by a metric leaves open goes to standard error."""
    from trainlab.runs import columns, display, ranking

    tag = columns.metric_of(columns.resolve(name, rows))
    if tag and (said := ranking.remark(rows, tag)):
        least = "" if ranking.direction(rows, tag) else " The least comes first; say it: --mode min or max."
        print(display.printable(said + least), file=sys.stderr)
    return columns.ordered(rows, name)
