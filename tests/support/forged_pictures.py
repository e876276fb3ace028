"""Pictures that are not what their headers say."""

from __future__ import annotations

import struct
import zlib


def png_that_claims(width: int, height: int, content: bytes = b"") -> bytes:
    """Return a PNG with a header that a small file cannot keep."""

    def chunk(kind: bytes, held: bytes) -> bytes:
        return struct.pack(">I", len(held)) + kind + held + struct.pack(">I", zlib.crc32(kind + held))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", content) + chunk(b"IEND", b"")
