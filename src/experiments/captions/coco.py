"""COCO 2017 as the chapter uses it: four categories, the largest pictures of each, 256 x 256 pixels.

data/coco/annotations/{instances,captions}_train2017.json
data/coco/train2017/000000000009.jpg ...
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.captions.data import words_of
from trainlab import paths as folders
from trainlab.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from experiments.captions.config import CaptionsConfig
    from trainlab.files import Report

CATEGORIES = (4, 5, 22, 43)  # motorcycle, airplane, elephant, tennis racket: the chapter's
SIDE, CROP = 256, 224  # pixels: of a picture, and of what a network sees of it
INSTANCES, CAPTIONS, PICTURES = "instances_train2017.json", "captions_train2017.json", "train2017"
FETCH = "trainlab data fetch coco && trainlab data freeze captions"
SIDES = ("validation", "test", "training")


@dataclass(frozen=True)
class Picture:
    """A picture that was chosen: its number and file in COCO, its captions, and the side it is on."""

    number: int
    file: str
    captions: list[str]
    side: str


def folder() -> Path:
    """Return where `trainlab data fetch coco` puts COCO."""
    return folders.data() / "coco"


def raw_files() -> list[Path]:
    """Return the annotations that are here."""
    paths = [folder() / "annotations" / name for name in (INSTANCES, CAPTIONS)]
    return [path for path in paths if path.is_file()]


def prepare(config: CaptionsConfig, target: Path, report: Report) -> None:
    """Write `pictures.bin`, [N, SIDE, SIDE, 3] in bytes, and `captions.json`, which lists them in this order.

    A picture that is missing or unreadable, or has no caption, is left out; `captions.json` names it.
    Raises UserError when COCO is not here or is not what it should be, or a side would be empty.
    """
    chosen, left_out = _choose(config)
    kept = []
    with (target / "pictures.bin").open("wb") as file:
        for done, picture in enumerate(chosen, 1):
            pixels = _read(folder() / PICTURES / picture.file)
            if isinstance(pixels, str):
                left_out.append(f"{picture.file}: {pixels}")
            else:
                file.write(pixels.tobytes())
                kept.append(picture)
            report("reading pictures", done, len(chosen))
    _refuse_empty(kept, left_out)
    said = {"pictures": [vars(each) for each in kept], "left_out": left_out}
    (target / "captions.json").write_text(json.dumps(said, indent=0))


def load(made: Path) -> tuple[NDArray[np.uint8], list[Picture], list[str]]:
    """Return what `prepare` wrote: pixels [N, SIDE, SIDE, 3], the pictures, and what was left out."""
    said = json.loads((made / "captions.json").read_text())
    pictures = [Picture(**each) for each in said["pictures"]]
    shape = (len(pictures), SIDE, SIDE, 3)
    return np.memmap(made / "pictures.bin", np.uint8, "r", shape=shape), pictures, said["left_out"]


def side_of(number: int, validation: float, test: float) -> str:
    """Return the side that a picture is on: by its number alone, so that it stays there under any seed."""
    place = int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:8], "big") / 2**64
    if place < validation:
        return "validation"
    return "test" if place < validation + test else "training"


def _choose(config: CaptionsConfig) -> tuple[list[Picture], list[str]]:
    """Return the pictures with the largest objects of each category, and what is left out of them."""
    instances, captions = _json(INSTANCES), _json(CAPTIONS)
    files = {each["id"]: each["file_name"] for each in instances["images"]}
    texts = defaultdict(list)
    for each in captions["annotations"]:
        if words_of(each["caption"]):
            texts[each["image_id"]].append(each["caption"].strip())
    numbers = _largest(instances["annotations"], config.per_category)
    left_out = [f"{files[number]}: no caption" for number in numbers if not texts[number]]
    chosen = [
        Picture(number, files[number], texts[number], side_of(number, config.validation, config.test))
        for number in numbers
        if texts[number]
    ]
    return chosen, left_out


def _largest(annotations: list[dict[str, Any]], count: int) -> list[int]:
    """Return the numbers of the `count` pictures of each category whose largest single object is largest.

    Areas are in pixels, as annotated. Crowds don't count. A picture that two categories choose comes once.
    """
    areas: dict[int, dict[int, float]] = {category: defaultdict(float) for category in CATEGORIES}
    for each in annotations:
        if each["category_id"] in areas and not each["iscrowd"]:
            of_category = areas[each["category_id"]]
            of_category[each["image_id"]] = max(of_category[each["image_id"]], each["area"])
    largest = [sorted(found, key=lambda number: (-found[number], number)) for found in areas.values()]
    return sorted({number for numbers in largest for number in numbers[:count]})


def _json(name: str) -> dict[str, Any]:
    path = folder() / "annotations" / name
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is not here. Get COCO (19.6 GB): {FETCH}") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}. Look at it, or: trainlab data verify coco") from None


def _read(path: Path) -> NDArray[np.uint8] | str:
    """Return a picture's pixels [SIDE, SIDE, 3], or why there are none."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError, Image.DecompressionBombError):
        return "unreadable"


def _refuse_empty(kept: list[Picture], left_out: list[str]) -> None:
    counts = {side: sum(each.side == side for each in kept) for side in SIDES}
    if not all(counts.values()):
        found = ", ".join(f"{side} {count}" for side, count in counts.items())
        raise UserError(
            f"{folder()}: too few pictures: {found}; {len(left_out)} left out. Expected one on each side: "
            "raise per_category, or the shares validation and test."
        )
