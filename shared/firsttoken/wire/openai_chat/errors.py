"""OpenAI's error objects, read and written: one shape, in answers and as the last event of a stream."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from firsttoken.errors import (
    FirstTokenError,
    UpstreamAuthError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
)

_encode = msgspec.json.encode


def write_error(error: FirstTokenError, request_id: str) -> bytes:
    """Return the body of an error answer."""
    return _encode(
        {
            "error": {
                "message": str(error),
                "type": error.type,
                "param": error.param,
                "code": error.code,
                "request_id": request_id,
            }
        }
    )


class _ErrorBody(Struct, frozen=True):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _ErrorAnswer(Struct, frozen=True):
    error: _ErrorBody | str | None = None


_error_answer = msgspec.json.Decoder(_ErrorAnswer)
_OUR_CREDENTIALS = (401, 402, 403)
_REFUSED = (400, 404, 409, 413, 415, 422)


def error_from(status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
    """Return the error that a target's error answer means.

    A refusal of the request is passed on in the target's own words; of everything else the client learns only
    the status.
    """
    said = _said(body)
    code = str(said.code) if said.code is not None else None
    wait = retry_after(headers)
    if status == 429 or code == "rate_limit_exceeded":
        return UpstreamRateLimitError(said.message or "The target asks to wait.", code=code, retry_after=wait)
    if status in _OUR_CREDENTIALS:
        return UpstreamAuthError(f"The target refused this endpoint's credentials ({status}).")
    if status in _REFUSED:
        message = said.message or f"The target refused the request ({status})."
        return UpstreamRefusedError(message, status=status, param=said.param, code=code)
    if status == 503:
        return UpstreamError("The target is not available (503).", status=503, retry_after=wait)
    return UpstreamError(f"The target failed ({said.type or status}).", retry_after=wait)


def _said(body: bytes) -> _ErrorBody:
    try:
        error = _error_answer.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = None
    return _ErrorBody(message=error) if isinstance(error, str) else error or _ErrorBody()


def retry_after(headers: dict[str, str]) -> float | None:
    """Return the seconds to wait that ``retry-after-ms`` or ``retry-after`` (seconds or a date) asks for."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(headers["retry-after"])) if "retry-after" in headers else None
    except ValueError:
        return _seconds_until(headers.get("retry-after", ""))


def _seconds_until(date: str) -> float | None:
    import time
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except ValueError:
        return None
