"""Writes captions by a bundle's two networks, greedily or by beams, in NumPy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trainlab.errors import UserError
from trainlab.serving.bundle import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trainlab.serving.bundle import Bundle

    State = tuple[NDArray[np.float32], NDArray[np.float32]]  # hidden and cell, both [N, H]
    Step = Callable[[NDArray[np.int64], State], tuple[NDArray[np.float32], State]]

PICTURE, WORD, WORDS = "picture.onnx", "word.onnx", "words.json"
PIXELS, STATE, NEXT = "pixels", ("hidden", "cell"), ("next_hidden", "next_cell")
LAST, CHANCES = "words", "chances"  # of the second network: the words [N], and what may follow them [N, V]
MOST_SIDE, MOST_WORDS, MOST_BEAM, MOST_LISTED = 4096, 1000, 100, 1_000_000


class PictureSettings(BaseModel):
    """How pictures are read, how captions are written, and which numbers words have that are none."""

    model_config = ConfigDict(extra="forbid")

    side: Annotated[int, Field(ge=1, le=MOST_SIDE)]  # pixels that a picture is made
    crop: Annotated[int, Field(ge=1, le=MOST_SIDE)]  # pixels of its middle that are seen
    max_words: Annotated[int, Field(ge=1, le=MOST_WORDS)]
    beam: Annotated[int, Field(ge=1, le=MOST_BEAM)]
    padding: Annotated[int, Field(ge=0)]
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]


class Written(NamedTuple):
    """Captions as numbers [N, L], from the first word to the end and then padding; log probabilities [N]."""

    words: NDArray[np.int64]
    scores: NDArray[np.float32]


class Pictures:
    """Two networks that write captions, with their words, from a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.settings = bundle.settings(PictureSettings)
        self.words = bundle.json(WORDS)
        listed = isinstance(self.words, list) and all(isinstance(each, str) for each in self.words)
        special = (self.settings.padding, self.settings.start, self.settings.end)
        if not listed or not max(special) < len(self.words) <= MOST_LISTED:
            raise BundleError(f"{bundle.folder / WORDS}: expected a list of words. Export the run again.")
        self._picture, self._word = bundle.session(PICTURE), bundle.session(WORD)

    def pixels(self, picture: Any) -> NDArray[np.uint8]:
        """Return what the network sees of a Pillow picture [3, H, W]: resized, and of that the middle."""
        from PIL import Image

        side, crop = self.settings.side, self.settings.crop
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        if picture.size != (side, side):
            picture = picture.resize((side, side), Image.Resampling.BILINEAR)
        left = (side - crop) // 2
        return np.asarray(picture)[left : left + crop, left : left + crop].transpose(2, 0, 1)

    def caption(self, pixels: NDArray[np.uint8], beam: int | None = None) -> list[str]:
        """Return the captions of pictures [N, 3, H, W]; raise UserError for an impossible `beam`."""
        width = self.settings.beam if beam is None else beam
        if not 1 <= width <= MOST_BEAM:
            raise UserError(f"beam={width}: expected 1 to {MOST_BEAM}.")
        state = tuple(self._picture.run(None, {PIXELS: pixels}))
        settings = self.settings
        found = write(self._step, state, width, settings)
        return [self._text(row.tolist()) for row in found.words]

    def _text(self, numbers: list[int]) -> str:
        """Return the words up to the first end."""
        settings = self.settings
        said = numbers[: numbers.index(settings.end)] if settings.end in numbers else numbers
        return " ".join(self.words[each] for each in said if each not in (settings.padding, settings.start))

    def _step(self, words: NDArray[np.int64], state: State) -> tuple[NDArray[np.float32], State]:
        chances, *following = self._word.run(None, {LAST: words, **dict(zip(STATE, state, strict=True))})
        return chances, tuple(following)


def write(step: Step, state: State, width: int, settings: PictureSettings) -> Written:
    """Write N captions by beams of `width`; 1 takes the likeliest word each time.

    A caption's score is the sum of its words' log probabilities, its end with them. Whether to end after
    `max_words` words is not asked.

    Args:
        step: Returns the log probabilities [N·beams, V] of what follows words [N·beams], and the next state.
        state: What the pictures left in the network, [N, H] each.
        width: How many captions of a picture are pursued at once.
        settings: The most words, and the numbers of padding, start and end.

    Returns:
        The best caption of each picture.
    """
    pictures, limit = len(state[0]), settings.max_words
    rows = np.arange(pictures)[:, None]
    words = np.full((pictures, 1, limit), settings.padding)
    scores = np.zeros((pictures, 1), np.float32)
    last = np.full((pictures, 1), settings.start)
    done = np.zeros((pictures, 1), bool)
    for index in range(limit):
        beams = last.shape[1]
        chances, state = step(last.ravel(), state)
        chances = chances.reshape(pictures, beams, -1)
        # a caption that has ended is followed by padding, at no cost; any other never by padding or start
        going = chances.copy()
        going[..., [settings.padding, settings.start]] = -np.inf
        going[done] = -np.inf
        going[..., settings.padding][done] = 0
        totals = (scores[..., None] + going).reshape(pictures, -1)
        best = np.argsort(-totals, axis=1, kind="stable")[:, :width]
        scores = np.take_along_axis(totals, best, 1)
        parent, last = best // chances.shape[-1], best % chances.shape[-1]
        words, done = words[rows, parent], np.take_along_axis(done, parent, 1)
        words[:, :, index] = last
        done = done | (last == settings.end)
        followed = (rows * beams + parent).ravel()
        state = state[0][followed], state[1][followed]
        if done.all():
            break
    return Written(words[:, 0], scores[:, 0])
