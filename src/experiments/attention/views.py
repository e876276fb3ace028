"""What `notebooks/attention.ipynb` shows: networks looked at side by side."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from experiments.attention.capture import Attention, Reader
from experiments.attention.config import AttentionConfig
from experiments.attention.data import readers, reviews
from experiments.attention.scores import Scores, by_luck, measure, mentions
from trainlab.errors import UserError

# from the npm packages d3 5.16.0 and jquery 3.7.1, as published
LIBRARIES = {
    "d3.min.js": "5dbe924b3847df010f0b8572dd6ef42ea87d6370eeff72b13ea236247412a53c",
    "jquery.slim.min.js": "9261efb3407e3a9096e4654750d8eff6b3a663422f48845c7fbcc65034c340cf",
}
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
# what require.js would do: hand over the two libraries
REQUIRE = "window.require = {config() {}}; window.requirejs = (_, start) => start(jQuery, d3);"
# Jupyter takes frames out of a notebook that it doesn't trust: then these words are seen. A style holds for
# all notebooks that are open, hence what it says of a frame behind them
HINT = (
    "<style>.trainlab-untrusted:has(~ iframe) { display: none; }</style>"
    '<p class="trainlab-untrusted">The view is not shown: this notebook is not trusted here. If it is yours, '
    "press Ctrl+Shift+C in JupyterLab and choose Trust Notebook, or run it again. Other viewers don't show "
    "the view at all.</p>"
)
DECIMALS = 4  # of an attention: finer than can be drawn, and a third of the page's size
# heights in pixels, of what stands above the tokens and of a token, in BertViz's drawings
HEAD_TOP, HEAD_TOKEN = 110, 23
MODEL_TOP, MODEL_TOKEN, MODEL_PADDING, MODEL_HEADS = 80, 7, 10, 12
DETAIL_TOP, DETAIL_TOKEN = 110, 18
NEURON_TOP, NEURON_TOKEN = 240, 26
# in inches, the size of a heat map, and of a matrix with its title
PANEL = (2.9, 2.1)
MATRIX, TITLE = 3.4, 0.4
LONGEST_NAME = 26  # letters beside a row of heat maps


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
        lines = []
        for reader in self.readers:
            network = reader.model.config
            heads = f"{network.num_hidden_layers} layers of {network.num_attention_heads} heads"
            lines.append(f"{reader.name}: {heads}")
        lines.append(
            f"scores over {len(self.reviews)} reviews and {len(mentions())} sentences with a pronoun"
        )
        if not self.config.run:
            lines.append(
                "no fine-tuned network: this one is looked at alone. Train one (trainlab run sentiment), "
                "and set run=last."
            )
        return "\n".join(lines)

    def head_view(self) -> View:
        """Show all heads of a layer, for each network."""
        return self._shown(head_view)

    def model_view(self) -> View:
        """Show every head of every layer in small, for each network."""
        return self._shown(model_view)

    def neuron_view(self) -> View:
        """Show one head's queries and keys, for each network."""
        return self._shown(neuron_view)

    def heat_maps(self) -> Figure:
        """Draw all heads' scores, by pattern and network, and how fine-tuning changed them."""
        return heat_maps(self.scores)

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
        return by_luck(len(mentions()), self.scores[0].heads["pronoun resolved"].numel())

    def matrices(self) -> list[Figure]:
        """Draw what each pattern's best head attends to in the sentence, a picture for each network."""
        pairs = zip(self._sentence(), self.scores, strict=True)
        return [matrices(attention, best(scores)) for attention, scores in pairs]

    @cached_property
    def scores(self) -> list[Scores]:
        """The scores of every head, a network each."""
        return [measure(each, self.reviews, mentions()) for each in self.readers]

    def _shown(self, view: Callable[[Attention], str]) -> View:
        pairs = zip(self.readers, self._sentence(), strict=True)
        frames = (f"<b>{html.escape(reader.name)}</b>{view(attention)}" for reader, attention in pairs)
        return View(HINT + "".join(frames))

    def _sentence(self) -> list[Attention]:
        return [next(each.read([self.config.sentence])) for each in self.readers]


def best(scores: Scores) -> dict[str, tuple[int, int]]:
    """Return the layer and the head that keep to each pattern most."""
    heads = scores.heads.items()
    return {pattern: divmod(int(values.argmax()), values.shape[1]) for pattern, values in heads}


def look(config: AttentionConfig) -> Study:
    """Load the networks that the settings name, and read the texts of the scores.

    Raises UserError for a run, a backbone or data that can't be had.
    """
    return Study(config, readers(config), reviews(config))


def head_view(attention: Attention) -> str:
    """Return a frame with all heads of a layer over each other: lines from a token to what it attends to."""
    from bertviz import head_view as draw

    shown = draw(_weights(attention), attention.tokens, html_action="return")
    return frame(shown.data, HEAD_TOP + HEAD_TOKEN * len(attention.tokens))


def model_view(attention: Attention) -> str:
    """Return a frame with every head of every layer in small; a click enlarges one."""
    from bertviz import model_view as draw

    tokens, (layers, heads) = len(attention.tokens), attention.weights.shape[:2]
    shown = draw(_weights(attention), attention.tokens, display_mode="light", html_action="return")
    small = layers * (tokens * MODEL_TOKEN * MODEL_HEADS / heads + MODEL_PADDING)
    return frame(shown.data, round(max(MODEL_TOP + small, DETAIL_TOP + tokens * DETAIL_TOKEN)))


def neuron_view(attention: Attention) -> str:
    """Return a frame with one head's queries and keys, number by number: how an attention comes about."""
    from bertviz import neuron_view as view

    played = _Played(attention)
    shown = view.show(played, "bert", played, "text", display_mode="light", html_action="return")
    return frame(shown.data, NEURON_TOP + NEURON_TOKEN * len(attention.tokens))


def frame(drawing: str, height: int) -> str:
    """Return an <iframe> with BertViz's HTML in it, made whole; `height` in pixels."""
    drawing = re.sub(r'<script src="[^"]*"></script>', "", drawing)  # require.js
    assets = resources.files("experiments.attention") / "assets"
    scripts = ""
    for name, digest in LIBRARIES.items():
        script = (assets / name).read_bytes()
        if hashlib.sha256(script).hexdigest() != digest:
            raise UserError(
                f"{assets / name} is not the file that was published. Get it again: "
                "git checkout src/experiments/attention"
            )
        scripts += f"<script>{script.decode()}</script>"
    scripts += f"<script>{REQUIRE}</script>"
    page = (
        f'<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'{scripts}<body style="background: white">{drawing}'
    )
    return (
        f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(page)}" '
        f'style="width: 100%; height: {height}px; border: 0; resize: vertical"></iframe>'
    )


def _weights(attention: Attention) -> list[Any]:
    """Return what BertViz takes, [1, heads, n, n] for each layer."""
    return [layer[None] for layer in attention.weights.double().round(decimals=DECIMALS)]


class _Played:
    """A network and its tokenizer, as the neuron view calls them, that play back what was recorded.

    The view's own copy of BERT knows neither today's Transformers nor our weights.
    """

    def __init__(self, attention: Attention) -> None:
        self.attention = attention
        self.cls_token, self.sep_token = attention.tokens[0], attention.tokens[-1]

    def eval(self) -> None:
        """Do nothing: there is no dropout here."""

    def tokenize(self, _text: str) -> list[str]:
        """Return the tokens between the first and the last, which the view adds itself."""
        return self.attention.tokens[1:-1]

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        """Return some numbers: nothing is computed from them."""
        return [0] * len(tokens)

    def __call__(self, _ids: Any) -> tuple[list[dict[str, Any]]]:
        """Return each layer's attention, queries and keys, with the one text as the first dimension."""
        whole = self.attention
        recorded = {"attn": whole.weights, "queries": whole.queries, "keys": whole.keys}
        short = {name: values.double().round(decimals=DECIMALS) for name, values in recorded.items()}
        layers = range(len(whole.weights))
        return ([{name: values[layer][None] for name, values in short.items()} for layer in layers],)


def heat_maps(scores: Sequence[Scores]) -> Figure:
    """Draw each pattern's scores, layers by heads; with two networks a row for each, and their difference.

    The networks share a pattern's colours, so that they compare.
    """
    patterns, names = list(scores[0].heads), [each.name for each in scores]
    if len(scores) == 2:
        names.append("difference")
    size = (PANEL[0] * len(patterns), PANEL[1] * len(names))
    figure, axes = plt.subplots(len(names), len(patterns), figsize=size, layout="constrained", squeeze=False)
    for column, pattern in enumerate(patterns):
        values = [each.heads[pattern] for each in scores]
        highest = max(float(each.max()) for each in values)
        drawn = [(each, 0.0, highest, "viridis") for each in values]
        if len(scores) == 2:
            change = values[1] - values[0]
            most = max(float(change.abs().max()), 1e-6)  # no change at all is drawn, too
            drawn.append((change, -most, most, "RdBu_r"))
        for panel, (shown, low, high, colours) in zip(axes[:, column], drawn, strict=True):
            image = panel.imshow(shown.numpy(), cmap=colours, vmin=low, vmax=high, aspect="auto")
            figure.colorbar(image, ax=panel)
        axes[0][column].set_title(pattern)
        axes[-1][column].set_xlabel("head")
    for panel, name in zip(axes[:, 0], names, strict=True):
        short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
        panel.set_ylabel(f"{short}\nlayer", fontsize="small")
    plt.close(figure)
    return figure


def matrices(attention: Attention, heads: Mapping[str, tuple[int, int]]) -> Figure:
    """Draw what single heads attend to in one text, rows to columns; `heads` are (layer, head) by title."""
    figure, axes = plt.subplots(
        1, len(heads), figsize=(MATRIX * len(heads), MATRIX + TITLE), layout="constrained", squeeze=False
    )
    tokens = range(len(attention.tokens))
    for panel, (title, (layer, head)) in zip(axes[0], heads.items(), strict=True):
        panel.imshow(attention.weights[layer, head].numpy(), cmap="Blues", vmin=0, vmax=1)
        panel.set_title(f"{title}: layer {layer}, head {head}", fontsize="small")
        panel.set_xticks(tokens, attention.tokens, rotation=90, fontsize="x-small")
        panel.set_yticks(tokens, attention.tokens, fontsize="x-small")
    plt.close(figure)
    return figure
