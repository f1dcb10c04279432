"""Errors of OpenAI Responses: the objects and their meaning are those of Chat Completions.

Inside of a stream they come in two shapes: an ``error`` event, flat in the API reference and nested in
practice, and a ``response.failed`` event whose answer holds the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from firsttoken.errors import FirstTokenError, UpstreamError
from firsttoken.wire.openai_chat.errors import IN_STREAM, ErrorBody, error_from, error_of, write_error


def error_in_stream(said: object) -> UpstreamError:
    """Return the error that an error object inside of a stream or of a failed answer means."""
    try:
        body = msgspec.convert(said, ErrorBody)
    except msgspec.ValidationError:
        body = ErrorBody()
    return error_of(IN_STREAM, {}, body)


def event_of(error: FirstTokenError, request_id: str) -> dict[str, Any]:
    """Return what an ``error`` event says, flat and nested: clients read the one or the other."""
    nested: Mapping[str, Any] = msgspec.json.decode(write_error(error, request_id))["error"]
    return {"code": error.code, "message": str(error), "param": error.param, "error": nested}


__all__ = ["error_from", "error_in_stream", "event_of", "write_error"]
