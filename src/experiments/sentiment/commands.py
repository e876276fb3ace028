"""`trainlab predict`, which the tool finds in this folder."""

from __future__ import annotations

from typing import Annotated

import typer

from trainlab.cli.options import Reference

app = typer.Typer()


@app.command()
def predict(run: Reference, texts: Annotated[list[str], typer.Argument(metavar="TEXT...")]) -> None:
    """Say whether each text is positive or negative, by a trained run of the sentiment experiment."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # a text may hold square brackets, which are no markup

    from experiments.sentiment.model import predict as answer
    from trainlab.cleaning import printable

    table = Table("", "probability", "text")
    for text, label, positive in answer(run, texts).itertuples(index=False):
        word, sure = ("positive", positive) if label else ("negative", 1 - positive)
        table.add_row(word, f"{sure:.3f}", Text(printable(text)))
    Console(highlight=False).print(table)
