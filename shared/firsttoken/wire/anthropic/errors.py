"""Anthropic's error objects, read and written: in answers and as the ``error`` event of a stream.

Source: Claude API reference, "Errors" (HTTP errors, error shapes), and the error types of the official SDK
(``types/shared/error_type.py``, 2.12).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from firsttoken.errors import (
    FirstTokenError,
    UpstreamAuthError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from firsttoken.wire.retry_after import retry_after

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
    408: "timeout_error",  # this and 503 are not the API's own: what proxies before it say
    503: "overloaded_error",
}
"""The type of error that belongs to an HTTP status. Of 4xx the API says that others may follow."""

_encode = msgspec.json.encode


def write_error(error: FirstTokenError, request_id: str) -> bytes:
    """Return the body of an error answer; ``param`` and ``code`` are ours, and there only when known."""
    kind = TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    said: dict[str, Any] = {"type": kind, "message": str(error)}
    if error.param:
        said["param"] = error.param
    if error.code:
        said["code"] = error.code
    return _encode({"type": "error", "error": said, "request_id": request_id})


class _Details(Struct, frozen=True):
    error_code: str | None = None


class _ErrorBody(Struct, frozen=True):
    type: str = ""
    message: str = ""
    details: _Details | None = None


class _ErrorAnswer(Struct, frozen=True):
    error: _ErrorBody | str | None = None


_error_answer = msgspec.json.Decoder(_ErrorAnswer)

_CONTEXT = ("prompt is too long", "input length and `max_tokens` exceed context limit")
"""How the message begins when the prompt does not fit; no code tells it.

Source: answers that users report, for example in anthropics/claude-code#12186, docker/docker-agent#569.
"""
_CREDIT = "Your credit balance is too low"
_SPENT = frozenset(
    {
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_spend_limit_reached",
    }
)
"""Kinds of 429 (``error.details.error_code``) that waiting does not help. Source: the SDK's error classes."""
_OUR_CREDENTIALS = frozenset({"authentication_error", "billing_error", "permission_error"})
_REFUSED = {
    "invalid_request_error": 400,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
}


def error_from(status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
    """Return the error that a target's error answer means.

    A refusal of the request is passed on in the target's own words; of everything else the client learns only
    the kind.
    """
    said = _said(body)
    kind = said.type if status >= 500 and said.type in TYPES.values() else TYPES.get(status, "")
    if not kind:
        kind = "invalid_request_error" if 400 <= status < 500 else "api_error"
    return _error(kind, status, said, retry_after(headers))


def error_event(payload: bytes) -> UpstreamError:
    """Return the error that an ``error`` event, or an answer of type ``error``, means."""
    said = _said(payload)
    status = next((status for status, kind in TYPES.items() if kind == said.type), 500)
    return _error(said.type, status, said, None)


def _error(kind: str, status: int, said: _ErrorBody, wait: float | None) -> UpstreamError:
    code = said.details.error_code if said.details else None
    if kind in _OUR_CREDENTIALS or code in _SPENT or said.message.startswith(_CREDIT):
        return UpstreamAuthError(f"The target refused this endpoint's credentials or their limits ({kind}).")
    if kind == "rate_limit_error":
        return UpstreamRateLimitError(said.message or "The target asks to wait.", code=code, retry_after=wait)
    if kind in _REFUSED:
        message = said.message or f"The target refused the request ({status})."
        if message.startswith(_CONTEXT):
            code = "context_length_exceeded"
        return UpstreamRefusedError(message, status=status if status < 500 else _REFUSED[kind], code=code)
    if kind == "timeout_error":
        return UpstreamTimeoutError(f"The target was too slow ({status}).", retry_after=wait)
    if kind == "overloaded_error":
        message = f"The target is overloaded ({status})."
        return UpstreamError(
            message, status=503 if status == 503 else 529, code="overloaded", retry_after=wait
        )
    return UpstreamError(f"The target failed ({kind or status}).", retry_after=wait)


def _said(body: bytes) -> _ErrorBody:
    try:
        error = _error_answer.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = None
    return _ErrorBody(message=error) if isinstance(error, str) else error or _ErrorBody()


__all__ = ["TYPES", "error_event", "error_from", "write_error"]
