"""Pictures as visitors may send them: other formats, damaged ones, bombs."""

from __future__ import annotations

import base64
import io
import resource
import struct
import zlib

import pytest
from PIL import Image

from forged_pictures import png_that_claims
from trainlab.serving.uploads import PictureError, address, read


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_three_kinds_that_browsers_show_are_read_in_colours(kind: str) -> None:
    found = read(encoded(Image.new("L", (30, 20), 100), kind))
    assert (found.size, found.mode) == ((30, 20), "RGB")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "EPS"])
def test_other_kinds_are_refused_whatever_their_name(kind: str) -> None:
    with pytest.raises(PictureError, match="no PNG, JPEG or WebP"):
        read(encoded(Image.new("RGB", (32, 32)), kind))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(PictureError, match="no PNG, JPEG or WebP"):
        read(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_half_a_picture_is_refused(kind: str) -> None:
    whole = encoded(Image.effect_noise((200, 200), 50).convert("RGB"), kind)
    with pytest.raises(PictureError, match="damaged"):
        read(whole[: len(whole) // 2])


def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header() -> None:
    bomb = png_that_claims(30_000, 30_000, zlib.compress(bytes(110_000_000), 9))
    assert len(bomb) < 115_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PictureError, match="more than 40,000,000 pixels"):
        read(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, "kilobytes"


@pytest.mark.parametrize("side", [14_000, 16_384])
def test_the_same_of_a_webp(side: int) -> None:
    lossless = b"\x2f" + struct.pack("<I", (side - 1) | (side - 1) << 14) + bytes(64)
    content = b"WEBPVP8L" + struct.pack("<I", len(lossless)) + lossless
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PictureError):
        read(b"RIFF" + struct.pack("<I", len(content)) + content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, "kilobytes"


def test_a_text_in_a_png_that_unpacks_to_gigabytes_is_refused() -> None:
    packed = zlib.compress(bytes(100_000_000), 9)
    held = b"zTXt" + b"Comment\x00\x00" + packed
    chunk = struct.pack(">I", len(held) - 4) + held + struct.pack(">I", zlib.crc32(held))
    whole = encoded(Image.new("RGB", (4, 4)), "PNG")
    with pytest.raises(PictureError):
        read(whole[:33] + chunk + whole[33:])


def test_a_photograph_is_turned_upright_and_shown_without_what_the_camera_notes() -> None:
    picture, notes = Image.new("RGB", (800, 1000), "red"), Image.Exif()
    notes[0x0112] = 6  # turned by a quarter
    notes[0x010F] = "My camera"
    found = read(encoded(picture, "JPEG", exif=notes))
    assert found.size == (1000, 800)
    shown = base64.b64decode(address(found).removeprefix("data:image/jpeg;base64,"))
    assert b"My camera" not in shown
    assert Image.open(io.BytesIO(shown)).size == (640, 512)
