"""OpenAI's error objects, read and written: one shape, in answers and as the last event of a stream.

What an error means is a table (`ROWS`): the first row that fits decides. Azure's four kinds of 429 differ in
their ``code``: ``rate_limit_exceeded`` (the deployment's quota), ``system_capacity`` (their side is full),
``request_too_large`` (this request counts more tokens than a minute has) and, found by the Azure provider,
``temporary_rate_reduction``.
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


class Row(Struct, frozen=True):
    """One kind of error: it fits when all of its conditions that are given do."""

    source: str
    error: type[UpstreamError]
    statuses: tuple[int, ...] = ()
    codes: tuple[str, ...] = ()
    """One of them is the error's ``code`` or ``type``, or the code of its ``innererror``."""
    says: str = ""
    """A regular expression for the message."""
    status: int | None = None
    code: str | None = None
    """What the client and the policies get, where that is not the target's own code."""
    message: str = ""
    """What the client is told instead of the target's own words; ``{}`` is its type or the status."""
    retryable: bool | None = None
    failover: bool | None = None


IN_STREAM = 0
"""Stands for the status of an error that comes inside of a stream: there is none."""

_OPENAI = "OpenAI API docs, guide Error codes"
_AZURE_429 = "Microsoft Learn, Azure OpenAI quota, section on 429 errors"
_UNSAID_REFUSAL = "The target refused the request"
_UNSAID: dict[type[UpstreamError], str] = {UpstreamRateLimitError: "The target asks to wait"}
ROWS = (
    Row(
        "Microsoft Learn, Azure OpenAI content filtering: 400 with this code, and what its innererror says;"
        " OpenAI API docs name the other two",
        UpstreamRefusedError,
        codes=(
            "content_filter",
            "content_policy_violation",
            "ResponsibleAIPolicyViolation",
            "invalid_prompt",
        ),
        status=400,
        code="content_filter",
    ),
    Row(
        "OpenAI API reference; spilled over by Azure, therefore told by its code",
        UpstreamRefusedError,
        codes=("context_length_exceeded",),
        status=400,
    ),
    Row(
        "vLLM's OpenAI-compatible server: type BadRequestError, code 400, told by its message only",
        UpstreamRefusedError,
        statuses=(400, IN_STREAM),
        says="maximum context length",
        status=400,
        code="context_length_exceeded",
    ),
    Row(
        f"{_OPENAI}: 429, credits or a spend limit are used up; no wait helps, another target does",
        UpstreamRateLimitError,
        codes=("insufficient_quota", "billing_hard_limit_reached", "billing_not_active"),
        code="insufficient_quota",
        message="The account at the target has no quota left.",
        retryable=False,
    ),
    Row(
        f"{_AZURE_429}: system capacity, often short; no matter of the deployment's own quota",
        UpstreamRateLimitError,
        statuses=(429, IN_STREAM),
        says="high demand|temporarily unable to process",
        code="system_capacity",
    ),
    Row(
        "OpenAI's 429 for one request above the tokens of a minute: the same request never fits",
        UpstreamRateLimitError,
        statuses=(429, IN_STREAM),
        says="request too large|tokens must be reduced|max_tokens",
        code="request_too_large",
        retryable=False,
    ),
    Row(
        f"{_OPENAI}; {_AZURE_429}: the deployment's quota (have been limited, exceeded ... rate limit)",
        UpstreamRateLimitError,
        statuses=(429,),
        code="rate_limit_exceeded",
    ),
    Row(
        "OpenAI's and Azure's events in a stream carry the code alone",
        UpstreamRateLimitError,
        codes=("rate_limit_exceeded", "too_many_requests", "429"),
        code="rate_limit_exceeded",
    ),
    Row(
        f"{_OPENAI}: key, organisation, network address or country; the words may hold parts of a key",
        UpstreamAuthError,
        statuses=(401, 402, 403),
        message="The target refused this endpoint's credentials ({}).",
    ),
    Row(
        "Azure's and gateways' own time limit (RFC 9110, 408)",
        UpstreamTimeoutError,
        statuses=(408,),
        message="The target gave up waiting ({}).",
    ),
    Row(
        "OpenAI API reference: an error of this type is the request's own",
        UpstreamRefusedError,
        statuses=(400, 404, 409, 413, 415, 422),
    ),
    Row(
        "OpenAI API reference, streaming: the same types inside of a stream",
        UpstreamRefusedError,
        statuses=(IN_STREAM,),
        codes=("invalid_request_error", "image_content_policy_violation"),
        status=400,
    ),
    Row(
        f"{_OPENAI}: 503, overloaded, or asked to slow down",
        UpstreamError,
        statuses=(503,),
        status=503,
        code="upstream_error",
        message="The target is not available (503).",
    ),
    Row(
        f"{_OPENAI}: 500 and whatever has no row; internals of the target are not shown",
        UpstreamError,
        code="upstream_error",
        message="The target failed ({}).",
    ),
)


class ErrorBody(Struct, frozen=True):
    """An error object as OpenAI and those who are compatible with it send it."""

    message: str | None = None
    type: str | None = None
    param: Any = None
    code: str | int | None = None
    innererror: Any = None


class _ErrorAnswer(Struct, frozen=True):
    error: ErrorBody | str | None = None


_error_answer = msgspec.json.Decoder(_ErrorAnswer)


def error_from(status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
    """Return the error that a target's error answer means.

    A refusal of the request is passed on in the target's own words; of its inner failures and of our account
    the client learns only that there are some.
    """
    return error_of(status, headers, _said(body))


def error_of(status: int, headers: Mapping[str, str], said: ErrorBody) -> UpstreamError:
    """Return the error that a status (or `IN_STREAM`) and an error object mean."""
    inner = said.innererror if isinstance(said.innererror, dict) else {}
    code = str(said.code) if said.code is not None else None
    names = {code, said.type, str(inner.get("code"))}
    words = said.message or ""
    row = next(row for row in ROWS if _fits(row, status, names, words))
    told = said.type or status or "error"
    message = row.message.format(told if row.error is UpstreamError else status or told)
    error = row.error(
        message or _with_filters(words, inner) or f"{_UNSAID.get(row.error, _UNSAID_REFUSAL)} ({told}).",
        code=row.code or (code if row.error is UpstreamRefusedError else None),
        param=said.param if isinstance(said.param, str) else None,
        status=row.status or (status if row.error is UpstreamRefusedError and status else None),
        retry_after=retry_after(headers),
    )
    if row.retryable is not None:
        error.retryable = row.retryable
    if row.failover is not None:
        error.failover = row.failover
    if headers.get("x-should-retry") == "false":  # said by OpenAI; its own SDK obeys it
        error.retryable = False
    return error


def _fits(row: Row, status: int, names: set[str | None], words: str) -> bool:
    if row.statuses and status not in row.statuses:
        return False
    if row.codes and names.isdisjoint(row.codes):
        return False
    return not row.says or re.search(row.says, words, re.IGNORECASE) is not None


def _with_filters(words: str, inner: Mapping[str, Any]) -> str:
    """Name the filters that blocked the prompt behind the target's words (Azure's ``innererror``)."""
    results = inner.get("content_filter_result") or inner.get("content_filter_results")
    found = results.items() if isinstance(results, dict) else ()
    blocked = [name for name, said in found if isinstance(said, dict) and said.get("filtered")]
    return f"{words} Filtered: {', '.join(blocked)}." if blocked else words


def _said(body: bytes) -> ErrorBody:
    try:
        error = _error_answer.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = None
    return ErrorBody(message=error) if isinstance(error, str) else error or ErrorBody()
