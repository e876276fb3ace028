"""Captions of any pictures by a run's best checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trainlab.captions.dataset import crop
from trainlab.captions.model import CaptionsModel
from trainlab.errors import UserError
from trainlab.runs.checkpoint import CheckpointError
from trainlab.training.restoring import best_of, restore, trained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    Pixels = NDArray[np.uint8]
    Images = str | Path | Pixels | Sequence[str | Path | Pixels]

AT_ONCE = 64  # pictures in one pass
# What a checkpoint may ask for that its weights don't show: pixels a side, words a caption, captions at once
MOST = {"side": 4096, "crop": 4096, "max_words": 1000, "beam": 1000}


def caption(run: str | Path, images: Images, beam: int | None = None) -> list[str]:
    """Return a caption for each picture: paths, or arrays [H, W, 3] of bytes.

    `run` is whatever `trainlab.runs.find` understands. Pictures are made the size that the network was
    trained with. `beam` captions are pursued at once; 1 is greedy, without it the run's own setting holds.
    Raises UserError for an unknown run, one of another experiment or without a checkpoint yet, and a
    picture that can't be read.
    """
    path = best_of(trained(run, "captions"), "captions")
    model = restore(CaptionsModel, path)
    for name, most in MOST.items():
        if not 1 <= model.hparams[name] <= most:
            raise CheckpointError(
                f"{path} asks for {name}={model.hparams[name]}. Expected 1 to {most}. Choose another run."
            )
    return say(model, images, beam)


def say(model: CaptionsModel, images: Images, beam: int | None = None) -> list[str]:
    """Return what a network writes about each picture (see `caption`)."""
    if beam is not None and beam < 1:
        raise UserError(f"beam={beam}: expected 1 or more.")
    side, shown = model.hparams["side"], model.hparams["crop"]
    single = isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim == 3)
    listed: Sequence[Any] = [images] if single else images  # type: ignore[assignment]
    pictures = [crop(_pixels(each, side), shown, random=False) for each in listed]
    if not pictures:
        raise UserError("No picture to caption. Expected a path or an array, or several of them.")
    parts = torch.stack(pictures).split(AT_ONCE)
    return [text for part in parts for text in model.caption(part, beam)]


def _pixels(picture: str | Path | Pixels, side: int) -> Tensor:
    """Return a picture [3, side, side] in bytes."""
    from PIL import Image

    image = _from_array(picture) if isinstance(picture, np.ndarray) else _from_file(Path(picture))
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _from_array(pixels: Pixels) -> Image:
    from PIL import Image

    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise UserError(
            f"A picture of shape {list(pixels.shape)} and type {pixels.dtype}: expected [H, W, 3] of uint8."
        )
    return Image.fromarray(pixels)


def _from_file(path: Path) -> Image:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} can't be read as a picture: {error}") from None
