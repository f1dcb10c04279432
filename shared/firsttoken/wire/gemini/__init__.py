"""Google's ``generateContent``, streamed or not, read and written: a `firsttoken.wire.codec.Codec`.

Source: the Gemini API reference (REST, v1 and v1beta) and Google's SDK ``google-genai`` 3.4. Model and stream
are in the path, not in the body. Two relatives differ in one thing each: `array` writes a stream as one JSON
array, which is what the API answers without ``alt=sse``; `vertex` leaves out the ids of function calls.
"""

from __future__ import annotations

from firsttoken.wire.gemini.answer import StreamReader, open_reader, read_answer
from firsttoken.wire.gemini.errors import error_from, write_error
from firsttoken.wire.gemini.outgoing import write_request
from firsttoken.wire.gemini.request import WIRE, read_request
from firsttoken.wire.gemini.writer import STREAM_TYPE, StreamWriter, open_writer, write_answer

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
