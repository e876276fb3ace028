"""`trainlab data`: list, fetch and verify the experiments' data sets."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import TaskID

    from trainlab.files import Report

app = typer.Typer(no_args_is_help=True, help="List, fetch and verify data sets.")

Name = Annotated[str, typer.Argument(help="A name that `trainlab data list` shows.")]


@app.command("list")
def list_() -> None:
    """List the data sets: what they are, whether they are here, and their licence."""
    from rich.console import Console
    from rich.table import Table

    from trainlab import datasets

    table = Table("name", "what", "here", "download", "licence")
    for each in datasets.known().values():
        size = sum(archive.size for archive in each.archives)
        shown = f"{size / 1e6:,.0f} MB" if size else "shipped"
        table.add_row(each.name, each.what, "yes" if each.here else "no", shown, each.licence)
    Console(highlight=False).print(table)


@app.command()
def fetch(name: Name) -> None:
    """Download a data set, check it and unpack it; a download that broke off continues."""
    from trainlab import datasets

    dataset = datasets.lookup(name)
    print(f"{dataset.name}: {dataset.what}\nlicence: {dataset.licence}")
    with progress(in_bytes=True) as report:
        new = datasets.fetch(dataset, report)
    for folder in new:
        print(f"unpacked: {folder}")
    if not new:
        print("already here")


@app.command()
def verify(name: Name) -> None:
    """Read every file of a data set again and compare its SHA-256."""
    from trainlab import datasets

    dataset = datasets.lookup(name)
    print(f"{dataset.name}: {datasets.verify(dataset)} files as they should be")


@contextmanager
def progress(*, in_bytes: bool = False) -> Iterator[Report]:
    """Give a function that draws a bar for each thing whose progress it gets; on a terminal alone.

    Args:
        in_bytes: Whether it gets bytes; otherwise shares are shown.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    shown = DownloadColumn() if in_bytes else TaskProgressColumn()
    with Progress("{task.description}", BarColumn(), shown, TimeRemainingColumn()) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield report
