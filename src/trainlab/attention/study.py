"""What `notebooks/attention.ipynb` shows: networks looked at side by side."""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from trainlab.attention import pages, patterns, plots, pronouns, sources

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from trainlab.attention.capture import Attention, Reader
    from trainlab.attention.config import AttentionConfig
    from trainlab.attention.patterns import Scores


@dataclass(frozen=True)
class View:
    """A page for a notebook, and words for where pages can't be shown."""

    data: str

    def _repr_html_(self) -> str:
        return self.data

    def __repr__(self) -> str:
        """Return what a terminal or a PDF shows."""
        return "<a view of attention: open the notebook in JupyterLab>"


@dataclass
class Study:
    """One network, or the same one before and after its fine-tuning."""

    config: AttentionConfig
    readers: list[Reader]
    reviews: list[str]

    def summary(self) -> str:
        """Return a few lines for people: which networks are looked at, with what."""
        shapes = [
            f"{each.name}: {network.num_hidden_layers} layers of {network.num_attention_heads} heads"
            for each in self.readers
            for network in [each.model.config]
        ]
        alone = (
            []
            if self.config.run
            else [
                "no fine-tuned network: this one is looked at alone. Train one (trainlab run sentiment), "
                "and set run=last."
            ]
        )
        scored = (
            f"scores over {len(self.reviews)} reviews and {len(pronouns.mentions())} sentences with a pronoun"
        )
        return "\n".join([*shapes, scored, *alone])

    def head_view(self) -> View:
        """Show all heads of a layer, for each network."""
        return self._shown(pages.head_view)

    def model_view(self) -> View:
        """Show every head of every layer in small, for each network."""
        return self._shown(pages.model_view)

    def neuron_view(self) -> View:
        """Show one head's queries and keys, for each network."""
        return self._shown(pages.neuron_view)

    def heat_maps(self) -> Figure:
        """Draw all heads' scores, by pattern and network, and how fine-tuning changed them."""
        return plots.heat_maps(self.scores)

    def best_heads(self) -> pd.DataFrame:
        """Return each pattern's best head in each network, numbered from 0 as in the views.

        `even` is what attention spread evenly would score, and `mean` the mean over all heads.
        """
        rows = [
            {
                "network": scores.name,
                "pattern": pattern,
                "layer": layer,
                "head": head,
                "score": float(scores.heads[pattern][layer, head]),
                "mean": float(scores.heads[pattern].mean()),
                "even": scores.even[pattern],
            }
            for scores in self.scores
            for pattern, (layer, head) in best(scores).items()
        ]
        return pd.DataFrame(rows).set_index(["network", "pattern"])

    def by_luck(self) -> float:
        """Return the share of pronouns that the best of as many heads would resolve by tossing coins."""
        return patterns.by_luck(len(pronouns.mentions()), self.scores[0].heads["pronoun resolved"].numel())

    def matrices(self) -> list[Figure]:
        """Draw each pattern's best head at work on the sentence, a picture for each network."""
        return [
            plots.matrices(attention, best(scores))
            for attention, scores in zip(self._sentence(), self.scores, strict=True)
        ]

    @cached_property
    def scores(self) -> list[Scores]:
        """The scores of every head, a network each."""
        return [patterns.measure(each, self.reviews, pronouns.mentions()) for each in self.readers]

    def _shown(self, view: Callable[[Attention], str]) -> View:
        return View(
            pages.HINT
            + "".join(
                f"<b>{html.escape(reader.name)}</b>{view(attention)}"
                for reader, attention in zip(self.readers, self._sentence(), strict=True)
            )
        )

    def _sentence(self) -> list[Attention]:
        return [next(each.read([self.config.sentence])) for each in self.readers]


def best(scores: Scores) -> dict[str, tuple[int, int]]:
    """Return the layer and the head that keep to each pattern most."""
    return {
        pattern: divmod(int(values.argmax()), values.shape[1]) for pattern, values in scores.heads.items()
    }


def look(config: AttentionConfig) -> Study:
    """Load the networks that the settings name, and read the texts of the scores.

    Raises UserError for a run, a backbone or data that can't be had.
    """
    return Study(config, sources.readers(config), sources.reviews(config))
