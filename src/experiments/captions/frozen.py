"""COCO's pictures and captions as `trainlab data freeze captions` packs them; a run reads nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from experiments.captions import coco
from experiments.captions.config import CaptionsConfig
from experiments.captions.data import Corpus
from trainlab import freezing
from trainlab.errors import UserError
from trainlab.files import digest
from trainlab.freezing import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from trainlab.files import Report

KEYS = ("data", "per_category", "validation", "test")


class FrozenConfig(CaptionsConfig):
    """Settings of what is frozen: only COCO is, shapes are drawn on the spot."""

    data: Literal["coco"] = "coco"


CONFIG = FrozenConfig


def recipe(config: CaptionsConfig) -> Recipe:
    """Return what is frozen for these settings; the raw files are COCO's annotations, where they are here."""

    def prepare(folder: Path, report: Report) -> None:
        coco.prepare(config, folder, report)

    raw = {path.name: digest(path) for path in coco.raw_files()}
    return Recipe("captions", config, KEYS, raw, prepare)


def thaw(config: CaptionsConfig) -> Corpus:
    """Return COCO's pictures and captions out of the archive.

    Raises UserError when there is none, or it was frozen from other settings or raw data, or is damaged.
    """
    wanted = recipe(config)
    folder = freezing.thawed(wanted)
    if folder is None:
        raise UserError(
            "data=coco: COCO is not frozen here. It takes a download of 19.6 GB, once: "
            f"{coco.FETCH}\ndata=shapes (the default) needs nothing."
        )
    with freezing.understood(wanted):
        pixels, pictures, left_out = coco.load(folder)
    rows = {
        side: np.array([row for row, each in enumerate(pictures) if each.side == side]) for side in coco.SIDES
    }
    return Corpus(
        "coco",
        pixels,
        [each.captions for each in pictures],
        **rows,
        crop=coco.CROP,
        keys=[each.file for each in pictures],
        left_out=left_out,
        frozen=folder,
    )
