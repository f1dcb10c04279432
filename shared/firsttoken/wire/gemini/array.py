"""The codec of a stream without ``alt=sse``: one JSON array whose items are the events.

Clients that ask for it read it as it comes; bytes of a target that sends events become items, too.
"""

from __future__ import annotations

from firsttoken.errors import FirstTokenError
from firsttoken.model import Call, Chunk
from firsttoken.wire import sse
from firsttoken.wire.gemini import (
    WIRE,
    StreamWriter,
    error_from,
    open_reader,
    read_answer,
    read_request,
    write_answer,
    write_error,
    write_request,
)

STREAM_TYPE = "application/json; charset=utf-8"


class ArrayWriter:
    """Turns chunks into the items of an array."""

    def __init__(self, call: Call, created: int) -> None:
        self._events = StreamWriter(call, created)
        self._open = False

    def write(self, chunk: Chunk) -> bytes:
        """Return the items of one chunk."""
        return self._items(self._events.write(chunk))

    def end(self) -> bytes:
        """Return the last item and the end of the array."""
        return self._items(self._events.end()) + (b"]" if self._open else b"[]")

    def adopt(self, raw: bytes) -> None:
        """See `firsttoken.wire.codec.StreamWriter.adopt`. An item was written, so the array is open."""
        self._open = True
        self._events.adopt(raw)

    def error(self, error: FirstTokenError, request_id: str) -> bytes:
        """Return the error as the last item: clients raise it, and no reason to finish came."""
        return self._items(self._events.error(error, request_id)) + b"]"

    def heartbeat(self) -> bytes:
        """Return white space."""
        return b"\r\n"

    def _items(self, events: bytes) -> bytes:
        items = [data for event in sse.events(events) if (data := sse.data(event)) is not None]
        if not items:
            return b""
        before = b",\r\n" if self._open else b"["
        self._open = True
        return before + b",\r\n".join(items)


open_writer = ArrayWriter

__all__ = [
    "STREAM_TYPE",
    "WIRE",
    "ArrayWriter",
    "error_from",
    "open_reader",
    "open_writer",
    "read_answer",
    "read_request",
    "write_answer",
    "write_error",
    "write_request",
]
