"""Server-sent events: where they end and what they hold."""

from __future__ import annotations

import pytest

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
