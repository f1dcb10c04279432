"""This format as one provider wants it: a codec with that provider's settings."""

from __future__ import annotations

from firsttoken.model import Call
from firsttoken.settings import VertexProvider
from firsttoken.wire.anthropic.answer import STREAM_TYPE, StreamReader, read_answer
from firsttoken.wire.anthropic.errors import error_from, write_error
from firsttoken.wire.anthropic.request import WIRE, read_request
from firsttoken.wire.anthropic.target import MAX_TOKENS, write_request
from firsttoken.wire.anthropic.writer import StreamWriter, write_answer


class Dialect:
    """A codec that adds a limit of output tokens where the client says none.

    With ``version`` the body names that version instead of the model.
    """

    WIRE = WIRE
    STREAM_TYPE = STREAM_TYPE
    read_request = staticmethod(read_request)
    read_answer = staticmethod(read_answer)
    write_answer = staticmethod(write_answer)
    open_reader = staticmethod(StreamReader)
    open_writer = staticmethod(StreamWriter)
    write_error = staticmethod(write_error)
    error_from = staticmethod(error_from)

    def __init__(self, *, max_tokens: int = MAX_TOKENS, version: str = "") -> None:
        self._max_tokens = max_tokens
        self._version = version

    def write_request(self, call: Call, model: str) -> bytes:
        """See `firsttoken.wire.anthropic.target.write_request`."""
        return write_request(call, model, max_tokens=self._max_tokens, version=self._version)


def vertex_codec(settings: VertexProvider) -> Dialect:
    """Return the codec of Claude on Vertex AI: its body holds a version, and no model."""
    return Dialect(max_tokens=settings.max_tokens, version=settings.anthropic_version)


__all__ = ["Dialect", "vertex_codec"]
