"""COCO 2017 as the chapter uses it: four categories, the largest pictures of each, 256 x 256 pixels.

    data/coco/annotations/{instances,captions}_train2017.json
    data/coco/train2017/000000000009.jpg ...
    data/prepared/coco/     what `trainlab prepare-coco` makes of them once, and runs read

What was prepared serves a run whose settings made it, on a machine without the raw data too; where these are,
they must be what they were. Anything else is refused: nobody trains on other data than they asked for.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlab import paths
from trainlab.errors import UserError
from trainlab.files import digest, need, telling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from experiments.captions.config import CaptionsConfig
    from trainlab.files import Report

CATEGORIES = (4, 5, 22, 43)  # motorcycle, airplane, elephant, tennis racket: the chapter's
SIDE, CROP = 256, 224  # pixels: of a picture, and of what a network sees of it
INSTANCES, CAPTIONS, PICTURES = "instances_train2017.json", "captions_train2017.json", "train2017"
SIDES = ("validation", "test", "training")
KEYS = ("per_category", "validation", "test")  # the settings that make the data
MANIFEST, PIXELS, LIST = "prepared.json", "pictures.bin", "captions.json"
VERSION = 1  # of what `prepare` writes
COMMAND = "trainlab prepare-coco"


@dataclass(frozen=True)
class Picture:
    """A picture that was chosen: its number and file in COCO, its captions, and the side it is on."""

    number: int
    file: str
    captions: list[str]
    side: str


def raw_folder() -> Path:
    """Return where `trainlab data fetch coco` puts COCO."""
    return paths.data() / "coco"


def cache_folder() -> Path:
    """Return the folder of what was prepared."""
    return paths.data() / "prepared" / "coco"


def prepare(config: CaptionsConfig, report: Report = lambda *_: None) -> Path:
    """Read, shrink and cache the pictures and captions of these settings, in place of those cached before.

    A picture that is missing or unreadable, or has no caption, is left out and named in the list. The same
    settings and raw files give the same bytes.

    Args:
        config: `per_category`, `validation` and `test` choose the pictures and their sides.
        report: Called with what is done, how much of it so far, and how much in all.

    Returns:
        The folder: the pixels [N, SIDE, SIDE, 3] in bytes, the list of pictures in their order, a manifest.

    Raises:
        UserError: COCO is not here or not what it should be, a side would be empty, or the disk refuses.
            Nothing half-done stays.
    """
    cache = cache_folder()
    with telling(cache.parent):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".coco-", dir=cache.parent) as temporary:
            made = Path(temporary, "new")
            made.mkdir()
            _write_pictures(config, made, report)
            manifest = _wanted(config) | {"files": {name: digest(made / name) for name in (PIXELS, LIST)}}
            (made / MANIFEST).write_text(json.dumps(manifest, indent=1))
            if cache.exists():
                cache.rename(Path(temporary, "old"))  # a run that has its files open keeps them
            made.rename(cache)
    return cache


def load(config: CaptionsConfig) -> tuple[NDArray[np.uint8], list[Picture], list[str]]:
    """Return what is cached, every byte compared with the manifest's SHA-256.

    Returns:
        The pixels [N, SIDE, SIDE, 3], the pictures in the same order, and what was left out.

    Raises:
        UserError: Nothing is cached, or it was made by other settings or from other raw files, or is damaged.
    """
    cache = cache_folder()
    again = f"{COMMAND} {' '.join(f'{key}={getattr(config, key)}' for key in KEYS)}"
    if not (cache / MANIFEST).is_file():
        raise UserError(
            "data=coco: COCO is not prepared here. It takes a download of 19.6 GB, once: trainlab data fetch "
            f"coco && {COMMAND}\ndata=shapes (the default) needs nothing."
        )
    try:
        found = json.loads((cache / MANIFEST).read_text())
        wanted = _wanted(config)
        pairs = {key: (found["settings"].get(key), value) for key, value in wanted["settings"].items()}
        pairs["layout"] = (found["version"], wanted["version"])
        different = [
            f"{key}: prepared with {old!r}, wanted {new!r}" for key, (old, new) in pairs.items() if old != new
        ]
        for name, raw in wanted["raw"].items():
            if found["raw"].get(name, raw) != raw:
                different.append(f"{name}: changed since")
        if different:
            listed = "\n  ".join(different)
            raise UserError(f"{cache} holds other data than this asks for:\n  {listed}\nAgain: {again}")
        if found["files"] != {name: digest(cache / name) for name in (PIXELS, LIST)}:
            raise ValueError("its files are not those that were written")
        kept = json.loads((cache / LIST).read_text())
        pictures = [Picture(**each) for each in kept["pictures"]]
        pixels = np.memmap(cache / PIXELS, np.uint8, "r", shape=(len(pictures), SIDE, SIDE, 3))
        return pixels, pictures, kept["left_out"]
    except UserError:
        raise
    except Exception as error:  # numpy and json raise a dozen kinds for what an enemy may write
        raise UserError(f"{cache} is damaged: {str(error)[:200]}. Prepare it again: {again}") from None


def side_of(number: int, validation: float, test: float) -> str:
    """Return the side that a picture is on: by its number alone, so that it stays there under any seed."""
    share = int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:8], "big") / 2**64
    if share < validation:
        return "validation"
    return "test" if share < validation + test else "training"


def _wanted(config: CaptionsConfig) -> dict[str, Any]:
    """Return what the manifest says of data made by these settings from the raw files that are here."""
    raw = [raw_folder() / "annotations" / name for name in (INSTANCES, CAPTIONS)]
    return {
        "version": VERSION,
        "settings": {key: getattr(config, key) for key in KEYS},
        "raw": {path.name: digest(path) for path in raw if path.is_file()},
    }


def _write_pictures(config: CaptionsConfig, target: Path, report: Report) -> None:
    chosen, left_out = _choose(config)
    need(target, len(chosen) * SIDE * SIDE * 3)
    kept = []
    with (target / PIXELS).open("wb") as file:
        for done, picture in enumerate(chosen, 1):
            pixels = _read(raw_folder() / PICTURES / picture.file)
            if isinstance(pixels, str):
                left_out.append(f"{picture.file}: {pixels}")
            else:
                file.write(pixels.tobytes())
                kept.append(picture)
            report("reading pictures", done, len(chosen))
    counts = {side: sum(each.side == side for each in kept) for side in SIDES}
    if not all(counts.values()):
        found = ", ".join(f"{side} {count}" for side, count in counts.items())
        raise UserError(
            f"{raw_folder()}: too few pictures: {found}; {len(left_out)} left out. Expected one on each "
            "side: raise per_category, or the shares validation and test."
        )
    listed = {"pictures": [vars(each) for each in kept], "left_out": left_out}
    (target / LIST).write_text(json.dumps(listed, indent=0))


def _choose(config: CaptionsConfig) -> tuple[list[Picture], list[str]]:
    """Return the pictures with the largest objects of each category, and what is left out of them."""
    instances, captions = _json(INSTANCES), _json(CAPTIONS)
    files = {each["id"]: each["file_name"] for each in instances["images"]}
    texts = defaultdict(list)
    for each in captions["annotations"]:
        if any(map(str.isalnum, each["caption"])):
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
    path = raw_folder() / "annotations" / name
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{path} is not here. Get COCO (19.6 GB): trainlab data fetch coco && {COMMAND}"
        ) from None
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
