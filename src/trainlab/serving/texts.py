"""Runs a bundle's network over texts: what the gate measures, and what serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from trainlab import hub
from trainlab.serving.bundle import BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trainlab.serving.bundle import Bundle

NETWORK, TOKENIZER = "text.onnx", "tokenizer.json"
INPUTS = ("ids", "mask")  # both [N, T, L] of 64 bits
AT_ONCE = 32  # items in one pass


class TextSettings(BaseModel):
    """What of an item is read: its title, or its title and abstract; of a review, its text."""

    model_config = ConfigDict(extra="forbid")

    texts: Literal[1, 2] = 1


class Texts:
    """A network over items of one text or two, with its tokenizer, from a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.texts = bundle.settings(TextSettings).texts
        try:
            self.tokenizer = hub.tokenizer(bundle.content[TOKENIZER].decode())
        except Exception as error:  # tokenizers raises Exception itself for a file that is none
            raise BundleError(f"{bundle.folder / TOKENIZER} can't be used: {error}.") from None
        self.session = bundle.session(NETWORK)

    def item(self, title: str, abstract: str = "") -> list[str]:
        """Return the texts of an item; where the network reads abstracts, a missing one is the title."""
        return [title] if self.texts == 1 else [title, abstract or title]

    def run(self, items: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return what the network makes of N items of T texts each [N, D], in one pass."""
        encoded = self.tokenizer.encode_batch(
            [text for item in items for text in item]
        )  # padded to the longest
        shape = (len(items), self.texts, -1)
        ids = np.array([each.ids for each in encoded], np.int64).reshape(shape)
        mask = np.array([each.attention_mask for each in encoded], np.int64).reshape(shape)
        return self.session.run(None, dict(zip(INPUTS, (ids, mask), strict=True)))[0]

    def run_all(self, items: Sequence[Sequence[str]], at_once: int = AT_ONCE) -> NDArray[np.float32]:
        """Return the same for any number of items, so many in one pass, of like length."""
        order = sorted(range(len(items)), key=lambda row: max(map(len, items[row])))
        parts = [order[start : start + at_once] for start in range(0, len(order), at_once)]
        found = np.concatenate([self.run([items[row] for row in part]) for part in parts])
        return found[np.argsort(order, kind="stable")]
