"""Pictures with captions, in three sides: to learn from, to choose by, and to be measured by."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from experiments.captions import coco
from experiments.captions.config import CaptionsConfig
from trainlab.errors import some

SIDE = 64  # pixels
COLOURS = {
    "red": (220, 50, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (230, 200, 40),
    "purple": (150, 60, 180),
}
SHAPES = ("circle", "square", "triangle")
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}  # (x, y), y downwards
BACKGROUND = 240
SMALL, LARGE = (7.0, 9.0), (12.0, 15.0)  # radii, from and to
APART = (1.25, 1.6)  # between the centres, in sums of both radii
TILT = 0.4  # radians off the straight line, at most: left of stays left of
MARGIN = 1.2  # in radii: no shape touches the edge
MEASURED = 400  # pictures that validation, or the test, looks at
PAD, START, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


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
    cache: Path | None = None

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
        known = {"name": self.name, **sides, "sha256": self.sha256, "left_out": len(self.left_out)}
        return known | ({"path": str(self.cache)} if self.cache else {})

    def summary(self) -> str:
        """Return a few lines for people: how much there is, and what was left out."""
        side = self.pictures.shape[1]
        unseen = "in scenes never trained on" if self.name == "shapes" else "held out"
        lines = [
            f"{self.name}: {len(self.training):,} pictures of {side} x {side} to learn from; {unseen}: "
            f"{len(self.validation):,} to choose by, {len(self.test):,} to be measured by"
        ]
        if self.cache:
            lines.append(f"  prepared: {self.cache}")
        if self.left_out:
            lines.append(f"  left out: {len(self.left_out):,} ({some(self.left_out)})")
        return "\n".join(lines)


def draw_corpus(config: CaptionsConfig) -> Corpus:
    """Return the pictures and captions of these settings.

    Raises UserError for data=coco that is not prepared, or prepared with other settings.
    """
    if config.data == "shapes":
        return draw_shapes(config)
    pixels, pictures, left_out = coco.load(config)
    return Corpus(
        "coco",
        pixels,
        [each.captions for each in pictures],
        **{side: np.flatnonzero([each.side == side for each in pictures]) for side in coco.SIDES},
        crop=coco.CROP,
        keys=[each.file for each in pictures],
        left_out=left_out,
        cache=coco.cache_folder(),
    )


def preflight(config: CaptionsConfig) -> None:
    """Check the data, the device and the encoder, within seconds and before a run exists.

    Raises UserError that says what was found, what was expected, and what to do.
    """
    if config.data == "coco":
        coco.load(config)
    config.check_machine()


class Scene(NamedTuple):
    """What a picture shows."""

    small_colour: str
    small_shape: str
    relation: str
    large_colour: str
    large_shape: str

    @property
    def caption(self) -> str:
        """The sentence that says all of it."""
        return (
            f"a small {self.small_colour} {self.small_shape} {self.relation} "
            f"a large {self.large_colour} {self.large_shape}"
        )


def scenes() -> list[Scene]:
    """Return all 900 scenes, always in the same order."""
    return [Scene(*each) for each in product(COLOURS, SHAPES, RELATIONS, COLOURS, SHAPES)]


def split_scenes(validation: float, test: float, seed: int) -> tuple[list[Scene], list[Scene], list[Scene]]:
    """Return the scenes of training, of validation and of the test; each scene is in one of them."""
    everything = scenes()
    order = np.random.default_rng(seed).permutation(len(everything))
    held = max(1, round(len(order) * validation)), max(1, round(len(order) * test))
    parts = np.split(order, np.cumsum(held))
    validated, tested, trained = ([everything[index] for index in part] for part in parts)
    return trained, validated, tested


def draw_shapes(config: CaptionsConfig) -> Corpus:
    """Draw the pictures of all three sides; the same settings give the same bytes."""
    counts = (config.pictures, MEASURED, MEASURED)
    shown: list[Scene] = []
    for side, count in zip(split_scenes(config.validation, config.test, config.seed), counts, strict=True):
        shown += (side * -(-count // len(side)))[:count]
    pictures = np.stack([draw_scene(scene, (config.seed, index)) for index, scene in enumerate(shown)])
    training, validation, test = np.split(np.arange(len(shown)), np.cumsum(counts)[:-1])
    keys = [scene.caption for scene in shown]
    return Corpus("shapes", pictures, [[key] for key in keys], training, validation, test, SIDE, keys)


def draw_scene(scene: Scene, seed: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw a scene [SIDE, SIDE, 3]; where and how large the shapes are comes from the seed."""
    rng = np.random.default_rng(seed)
    small, large = rng.uniform(*SMALL), rng.uniform(*LARGE)
    x, y = RELATIONS[scene.relation]
    while True:  # until both lie whole in the picture
        far = rng.uniform(large * MARGIN, SIDE - large * MARGIN, 2)
        angle, distance = rng.uniform(-TILT, TILT), rng.uniform(*APART) * (small + large)
        turned = np.array([x * np.cos(angle) - y * np.sin(angle), y * np.cos(angle) + x * np.sin(angle)])
        near = far + distance * turned
        if near.min() > small * MARGIN and near.max() < SIDE - small * MARGIN:
            break
    picture = np.full((SIDE, SIDE, 3), BACKGROUND, np.uint8)
    picture[_inside(scene.large_shape, far, large)] = COLOURS[scene.large_colour]
    picture[_inside(scene.small_shape, near, small)] = COLOURS[scene.small_colour]
    return picture


def _inside(shape: str, centre: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    """Return the pixels [SIDE, SIDE] of a shape."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    x, y = columns - centre[0], rows - centre[1]
    if shape == "circle":
        return x**2 + y**2 <= radius**2
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.89 * radius
    return (y <= 0.8 * radius) & (abs(x) <= 0.6 * (y + 1.2 * radius))


def words_of(caption: str) -> list[str]:
    """Return a caption's words in lower case, without punctuation."""
    return _WORD.findall(caption.lower())


@dataclass(frozen=True)
class Vocabulary:
    """All words that a network knows, the four special ones first; a word's number is its index."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, captions: Iterable[str], min_count: int) -> Self:
        """Return the words that occur at least `min_count` times, the most frequent first."""
        counts = Counter(word for caption in captions for word in words_of(caption))
        kept = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        return cls((*SPECIAL, *(word for _, word in kept)))

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Each word's number."""
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, caption: str, max_words: int) -> list[int]:
        """Return start, the numbers of at most `max_words` words, end."""
        words = words_of(caption)[:max_words]
        return [START, *(self.numbers.get(word, UNKNOWN) for word in words), END]

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the words up to the first end, without start and padding."""
        words = []
        for number in numbers:
            if number == END:
                break
            if number not in (PAD, START):
                words.append(self.words[number])
        return " ".join(words)
