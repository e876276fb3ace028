"""A picture that a visitor sends, as an enemy may have made it."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_PIXELS = 40_000_000  # what a good camera takes; 120 MB in memory, twice that while it is turned
SHOWN = 640  # pixels of the longer side, of the picture that is shown beside its caption
TOO_LARGE = f"The picture has more than {MOST_PIXELS:,} pixels, the most that is read. Make it smaller."


class PictureError(Exception):
    """A file that is no picture, or none that is read here; the text says so."""

    status = 415  # of HTTP


def read(content: bytes) -> Image:
    """Return a picture, upright and in colours.

    Its size is looked at in its header, before memory is taken for it.

    Raises:
        PictureError: It is no PNG, JPEG or WebP, has too many pixels, or is damaged.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                raise PictureError(TOO_LARGE)
            picture.load()
            ImageOps.exif_transpose(picture, in_place=True)
            return picture if picture.mode == "RGB" else picture.convert("RGB")
    except PictureError:
        raise
    except Image.DecompressionBombError:  # Pillow's own limit is higher, and looked at first
        raise PictureError(TOO_LARGE) from None
    except Exception:  # Pillow has a dozen kinds, for files that are damaged or try something
        raise PictureError("This is no PNG, JPEG or WebP picture, or a damaged one.") from None


def address(picture: Image) -> str:
    """Return a picture as an address that holds it, small, and without what a camera notes of its owner."""
    from PIL import ImageOps

    small = ImageOps.contain(picture, (SHOWN, SHOWN)) if max(picture.size) > SHOWN else picture
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
