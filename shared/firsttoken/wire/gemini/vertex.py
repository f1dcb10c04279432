"""The codec for Gemini on Vertex AI, whose API refuses ids of function calls as unknown fields."""

from __future__ import annotations

from firsttoken.wire.gemini import (
    STREAM_TYPE,
    WIRE,
    error_from,
    open_reader,
    open_writer,
    read_answer,
    read_request,
    write_answer,
    write_error,
)
from firsttoken.wire.gemini.outgoing import write_request_without_ids as write_request

__all__ = [
    "STREAM_TYPE",
    "WIRE",
    "error_from",
    "open_reader",
    "open_writer",
    "read_answer",
    "read_request",
    "write_answer",
    "write_error",
    "write_request",
]
