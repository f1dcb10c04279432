"""Anthropic Messages, read and written: a `firsttoken.wire.codec.Codec`.

Source: the Claude API reference, "Messages" and "Streaming messages"; field names checked against the
official SDK, 2.12.
"""

from __future__ import annotations

from firsttoken.wire.anthropic.answer import STREAM_TYPE, StreamReader, open_reader, read_answer
from firsttoken.wire.anthropic.dialect import Dialect, vertex_codec
from firsttoken.wire.anthropic.errors import error_from, write_error
from firsttoken.wire.anthropic.request import WIRE, read_count, read_request
from firsttoken.wire.anthropic.target import write_request
from firsttoken.wire.anthropic.writer import StreamWriter, open_writer, write_answer

__all__ = [
    "STREAM_TYPE",
    "WIRE",
    "Dialect",
    "StreamReader",
    "StreamWriter",
    "error_from",
    "open_reader",
    "open_writer",
    "read_answer",
    "read_count",
    "read_request",
    "vertex_codec",
    "write_answer",
    "write_error",
    "write_request",
]
