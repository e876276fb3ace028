"""A run of captions becomes two networks that write what its own network writes, at every beam."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from experiments.captions.config import CaptionsConfig
from experiments.captions.export import recipe
from experiments.captions.train import Result, say, train
from trainlab.serving import bundle
from trainlab.serving.export import export
from trainlab.serving.pictures import Pictures

pytest.importorskip("onnxscript")


@pytest.fixture
def trained(tiny: CaptionsConfig) -> Result:
    return train(tiny.model_copy(update={"epochs": 1, "grid": 1}))


def test_the_bundle_captions_pictures_of_any_size_as_the_network_does(trained: Result) -> None:
    made = export(trained.run, recipe(trained.run))
    assert {name: value for name, value in made.figures.items() if name.startswith("other_captions")} == {
        f"other_captions_beam_{beam}_{name}": 0 for beam in (1, 3, 5) for name in ("alone", "in_batches")
    }
    writer = Pictures(bundle.read(made.folder))
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    pixels = writer.pixels(Image.fromarray(picture))
    for beam in (1, 3):
        assert writer.caption(pixels[None], beam) == say(trained.model, picture, beam)
