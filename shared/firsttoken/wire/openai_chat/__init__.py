"""OpenAI Chat Completions, read and written: a `firsttoken.wire.codec.Codec`.

Source: the OpenAI API reference, "Chat Completions"; Azure's deviations (a first chunk without choices,
annotation chunks without a delta) are accepted.
"""

from __future__ import annotations

from firsttoken.wire.openai_chat.answer import (
    STREAM_TYPE,
    StreamReader,
    StreamWriter,
    open_reader,
    open_writer,
    read_answer,
    write_answer,
)
from firsttoken.wire.openai_chat.errors import error_from, write_error
from firsttoken.wire.openai_chat.request import WIRE, read_request, write_request

__all__ = [
    "STREAM_TYPE",
    "WIRE",
    "StreamReader",
    "StreamWriter",
    "error_from",
    "open_reader",
    "open_writer",
    "read_answer",
    "read_request",
    "write_answer",
    "write_error",
    "write_request",
]
