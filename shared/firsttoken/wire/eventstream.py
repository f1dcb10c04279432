"""``application/vnd.amazon.eventstream`` as bytes: frames with headers and two checksums, read and written.

Source: "Amazon Event Stream Specification" of Smithy. All numbers are big-endian; both checksums are CRC-32::

    length of the frame (4) | length of the headers (4) | checksum of these 8 bytes (4)
    headers | payload | checksum of everything before (4)
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct as Packer
from zlib import crc32

from msgspec import Struct

from firsttoken.errors import UpstreamProtocolError

MAX_FRAME_BYTES = 24 * 1024 * 1024
"""What AWS's own clients take."""
MAX_HEADER_BYTES = 128 * 1024
_PRELUDE = Packer(">III")
_LENGTHS = Packer(">II")
_CRC = Packer(">I")
_OVERHEAD = _PRELUDE.size + _CRC.size
_CACHED = 256
"""Frames of one stream have few different headers, and most of those written are short."""
_STRING = 7
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by its type: true, false, byte, short, integer, long, timestamp, uuid."""
_COUNTED = (6, _STRING)
"""Byte array and string: two bytes of length come first."""


class Frame(Struct, frozen=True, gc=False):
    """One frame: the headers whose values are strings, the payload, and the frame as it came."""

    headers: Mapping[str, str]
    payload: bytes
    raw: bytes


class FrameReader:
    """Cuts a stream into frames and checks both checksums of each.

    Memory: one incomplete frame, at most `MAX_FRAME_BYTES`. Time: linear in the bytes, however they are cut.
    """

    def __init__(self) -> None:
        self.failure: UpstreamProtocolError | None = None
        """Why nothing more can be read: the frames before it are good."""
        self._pieces: list[bytes] = []
        self._size = 0
        self._needed = _PRELUDE.size
        self._known: dict[bytes, Mapping[str, str]] = {}

    @property
    def inside(self) -> bool:
        """Whether the stream so far ends inside of a frame."""
        return self._size > 0

    def feed(self, received: bytes) -> list[Frame]:
        """Return the frames that are complete now. A broken one sets ``failure`` and ends the list."""
        if self.failure:
            return []
        self._size += len(received)
        if self._size < self._needed:
            self._pieces.append(received)
            return []
        data = b"".join([*self._pieces, received]) if self._pieces else received
        frames: list[Frame] = []
        start = 0
        try:
            while frame := self._next(data, start):
                frames.append(frame)
                start += len(frame.raw)
        except UpstreamProtocolError as failure:
            self.failure = failure
        self._size = len(data) - start
        self._pieces = [data[start:]] if self._size else []
        return frames

    def _next(self, data: bytes, start: int) -> Frame | None:
        """Return the frame at ``start``, or None and know how many bytes it needs."""
        left = len(data) - start
        self._needed = _PRELUDE.size
        if left < _PRELUDE.size:
            return None
        size, header_size, checksum = _PRELUDE.unpack_from(data, start)
        if crc32(data[start : start + 8]) != checksum:
            raise UpstreamProtocolError("A frame of the target's stream has a wrong checksum (prelude).")
        if not _OVERHEAD + header_size <= size <= MAX_FRAME_BYTES or header_size > MAX_HEADER_BYTES:
            raise UpstreamProtocolError(f"A frame of the target's stream has impossible lengths ({size}).")
        if left < size:
            self._needed = size
            return None
        raw = data if left == size and not start else data[start : start + size]
        if crc32(raw[:-4]) != _CRC.unpack_from(raw, size - 4)[0]:
            raise UpstreamProtocolError("A frame of the target's stream has a wrong checksum.")
        end = _PRELUDE.size + header_size
        return Frame(self._headers(raw[_PRELUDE.size : end]), raw[end:-4], raw)

    def _headers(self, data: bytes) -> Mapping[str, str]:
        known = self._known.get(data)
        if known is None:
            known = read_headers(data)
            if len(self._known) < _CACHED:
                self._known[data] = known
        return known


def read_headers(data: bytes) -> dict[str, str]:
    """Return the headers whose values are strings. Raises UpstreamProtocolError for those that are broken."""
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name, kind = data[at + 1 : name_end].decode(), data[name_end]
            at = name_end + 1
            size = _FIXED.get(kind, 0)
            if kind in _COUNTED:
                size = int.from_bytes((data[at], data[at + 1]))
                at += 2
            elif kind not in _FIXED:
                raise UpstreamProtocolError(f"A frame's header is of the unknown type {kind}.")
            if at + size > len(data):
                raise UpstreamProtocolError("A frame's headers end in the middle of a value.")
            if kind == _STRING:
                found[name] = data[at : at + size].decode()
            at += size
    except (IndexError, UnicodeDecodeError) as broken:
        raise UpstreamProtocolError("A frame's headers are not what was agreed on.") from broken
    return found


class Framer:
    """Writes frames that have the same headers. What depends on their length alone is made once a length."""

    __slots__ = ("_headers", "_heads")

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = b"".join([_header(name, value) for name, value in headers.items()])
        self._heads: dict[int, tuple[bytes, int]] = {}

    def __call__(self, payload: bytes) -> bytes:
        """Return the frame around ``payload``."""
        size = len(payload)
        head = self._heads.get(size)
        if head is None:
            head = self._head(size)
            if len(self._heads) < _CACHED:
                self._heads[size] = head
        return head[0] + payload + _CRC.pack(crc32(payload, head[1]))

    def _head(self, size: int) -> tuple[bytes, int]:
        """Return everything before a payload of so many bytes, and its checksum."""
        lengths = _LENGTHS.pack(size + len(self._headers) + _OVERHEAD, len(self._headers))
        head = lengths + _CRC.pack(crc32(lengths)) + self._headers
        return head, crc32(head)


def _header(name: str, value: str) -> bytes:
    key, data = name.encode(), value.encode()
    return bytes((len(key),)) + key + bytes((_STRING,)) + len(data).to_bytes(2) + data
