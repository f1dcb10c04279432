"""Google's error objects, read and written: one shape, in answers and inside of a stream.

What an error means is a table (`ROWS`): the first row that fits decides. The canonical words and their HTTP
statuses are those of ``google.rpc.Code``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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

IN_STREAM = 0
"""Stands for the HTTP status of an error inside of a stream that names none."""
_TYPE = "type.googleapis.com/google.rpc."
_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""Source: google/rpc/code.proto, "HTTP Mapping"; those in the middle have no row there."""


class Row(Struct, frozen=True, kw_only=True):
    """One kind of error: it fits when everything that it names does."""

    source: str
    error: type[UpstreamError]
    words: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    says: str = ""
    code: str | None = None
    message: str = ""
    """What the client is told; without it, the target's own words."""
    status: int | None = None
    retryable: bool | None = None


_GUIDE = 'Gemini API guide, "Troubleshooting", backend error codes'
ROWS = (
    Row(
        source="Gemini API: a key that is not valid or expired is 400 with this reason in ErrorInfo",
        error=UpstreamAuthError,
        reasons=("API_KEY_INVALID",),
        message="The target refused this endpoint's credentials ({}).",
    ),
    Row(
        source=f"{_GUIDE}: 403; google.rpc.Code: 401; the words may name accounts",
        error=UpstreamAuthError,
        words=("UNAUTHENTICATED", "PERMISSION_DENIED"),
        message="The target refused this endpoint's credentials ({}).",
    ),
    Row(
        source=f"{_GUIDE}: 400, the country is not served or billing is off: an operator's matter",
        error=UpstreamAuthError,
        words=("FAILED_PRECONDITION",),
        message="The target does not serve this endpoint's account or region ({}).",
    ),
    Row(
        source='Vertex AI guide, "Provisioned Throughput", error 429: the purchased throughput is used up',
        error=UpstreamRateLimitError,
        words=("RESOURCE_EXHAUSTED",),
        says="provisioned throughput",
        code="provisioned_throughput_exceeded",
        message="The target's purchased throughput is used up.",
    ),
    Row(
        source='Gemini API guide, "Rate limits": requests a day, until midnight Pacific time (QuotaFailure)',
        error=UpstreamRateLimitError,
        words=("RESOURCE_EXHAUSTED",),
        says="PerDay",
        code="daily_quota_exceeded",
        message="The target's quota of this day is used up.",
        retryable=False,
    ),
    Row(
        source=f"{_GUIDE}: 429; the words name the project's quota",
        error=UpstreamRateLimitError,
        words=("RESOURCE_EXHAUSTED",),
        message="The target asks to wait.",
    ),
    Row(
        source="Gemini API: a prompt that does not fit is 400 with a count of tokens in its words",
        error=UpstreamRefusedError,
        words=("INVALID_ARGUMENT",),
        says=r"token count.*exceeds",
        code="context_length_exceeded",
    ),
    Row(
        source=f"{_GUIDE}: 400; google.rpc.Code: the other words for a request that is wrong",
        error=UpstreamRefusedError,
        words=("INVALID_ARGUMENT", "OUT_OF_RANGE", "ALREADY_EXISTS", "UNIMPLEMENTED"),
    ),
    Row(source=f"{_GUIDE}: 404", error=UpstreamRefusedError, words=("NOT_FOUND",), status=404),
    Row(
        source=f"{_GUIDE}: 504, not finished in time",
        error=UpstreamTimeoutError,
        words=("DEADLINE_EXCEEDED",),
        message="The target was too slow ({}).",
    ),
    Row(
        source=f"{_GUIDE}: 503, overloaded or down for a while",
        error=UpstreamError,
        words=("UNAVAILABLE",),
        message="The target is not available ({}).",
        status=503,
    ),
    Row(
        source=f"{_GUIDE}: 500 and 499; google.rpc.Code: ABORTED, UNKNOWN, DATA_LOSS and whatever has no row",
        error=UpstreamError,
        message="The target failed ({}).",
    ),
)


class _Error(Struct, frozen=True):
    code: int = 0
    message: str = ""
    status: str = ""
    details: list[dict[str, Any]] = []


class _Answer(Struct, frozen=True):
    error: _Error


_answer: msgspec.json.Decoder[_Answer | list[_Answer]] = msgspec.json.Decoder(_Answer | list[_Answer])


def error_from(status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
    """Return the error that a target's error answer means.

    A refusal of the request is passed on in the target's own words, without the project's name.
    """
    said = _said(body)
    status = said.code if 400 <= said.code <= 599 else status
    word = said.status or _WORDS.get(status, "UNKNOWN")
    reasons = {str(detail.get("reason")) for detail in said.details}
    words = said.message + "".join([str(detail) for detail in said.details])
    row = next(row for row in ROWS if _fits(row, word, reasons, words))
    told = f"{status} {word}" if status else word
    own = (
        re.sub(r"projects/[^/\s`'\"]+", "projects/-", said.message)
        or f"The target refused the request ({told})."
    )
    refused = row.error is UpstreamRefusedError
    error = row.error(
        row.message.format(told) if row.message else own,
        code=row.code,
        param=_field(said.details) if refused else None,
        status=row.status or (status if refused and 400 <= status < 500 else None),
        retry_after=_wait(said.details, headers),
    )
    if row.retryable is not None:
        error.retryable = row.retryable
    return error


def _said(body: bytes) -> _Error:
    """Read the error object; without ``alt=sse`` a stream's error is the one item of an array."""
    try:
        answer = _answer.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Error()
    if isinstance(answer, list):
        return answer[0].error if answer else _Error()
    return answer.error


def _fits(row: Row, word: str, reasons: set[str], words: str) -> bool:
    if row.words and word not in row.words:
        return False
    if row.reasons and reasons.isdisjoint(row.reasons):
        return False
    return not row.says or re.search(row.says, words, re.IGNORECASE | re.DOTALL) is not None


def _field(details: list[dict[str, Any]]) -> str | None:
    """Return the field that a ``BadRequest`` detail names."""
    for detail in details:
        violations = detail.get("fieldViolations")
        if isinstance(violations, list) and violations and isinstance(violations[0], dict):
            return str(violations[0].get("field") or "") or None
    return None


def _wait(details: list[dict[str, Any]], headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait that a ``RetryInfo`` detail (``"34.07s"``) or a header asks for."""
    for detail in details:
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and re.fullmatch(r"\d{1,9}(\.\d{1,9})?s", delay):
            return float(delay[:-1])
    return retry_after(headers)


def write_error(error: FirstTokenError, request_id: str) -> bytes:
    """Return the body of an error answer: what this format has no field for is in its details."""
    info = {
        "reason": (error.code or error.type).upper(),
        "domain": "firsttoken",
        "metadata": {"type": error.type},
    }
    details: list[dict[str, Any]] = [
        {"@type": f"{_TYPE}ErrorInfo", **info},
        {"@type": f"{_TYPE}RequestInfo", "requestId": request_id},
    ]
    if error.param:
        violation = {"field": error.param, "description": str(error)}
        details.append({"@type": f"{_TYPE}BadRequest", "fieldViolations": [violation]})
    if error.retry_after is not None:
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{error.retry_after:.3f}s"})
    word = _WORDS.get(error.status, "INVALID_ARGUMENT" if error.status < 500 else "INTERNAL")
    said = {"code": error.status, "message": str(error), "status": word, "details": details}
    return msgspec.json.encode({"error": said})


__all__ = ["IN_STREAM", "ROWS", "Row", "error_from", "write_error"]
