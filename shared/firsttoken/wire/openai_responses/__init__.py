"""OpenAI Responses, read and written: a `firsttoken.wire.codec.Codec`.

Source: the OpenAI API reference, "Responses", and the types of the official Python SDK 3.54. Nothing is kept
between calls: what refers to an earlier answer by its id goes to targets of this format only.
"""

from __future__ import annotations

from firsttoken.wire.openai_responses.answer import read_answer, write_answer
from firsttoken.wire.openai_responses.errors import error_from, write_error
from firsttoken.wire.openai_responses.reader import StreamReader, open_reader
from firsttoken.wire.openai_responses.request import WIRE, read_request, write_request
from firsttoken.wire.openai_responses.writer import STREAM_TYPE, StreamWriter, open_writer

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
