"""`trainlab runs`: the table of all runs, one run in full, two runs side by side, and more."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from trainlab.cleaning import printable
from trainlab.cli import compare, life
from trainlab.cli.options import (
    Ending,
    Everything,
    Experiment,
    Group,
    Logs,
    Mode,
    Reference,
    Since,
    Sweep,
    Where,
    chosen,
    folder_of,
    row,
)
from trainlab.errors import UserError

app = typer.Typer(help="List, show and compare runs; label, keep and delete them.")
for each in (compare.plot, compare.report, life.tag, life.note, life.trim, life.delete, life.restore):
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
    sweep: Sweep = "",
    where: Where = "",
    status: Ending = "",
    since: Since = "",
    mode: Mode = "auto",
    group: Group = False,
    everything: Everything = False,
    logs: Logs = None,
) -> None:
    """List the runs under logs/, the newest first, or by `--sort`; a filter chooses among them."""
    if context.invoked_subcommand is not None:
        for name in context.params:  # of these options a command behind them knows `--logs` alone
            source, command = context.get_parameter_source(name), context.invoked_subcommand
            if name != "logs" and source is not None and source.name == "COMMANDLINE":
                raise UserError(
                    f"--{name} stands before {command!r}. Write it behind: trainlab runs {command} "
                    f"--{name} ..."
                )
        context.obj = logs
        return
    from trainlab.run.metrics import directions_of
    from trainlab.runs import display, frames, ranking
    from trainlab.runs.columns import metric_of, ordered, resolve, split

    names, shown = split(sort or ""), split(columns or "") or None
    by = names[0] if len(names) == 1 else sort or ""
    directions = directions_of(by, mode)
    logs = folder_of(context, logs)
    rows = chosen(logs, experiment, where, status, since, directions, everything, sweep, group)
    if rows and by:
        tag = metric_of(resolve(by, rows))
        if tag and (remark := ranking.remark(rows, tag)):
            least = " The least comes first; choose: --mode min or max."
            print(printable(remark + ("" if ranking.direction(rows, tag) else least)), file=sys.stderr)
        rows = ordered(rows, by)
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
