"""BertViz's views as pages that hold all they need: nothing is loaded from anywhere, JupyterLab or not.

BertViz writes HTML that has a browser fetch require.js, and that d3 and jQuery, from a CDN. Here each view
stands in a frame of its own with the two libraries inlined; a policy in the page forbids every request, and
the frame's sandbox keeps the page away from JupyterLab around it.
"""

from __future__ import annotations

import hashlib
import html
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from trainlab.errors import UserError

if TYPE_CHECKING:
    from trainlab.attention.capture import Attention

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
    scripts = "".join(f"<script>{script}</script>" for script in (*_libraries(), REQUIRE))
    page = (
        f'<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'{scripts}<body style="background: white">{drawing}'
    )
    return (
        f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(page)}" '
        f'style="width: 100%; height: {height}px; border: 0; resize: vertical"></iframe>'
    )


def _libraries() -> list[str]:
    assets = resources.files("trainlab.attention") / "assets"
    scripts = {name: (assets / name).read_bytes() for name in LIBRARIES}
    for name, script in scripts.items():
        if hashlib.sha256(script).hexdigest() != LIBRARIES[name]:
            raise UserError(
                f"{assets / name} is not the file that was published. Get it again: "
                "git checkout src/trainlab/attention"
            )
    return [script.decode() for script in scripts.values()]


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
        recorded = {
            name: values.double().round(decimals=DECIMALS)
            for name, values in (
                ("attn", self.attention.weights),
                ("queries", self.attention.queries),
                ("keys", self.attention.keys),
            )
        }
        layers = len(self.attention.weights)
        return (
            [{name: values[layer][None] for name, values in recorded.items()} for layer in range(layers)],
        )
