"""Pictures with captions, in three sides: to learn from, to choose by, and to be measured by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlab.captions.vocabulary import words_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from trainlab.captions.config import CaptionsConfig

NAMED = 5  # pictures left out that are listed; the rest are counted


@dataclass(frozen=True)
class Corpus:
    """`pictures` [N, H, W, 3] in bytes, each with one caption or more, and which rows are of which side.

    A network sees `crop` times `crop` pixels: another part of the picture each time in training, its middle
    elsewhere. Rows with equal `keys` show the same; no two sides share a key. `left_out` says what could
    not be used, and why.
    """

    name: str
    pictures: NDArray[np.uint8]
    captions: Sequence[Sequence[str]]
    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    crop: int
    keys: Sequence[str]
    left_out: Sequence[str] = field(default_factory=tuple)
    frozen: Path | None = None

    def texts(self, row: int) -> list[str]:
        """Return a picture's captions as they are compared: lower case, single blanks, no punctuation."""
        return [" ".join(words_of(caption)) for caption in self.captions[row]]

    def training_captions(self) -> list[str]:
        """Return all captions that there are to learn from."""
        return [caption for row in self.training for caption in self.captions[row]]

    @cached_property
    def sha256(self) -> str:
        """The digest of pictures and captions."""
        digest = hashlib.sha256(np.ascontiguousarray(self.pictures).data)
        digest.update(repr([list(each) for each in self.captions]).encode())
        return digest.hexdigest()

    def fingerprint(self) -> dict[str, Any]:
        """Return what `run.json` keeps of the data."""
        sides = {name: len(getattr(self, name)) for name in ("training", "validation", "test")}
        said = {"name": self.name, **sides, "sha256": self.sha256, "left_out": len(self.left_out)}
        return said | ({"path": str(self.frozen)} if self.frozen else {})

    def summary(self) -> str:
        """Return a few lines for people: how much there is, and what was left out."""
        side = self.pictures.shape[1]
        unseen = "in scenes never trained on" if self.name == "shapes" else "held out"
        lines = [
            f"{self.name}: {len(self.training):,} pictures of {side} x {side} to learn from; {unseen}: "
            f"{len(self.validation):,} to choose by, {len(self.test):,} to be measured by"
        ]
        if self.frozen:
            lines.append(f"  frozen: {self.frozen}")
        if self.left_out:
            more = " ..." if len(self.left_out) > NAMED else ""
            lines.append(f"  left out: {len(self.left_out):,} ({', '.join(self.left_out[:NAMED])}{more})")
        return "\n".join(lines)


def draw(config: CaptionsConfig) -> Corpus:
    """Return the pictures and captions of these settings.

    Raises UserError for data=coco that is not frozen, or frozen by other settings.
    """
    from trainlab.captions import frozen, shapes

    return shapes.corpus(config) if config.data == "shapes" else frozen.thaw(config)
