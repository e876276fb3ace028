"""`trainlab recommend` and `trainlab evaluate-clicks`, which the tool finds in this folder."""

from __future__ import annotations

from typing import Annotated, Literal

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


@app.command()
def evaluate_clicks(
    run: Reference,
    behaviors: Annotated[
        str,
        typer.Argument(metavar="BEHAVIORS", help="A behaviors.tsv in MIND's layout; or sample, mind-small."),
    ],
    news: Annotated[
        str, typer.Option(metavar="FILE", help="The news.tsv of its ids; default: the one beside it.")
    ] = "",
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",
) -> None:
    """Measure how well a run ranks what readers clicked by what they had read: AUC, MRR, nDCG."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from experiments.news import clicks
    from trainlab.cleaning import lines

    found = clicks.evaluate(run, behaviors, news)
    if format == "json":
        print(found.as_json(), end="")
        return
    console = Console(highlight=False)
    console.print(Text(lines(found.summary())))
    for name, group in found.groups.items():
        title = f"{clicks.GROUPS[name]}: {group.impressions:,} impressions, {group.readers:,} readers"
        table = Table("", *clicks.METRICS.values(), title=title, title_justify="left")
        for row in group.table().itertuples():
            table.add_row(*(str(cell).replace(" (", "\n(").replace(" to ", "-") for cell in row))
        console.print(table)
        if group.ahead:
            console.print(Text(f"AUC of the run less that of {group.differences()}"))
    console.print(Text(lines("\n".join(filter(None, (found.missing, clicks.EXPLAINED, clicks.PUBLISHED))))))
