"""Pictures of two coloured shapes, drawn on the spot, and captions that are true of them.

One shape is small and the other large, so that a picture has one caption only: "a small red circle left of a
large blue square". What is held out is held out by scene: no picture in training shows the same shapes in the
same colours and relation.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trainlab.captions.corpus import Corpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainlab.captions.config import CaptionsConfig

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


def split(validation: float, test: float, seed: int) -> tuple[list[Scene], list[Scene], list[Scene]]:
    """Return the scenes of training, of validation and of the test; each scene is in one of them."""
    everything = scenes()
    order = np.random.default_rng(seed).permutation(len(everything))
    held = max(1, round(len(order) * validation)), max(1, round(len(order) * test))
    parts = np.split(order, np.cumsum(held))
    found = [[everything[place] for place in part] for part in parts]
    return found[2], found[0], found[1]


def corpus(config: CaptionsConfig) -> Corpus:
    """Draw the pictures of all three sides; the same settings give the same bytes."""
    sides = split(config.validation, config.test, config.seed)
    counts = (config.pictures, MEASURED, MEASURED)
    shown = [
        scene
        for side, count in zip(sides, counts, strict=True)
        for scene in (side * -(-count // len(side)))[:count]
    ]
    pictures = np.stack([draw(scene, (config.seed, place)) for place, scene in enumerate(shown)])
    training, validation, test = np.split(np.arange(len(shown)), np.cumsum(counts)[:-1])
    captions = [[scene.caption] for scene in shown]
    return Corpus(
        "shapes", pictures, captions, training, validation, test, SIDE, [scene.caption for scene in shown]
    )


def draw(scene: Scene, seed: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw a scene [SIDE, SIDE, 3]; where and how large the shapes are comes from the seed."""
    rng = np.random.default_rng(seed)
    small, large = rng.uniform(*SMALL), rng.uniform(*LARGE)
    near, far = _centres(scene.relation, small, large, rng)
    picture = np.full((SIDE, SIDE, 3), BACKGROUND, np.uint8)
    picture[_inside(scene.large_shape, far, large)] = COLOURS[scene.large_colour]
    picture[_inside(scene.small_shape, near, small)] = COLOURS[scene.small_colour]
    return picture


def _centres(
    relation: str, small: float, large: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the small shape and the large one lie, (x, y) each, both whole in the picture."""
    while True:
        far = rng.uniform(large * MARGIN, SIDE - large * MARGIN, 2)
        angle, distance = rng.uniform(-TILT, TILT), rng.uniform(*APART) * (small + large)
        x, y = RELATIONS[relation]
        turned = np.array([x * np.cos(angle) - y * np.sin(angle), y * np.cos(angle) + x * np.sin(angle)])
        near = far + distance * turned
        if near.min() > small * MARGIN and near.max() < SIDE - small * MARGIN:
            return near, far


def _inside(shape: str, centre: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    """Return the pixels [SIDE, SIDE] of a shape."""
    x, y = _grid()[0] - centre[0], _grid()[1] - centre[1]
    if shape == "circle":
        return x**2 + y**2 <= radius**2
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.89 * radius
    return (y <= 0.8 * radius) & (abs(x) <= 0.6 * (y + 1.2 * radius))


@cache
def _grid() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    y, x = np.mgrid[:SIDE, :SIDE]
    return x, y
