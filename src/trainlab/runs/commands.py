"""`trainlab runs`: the table of all runs, one run in full, two runs side by side."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trainlab.runs.listing import Row

app = typer.Typer(help="List, show and compare runs.")


class Format(StrEnum):
    """What the table is printed as."""

    table = "table"
    csv = "csv"
    json = "json"
    markdown = "markdown"


Logs = Annotated[Path | None, typer.Option("--logs", help="The folder of runs; default: logs/.")]
Where = Annotated[str, typer.Option(help="Only these, such as 'margin>=5 and val/loss<0.2'.")]
Ending = Annotated[str, typer.Option("--status", help="Only those that are finished, failed, running ...")]
Since = Annotated[str, typer.Option(help="Only those started in the last 7d, 12h, 30m ...")]
Reference = Annotated[str, typer.Argument(help="A run's name or a unique part of it, a path, or 'last'.")]


@app.callback(invoke_without_command=True)
def runs(  # noqa: PLR0913, PLR0917
    context: typer.Context,
    experiment: Annotated[str | None, typer.Option(help="Only this experiment's runs.")] = None,
    sort: Annotated[
        str | None, typer.Option(help="A column to sort by, such as val/loss: best first.")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.table,
    columns: Annotated[
        str | None, typer.Option(help="Which columns, such as run,margin,val/loss,last.val/loss.")
    ] = None,
    where: Where = "",
    status: Ending = "",
    since: Since = "",
    logs: Logs = None,
) -> None:
    """List every run under logs/, the newest first, or by `--sort`; a filter chooses among them."""
    if context.invoked_subcommand is not None:
        context.obj = logs
        return
    from trainlab.runs.columns import ordered

    rows = chosen(logs, experiment, where, status, since)
    if rows and sort:
        rows = ordered(rows, sort)
    _print(rows, format, _names(columns))


@app.command()
def show(context: typer.Context, run: Reference, logs: Logs = None) -> None:
    """Show everything that is known about one run."""
    from trainlab.runs import details

    details.show(_row(run, logs or context.obj))


@app.command()
def diff(context: typer.Context, first: Reference, second: Reference, logs: Logs = None) -> None:
    """Show what differs between two runs: config, code, packages, machine, metrics."""
    from trainlab.runs import details

    details.diff(_row(first, logs or context.obj), _row(second, logs or context.obj))


def chosen(
    logs: Path | None, experiment: str | None = None, where: str = "", status: str = "", since: str = ""
) -> list[Row]:
    """Return the runs that the options choose, the newest first, and say so where there is none."""
    from trainlab import folders
    from trainlab.runs import filters, listing

    rows = listing.rows(logs, experiment)
    if not rows:
        print(f"No runs in {logs or folders.logs()} yet. Start one: trainlab run news", file=sys.stderr)
    options = [where, f'status="{status}"' if status else "", f'age<="{since}"' if since else ""]
    left = filters.select(rows, *options)
    if rows and not left:
        print(f"None of {len(rows)} runs fulfils {' and '.join(filter(None, options))}.", file=sys.stderr)
    return left


def _print(rows: list[Row], format: Format, chosen: list[str] | None) -> None:
    from trainlab.runs import display

    if format is Format.json:
        sys.stdout.write(display.json_text(rows, chosen))
    elif format is Format.csv:
        sys.stdout.write(display.csv_text(rows, chosen))
    elif rows and format is Format.markdown:
        sys.stdout.write(display.markdown_text(rows, chosen))
    elif rows:
        display.print_table(rows, chosen)


def _names(columns: str | None) -> list[str] | None:
    names = [name.strip() for name in (columns or "").split(",")]
    return [name for name in names if name] or None


def _row(reference: str, logs: Path | None) -> Row:
    from trainlab import folders
    from trainlab.runs import listing
    from trainlab.runs.lookup import find

    folder = find(reference, logs).resolve()
    logs = (logs or folders.logs()).resolve()
    return listing.read(folder, logs if folder.is_relative_to(logs) else folder.parents[1])
