"""Few small pictures and a network of a few thousand weights; a COCO of a dozen drawn photographs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.captions import data
from experiments.captions.config import CaptionsConfig

PER_CATEGORY = 4
LARGEST = 1000  # pixels: the area of the largest object


@pytest.fixture(autouse=True)
def few_measured() -> Iterator[None]:
    """Validation and test look at a few pictures only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "MEASURED", 20)
        yield


@pytest.fixture(scope="session")
def tiny() -> CaptionsConfig:
    """Settings that train in seconds."""
    return CaptionsConfig(
        pictures=48, embedding_size=16, hidden_size=16, batch_size=8, epochs=2, num_workers=0
    )


@pytest.fixture
def coco_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `data/coco` in COCO's layout: 24 pictures of the first two categories, five of a fifth one.

    Picture n has an object of 1000 - n pixels; picture 3 is no JPEG, 4 is missing, 5 has no words in its
    captions, and 6 has a crowd only.
    """
    monkeypatch.setenv("TRAINLAB_DATA", str(tmp_path / "data"))
    folder = tmp_path / "data" / "coco"
    (folder / "annotations").mkdir(parents=True)
    (folder / "train2017").mkdir()
    instances, captions = [], []
    for number in range(24):
        category = (4, 5)[number % 2] if number < 19 else 1
        object_ = {"image_id": number, "category_id": category, "area": LARGEST - number}
        instances.append(object_ | {"iscrowd": int(number == 6)})
        texts = [" ", "..."] if number == 5 else [f"A thing, number {number}.", "It is a thing!"]
        captions += [{"image_id": number, "caption": text} for text in texts]
        pixels = np.full((60 + number, 90, 3), 10 * number, np.uint8)
        if number != 4:
            Image.fromarray(pixels).save(folder / "train2017" / f"{number:012}.jpg")
    (folder / "train2017" / f"{3:012}.jpg").write_bytes(b"no JPEG")
    images = [{"id": number, "file_name": f"{number:012}.jpg"} for number in range(24)]
    said = {"images": images, "annotations": instances}
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(said))
    (folder / "annotations" / "captions_train2017.json").write_text(json.dumps({"annotations": captions}))
    return folder
