"""`trainlab data`: list, fetch and verify data sets; freeze what an experiment makes of one."""

from __future__ import annotations

import time
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from trainlab.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.progress import ProgressColumn
    from rich.table import Table

    from trainlab.files import Report
    from trainlab.freezing import Recipe

app = typer.Typer(no_args_is_help=True, help="List, fetch and verify data sets; freeze processed data.")

FREEZABLE = ("news", "captions")  # experiments with a module `frozen`, which has CONFIG and recipe(config)
Name = Annotated[str, typer.Argument(help="A name that `trainlab data list` shows.")]


@app.command("list")
def list_() -> None:
    """List the data sets: what they are, whether they are here, and their licence; and what is frozen."""
    from rich.console import Console
    from rich.table import Table

    from trainlab import datasets, freezing

    table = Table("name", "what", "here", "download", "licence")
    for each in datasets.DATASETS.values():
        size = f"{each.size / 1e6:,.0f} MB" if each.size else "shipped"
        table.add_row(each.name, each.what, "yes" if datasets.here(each) else "no", size, each.licence)
    console = Console(highlight=False)
    console.print(table)
    if archives := freezing.archives():
        console.print(_frozen(archives))


@app.command()
def fetch(name: Name) -> None:
    """Download a data set, check it and unpack it; a download that broke off goes on."""
    from rich.progress import DownloadColumn

    from trainlab import datasets

    dataset = datasets.lookup(name)
    print(f"{dataset.name}: {dataset.what}\nlicence: {dataset.licence}")
    with _bars(DownloadColumn()) as report:
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


@app.command()
def freeze(
    name: Annotated[str, typer.Argument(help=f"An experiment: {', '.join(FREEZABLE)}.")],
    parameters: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """Prepare an experiment's data once and pack it into one archive, which its runs then use."""
    from rich.progress import TaskProgressColumn

    from trainlab import freezing

    recipe = _recipe(name, parameters or [])
    start = time.monotonic()
    with _bars(TaskProgressColumn()) as report:
        frozen = freezing.freeze(recipe, report)
    size, seconds = frozen.size / 1e6, time.monotonic() - start
    print(f"frozen: {frozen.path}\n{len(frozen.files):,} files, {size:,.1f} MB, {seconds:.1f} s")


def _recipe(name: str, words: list[str]) -> Recipe:
    """Return what an experiment freezes; settings that do not make its data are refused."""
    from trainlab.config import assignments

    if name not in FREEZABLE:
        raise UserError(
            f"{name!r} is no experiment to freeze.{nearest(name, FREEZABLE)} Known: {', '.join(FREEZABLE)}."
        )
    module = import_module(f"experiments.{name}.frozen")
    values = module.CONFIG.named(assignments(words))
    recipe = module.recipe(module.CONFIG.parse(values))
    if idle := [key for key in values if key not in recipe.keys]:
        raise UserError(
            f"{', '.join(idle)}: makes no difference to the data that {name} freezes. These settings do: "
            f"{', '.join(recipe.keys)}."
        )
    return recipe


def _frozen(archives: list[Path]) -> Table:
    from rich.table import Table

    from trainlab import freezing

    table = Table("frozen", "files", "size", "settings")
    for path in archives:
        try:
            frozen = freezing.read(path)
        except UserError:
            table.add_row(path.name, "damaged", "", "")
            continue
        settings = " ".join(f"{key}={value}" for key, value in frozen.settings.items())
        table.add_row(path.name, f"{len(frozen.files):,}", f"{frozen.size / 1e6:,.1f} MB", settings)
    return table


@contextmanager
def _bars(column: ProgressColumn) -> Iterator[Report]:
    """Show a bar for each thing that is reported; on a terminal alone."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), column, TimeRemainingColumn()) as bars:
        tasks: dict[str, object] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)  # type: ignore[arg-type]

        yield report
