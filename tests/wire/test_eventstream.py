"""AWS event-stream frames: written as AWS's clients read them, read with both checksums at any split."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from firsttoken.errors import UpstreamProtocolError
from firsttoken.wire.eventstream import MAX_FRAME_BYTES, Framer, FrameReader, read_headers

HEADERS = {":event-type": "contentBlockDelta", ":content-type": "application/json", ":message-type": "event"}
FRAME = Framer(HEADERS)(b'{"a":1}')
MEGABYTE = 1024 * 1024


def prelude(size: int, headers: int) -> bytes:
    lengths = struct.pack(">II", size, headers)
    return lengths + struct.pack(">I", crc32(lengths))


def frame(headers: bytes, payload: bytes = b"") -> bytes:
    body = prelude(16 + len(headers) + len(payload), len(headers)) + headers + payload
    return body + struct.pack(">I", crc32(body))


def header(name: bytes, kind: int, value: bytes) -> bytes:
    return bytes((len(name),)) + name + bytes((kind,)) + value


@settings(max_examples=50, deadline=None, derandomize=True)
@given(payloads=st.lists(st.binary(max_size=2000), min_size=1, max_size=4))
def test_aws_reads_what_is_written(payloads: list[bytes]) -> None:
    """AWS's own parser, which checks both checksums, gets the headers and payloads back."""
    buffer = EventStreamBuffer()
    framer = Framer(HEADERS)
    buffer.add_data(b"".join([framer(payload) for payload in payloads]))
    messages = list(buffer)
    assert [message.payload for message in messages] == payloads
    assert all(message.headers == HEADERS for message in messages)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    payloads=st.lists(st.binary(max_size=300), max_size=5),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=10),
)
def test_any_split_gives_the_same_frames(payloads: list[bytes], sizes: list[int]) -> None:
    """How the network cut the bytes does not matter."""
    framer = Framer(HEADERS)
    data = b"".join([framer(payload) for payload in payloads])
    reader = FrameReader()
    frames = []
    while data:
        size = sizes[len(frames) % len(sizes)]
        frames += reader.feed(data[:size])
        data = data[size:]
    assert [found.payload for found in frames] == payloads
    assert [found.raw for found in frames] == [framer(payload) for payload in payloads]
    assert reader.failure is None
    assert not reader.inside


@pytest.mark.parametrize("size", [1000, 65536, 3 * MEGABYTE])
def test_large_frames(size: int) -> None:
    """A frame over a megabyte arrives whole from pieces of any size."""
    payload = b"x" * (2 * MEGABYTE)
    data = Framer(HEADERS)(payload) + FRAME
    reader = FrameReader()
    frames = [found for at in range(0, len(data), size) for found in reader.feed(data[at : at + size])]
    assert [len(found.payload) for found in frames] == [len(payload), 7]


@pytest.mark.parametrize("place", range(len(FRAME)))
def test_a_changed_byte_is_noticed(place: int) -> None:
    """Wherever it is: the frame before it is good, and nothing after it is read."""
    broken = bytearray(FRAME)
    broken[place] ^= 0x40
    reader = FrameReader()
    assert [found.raw for found in reader.feed(FRAME + bytes(broken) + FRAME)] == [FRAME]
    assert isinstance(reader.failure, UpstreamProtocolError)
    assert reader.feed(FRAME) == []


@pytest.mark.parametrize("end", range(1, len(FRAME)))
def test_a_cut_frame_is_incomplete(end: int) -> None:
    """A frame that has not arrived whole is no error yet; the reader knows that it is inside of one."""
    reader = FrameReader()
    assert reader.feed(FRAME[:end]) == []
    assert reader.failure is None
    assert reader.inside


@pytest.mark.parametrize(
    ("size", "headers"), [(15, 0), (16, 1), (MAX_FRAME_BYTES + 1, 0), (2**32 - 1, 0), (2**20, 2**18)]
)
def test_impossible_lengths_are_refused_at_once(size: int, headers: int) -> None:
    """Nothing is collected for a frame that cannot be: memory is bounded."""
    reader = FrameReader()
    assert reader.feed(prelude(size, headers)) == []
    assert "lengths" in str(reader.failure)


def test_every_type_of_header_is_stepped_over() -> None:
    """Only text is of use here, the other nine types are passed."""
    fixed = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
    others = b"".join([header(b"n%d" % kind, kind, bytes(size)) for kind, size in fixed.items()])
    data = others + header(b"b", 6, b"\x00\x02xy") + header(b"s", 7, b"\x00\x03n\xc3\xa9")
    assert read_headers(data) == {"s": "né"}
    assert FrameReader().feed(frame(data, b"p"))[0].headers == {"s": "né"}


@pytest.mark.parametrize(
    "data",
    [
        b"\x05abc",
        b"\x01a",
        header(b"a", 10, b""),
        header(b"a", 7, b"\x00\x05ab"),
        header(b"a", 7, b"\x00"),
        header(b"a", 7, b"\x00\x01\xff"),
        header(b"\xff", 0, b""),
        header(b"a", 9, b"short"),
    ],
)
def test_broken_headers(data: bytes) -> None:
    """Headers that are not what was agreed on are an error, though the checksums are right."""
    with pytest.raises(UpstreamProtocolError):
        read_headers(data)
    reader = FrameReader()
    assert reader.feed(frame(data)) == []
    assert reader.failure is not None


def test_many_different_headers_and_lengths_are_not_kept() -> None:
    """What is remembered to be fast is bounded."""
    reader, framer = FrameReader(), Framer(HEADERS)
    for number in range(2000):
        data = header(b"n", 7, struct.pack(">H", 4) + b"%04d" % number)
        (found,) = reader.feed(frame(data))
        assert found.headers == {"n": f"{number:04}"}
        assert reader.feed(framer(b"x" * number))[0].payload == b"x" * number
    assert len(reader._known) <= 256
    assert len(framer._heads) <= 256
