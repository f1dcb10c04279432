"""A vector as it is kept: half precision with its length, scaled so that no number is lost.

Layout, little-endian: two letters, version, encoding, dimensions, length (64-bit float), checksum of all
that but the letters, then two bytes a dimension.
"""

from __future__ import annotations

import struct
from math import hypot, isfinite, sqrt
from zlib import crc32

from firsttoken.embedding import pack, unpack

_HEAD = struct.Struct("<2sBBId")
_CHECK = struct.Struct("<I")
_MAGIC = b"FV"
_VERSION = 1
_FLOAT16 = 1
_BODY = _HEAD.size + _CHECK.size


def encode(vector: bytes) -> bytes:
    """Return what is kept of a vector of 32-bit floats: nothing where one of them is not a number."""
    values = unpack(vector)
    length, count = hypot(*values), len(values)
    if not isfinite(length):
        return b""
    # Numbers of about 1 lie where half precision is best; none is larger than the root of their count.
    scale = sqrt(count) / length if length else 0.0
    head = _HEAD.pack(_MAGIC, _VERSION, _FLOAT16, count, length)
    body = struct.pack(f"<{count}e", *[value * scale for value in values])
    return head + _CHECK.pack(crc32(body, crc32(head))) + body


def decode(kept: bytes) -> bytes | None:
    """Return the vector, of the length that it had; None for anything else than what `encode` returns."""
    if len(kept) < _BODY:
        return None
    magic, version, encoding, count, length = _HEAD.unpack_from(kept)
    if (magic, version, encoding, len(kept)) != (_MAGIC, _VERSION, _FLOAT16, _BODY + 2 * count):
        return None
    body = kept[_BODY:]
    if _CHECK.unpack_from(kept, _HEAD.size)[0] != crc32(body, crc32(kept[: _HEAD.size])):
        return None
    values = struct.unpack(f"<{count}e", body)
    rounded = hypot(*values)
    scale = length / rounded if rounded else 0.0
    return pack([value * scale for value in values])
