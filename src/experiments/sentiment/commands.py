"""`trainlab predict`: what a run of the sentiment experiment makes of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


def predict(
    reference: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's name or part of it, a path, or 'last'.")
    ],
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...")],
) -> None:
    """Say whether each text is positive or negative, by a trained run of the sentiment experiment."""
    from rich.console import Console

    from experiments.sentiment.predicting import predict as predict_texts

    Console(highlight=False).print(_table(predict_texts(reference, texts)))


def _table(answers: pd.DataFrame) -> Table:
    from rich.table import Table
    from rich.text import Text  # a text may hold square brackets, which are no markup

    from trainlab.cleaning import printable

    table = Table("", "probability", "text")
    for text, label, positive in answers.itertuples(index=False):
        word, sure = ("positive", positive) if label else ("negative", 1 - positive)
        table.add_row(word, f"{sure:.3f}", Text(printable(text)))
    return table
