"""`trainlab recommend`, which the tool finds in this folder."""

from __future__ import annotations

from typing import Annotated

import typer

from trainlab.cli.options import Reference

app = typer.Typer()


@app.command()
def recommend(
    run: Reference,
    titles: Annotated[list[str], typer.Argument(metavar="TITLE...")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many for each title.")] = 10,
) -> None:
    """Print the news nearest to each title, by a trained run of the news experiment."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # a title may hold square brackets, which are no markup

    from experiments.news.recommend import recommend as nearest
    from trainlab.cleaning import printable

    for query, rows in nearest(run, titles, k=k).groupby("query", sort=False):
        title = Text(printable(str(query)))
        table = Table("", "title", "category", "distance", title=title, title_justify="left")
        for row in rows.to_dict("records"):
            cells = (row["rank"], row["title"], row["category"], f"{row['distance']:.3f}")
            table.add_row(*(Text(printable(str(cell))) for cell in cells))
        Console(highlight=False).print(table)
