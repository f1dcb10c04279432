"""Server-sent events: where they end and what they hold."""

from __future__ import annotations

import pytest

from firsttoken.errors import UpstreamProtocolError
from firsttoken.model import Chunk
from firsttoken.wire import sse


@pytest.mark.parametrize(
    ("buffer", "end"),
    [
        (b"", 0),
        (b"data: a", 0),
        (b"data: a\n", 0),
        (b"data: a\n\n", 9),
        (b"data: a\n\ndata: b", 9),
        (b"data: a\r\n\r\n", 11),
        (b"data: a\r\n\r\ndata: b\r\n", 11),
        (b"data: a\n\ndata: b\r\n\r\nx", 20),
        (b"data: a\r\n\r\ndata: b\n\nx", 20),
    ],
)
def test_last_boundary(buffer: bytes, end: int) -> None:
    """The boundary is just behind the last blank line, with either kind of line end."""
    assert sse.last_boundary(buffer) == end


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a", b"a"),
        (b"data:a", b"a"),
        (b"data: a\ndata: b", b"a\nb"),
        (b"event: x\nid: 1\ndata: a", b"a"),
        (b"event: x\ndata: a", b"a"),
        (b"event: x\ndata:a", b"a"),
        (b"event: x\ndata: a\ndata: b", b"a\nb"),
        (b"event: x\ndata:a\ndata: b", b"a\nb"),
        (b": comment", None),
        (b"event: ping", None),
        (b"data:", b""),
    ],
)
def test_data(event: bytes, data: bytes | None) -> None:
    """Data lines are joined; comments and events without data hold None."""
    assert sse.data(event) == data


def test_events_splits_both_kinds_of_line_ends() -> None:
    """Events are given without their closing blank lines."""
    assert sse.events(b"data: a\r\n\r\ndata: b\n\n") == [b"data: a", b"data: b"]


class Counting(sse.EventReader):
    """Reads events of text."""

    def read_event(self, payload: bytes) -> Chunk | None:
        return Chunk(text=payload.decode())


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_an_event_is_found_however_it_is_cut(size: int, end: bytes) -> None:
    """An event may end across two or more reads, and what follows it belongs to the next one."""
    stream = b"".join(b"data: %d" % number + end for number in range(30))
    reader = Counting()
    chunks = [c for i in range(0, len(stream), size) if (c := reader.feed(stream[i : i + size]))]
    assert "".join(chunk.text for chunk in chunks) == "".join(map(str, range(30)))
    assert b"".join(chunk.raw for chunk in chunks) == stream


def test_a_long_event_is_searched_once() -> None:
    """A big event in small pieces is kept in pieces: nothing is copied or searched again for each of them."""
    reader = Counting()
    piece = b"x" * 1000
    reader.feed(b"data: ")
    for _ in range(5000):
        assert reader.feed(piece) is None
    assert len(reader._pieces) == 5001
    chunk = reader.feed(b"\n\ndata: y")
    assert chunk is not None
    assert len(chunk.text) == 5_000_000
    with pytest.raises(UpstreamProtocolError):
        reader.feed(b"x" * sse.MAX_EVENT_BYTES)
