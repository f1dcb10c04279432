"""Amazon Bedrock's ``Converse`` and ``ConverseStream``, read and written: a `firsttoken.wire.codec.Codec`.

Source: AWS's service model ``bedrock-runtime`` (2023-09-30) as botocore 1.44.5 has it, and the Amazon Bedrock
API reference. The model stands in the path, so bodies of the same format pass unchanged.
"""

from __future__ import annotations

from firsttoken.wire.bedrock.answer import read_answer, write_answer
from firsttoken.wire.bedrock.content import WIRE
from firsttoken.wire.bedrock.errors import error_from, write_error
from firsttoken.wire.bedrock.request import read_request, write_request
from firsttoken.wire.bedrock.stream import (
    STREAM_TYPE,
    StreamReader,
    StreamWriter,
    open_reader,
    open_writer,
)

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
