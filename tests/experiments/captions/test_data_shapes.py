from __future__ import annotations

import numpy as np
import pytest

from experiments.captions.config import CaptionsConfig
from experiments.captions.data import (
    BACKGROUND,
    COLOURS,
    RELATIONS,
    Scene,
    draw_scene,
    draw_shapes,
    scenes,
    split_scenes,
)


def pixels_of(picture: np.ndarray, colour: str) -> np.ndarray:
    """Return the (x, y) of all pixels of a colour."""
    return np.argwhere((picture == COLOURS[colour]).all(-1))[:, ::-1]


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("seed", range(5))
def test_a_caption_is_true_of_its_picture(relation: str, seed: int) -> None:
    scene = Scene("red", "circle", relation, "blue", "square")
    assert scene.caption == f"a small red circle {relation} a large blue square"
    picture = draw_scene(scene, (0, seed))
    small, large = pixels_of(picture, "red"), pixels_of(picture, "blue")
    assert 2 * len(small) < len(large)
    (x, y), (dx, dy) = small.mean(0) - large.mean(0), RELATIONS[relation]
    assert x * dx + y * dy > 2 * abs(x * dy - y * dx), "the direction is plain"
    others = (picture != BACKGROUND).any(-1).sum()
    assert len(small) + len(large) == others, "neither hides the other, and nothing else is there"


def test_shapes_are_told_apart_by_their_outlines() -> None:
    share = {}
    for shape in ("circle", "square", "triangle"):
        found = pixels_of(draw_scene(Scene("red", shape, "above", "blue", "square"), (0, 0)), "red")
        width, height = np.ptp(found, axis=0) + 1
        share[shape] = len(found) / (width * height)
    assert share["triangle"] < 0.65 < share["circle"] < 0.9 < share["square"] == 1


def test_shapes_touch_no_edge() -> None:
    for seed, scene in enumerate(scenes()[::25]):
        picture = draw_scene(scene, (1, seed))
        edges = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (edges == BACKGROUND).all()


def test_the_same_seed_draws_the_same_and_another_draws_others(tiny: CaptionsConfig) -> None:
    once, again = draw_shapes(tiny), draw_shapes(tiny)
    assert once.sha256 == again.sha256
    other = draw_shapes(tiny.model_copy(update={"seed": 1}))
    assert other.sha256 != once.sha256
    more = draw_shapes(tiny.model_copy(update={"pictures": 60}))
    assert np.array_equal(more.pictures[:48], once.pictures[:48]), "a picture depends on seed and place alone"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_two_sides_share_a_scene(seed: int) -> None:
    training, validation, test = map(set, split_scenes(0.1, 0.1, seed))
    assert (len(training), len(validation), len(test)) == (720, 90, 90)
    assert training | validation | test == set(scenes())


def test_pictures_of_no_two_sides_share_a_caption(tiny: CaptionsConfig) -> None:
    corpus = draw_shapes(tiny.model_copy(update={"pictures": 1000}))
    training, validation, test = (
        {corpus.captions[row][0] for row in rows}
        for rows in (corpus.training, corpus.validation, corpus.test)
    )
    assert not training & validation
    assert not training & test
    assert not validation & test
    assert len(training) == 720, "every scene of training is drawn"


def test_every_word_of_the_held_out_scenes_is_in_training(tiny: CaptionsConfig) -> None:
    training, validation, test = split_scenes(tiny.validation, tiny.test, tiny.seed)
    words = {word for scene in training for word in scene.caption.split()}
    assert {word for scene in validation + test for word in scene.caption.split()} <= words
