"""Bedrock's errors, read and written: HTTP answers, and exceptions inside of a stream.

An answer names its kind in the header ``x-amzn-errortype`` or in the body's ``__type`` (AWS restJson1 reads
both), a stream in the frame's ``:exception-type``. What a kind means is a table (`ROWS`): the first row that
fits decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from firsttoken.errors import (
    FirstTokenError,
    InternalError,
    UpstreamAuthError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from firsttoken.wire.retry_after import retry_after

_encode = msgspec.json.encode


class Row(Struct, frozen=True):
    """One kind of error: it fits when the name (or, for an unknown name, the status) and the words do."""

    source: str
    error: type[UpstreamError]
    names: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    says: str = ""
    """A regular expression for the message."""
    status: int | None = None
    code: str | None = None
    param: str | None = None
    message: str = ""
    """What the client is told instead of the target's own words; ``{}`` becomes those."""
    retryable: bool | None = None
    failover: bool | None = None


_MODEL = "AWS service model bedrock-runtime 2023-09-30"
_COMMON = "Amazon Bedrock API reference, Common Errors"
_GUIDE = "Amazon Bedrock User Guide, Troubleshooting API error codes"
_REFUSED_ACCESS = "The target refused this endpoint's credentials or its access to the model."
ROWS = (
    Row(
        f"{_GUIDE}: newer models are served through inference profiles only",
        UpstreamRefusedError,
        names=("ValidationException",),
        says=r"on-demand throughput is\S+ supported|support on-demand throughput",
        code="inference_profile_required",
        param="model",
        message="{} Configure the id of an inference profile as the model, such as us., eu., apac. or global."
        " before the model's id, or the ARN of one.",
        failover=True,
    ),
    Row(
        "Words of Claude, Nova, Llama and of models served by bedrock-mantle, as met in the field",
        UpstreamRefusedError,
        names=("ValidationException",),
        says="input is too long|prompt is too long|exceed context limit|maximum context length|too many total"
        " text bytes",
        code="context_length_exceeded",
        param="messages",
    ),
    Row(f"{_MODEL}: 400", UpstreamRefusedError, names=("ValidationException",), status=400),
    Row(
        f"{_MODEL}: 400, the account's quota; another region or account has its own",
        UpstreamRateLimitError,
        names=("ServiceQuotaExceededException",),
        code="quota_exceeded",
        retryable=False,
    ),
    Row(
        f"{_GUIDE}: 429, a quota of tokens a day; no wait of ours helps, another region does",
        UpstreamRateLimitError,
        names=("ThrottlingException",),
        says="per day",
        code="daily_quota_exceeded",
        retryable=False,
    ),
    Row(
        f"{_MODEL}: 429, requests or tokens a minute; {_COMMON} has the other name",
        UpstreamRateLimitError,
        names=("ThrottlingException", "TooManyRequestsException"),
    ),
    Row(
        f"{_MODEL}: 429, the model is being loaded; AWS's own clients try again",
        UpstreamError,
        names=("ModelNotReadyException",),
        status=503,
        code="model_not_ready",
        message="The model is not ready at the target yet.",
    ),
    Row(
        f"{_MODEL}: 408",
        UpstreamTimeoutError,
        names=("ModelTimeoutException",),
        message="The model took too long at the target.",
    ),
    Row(
        f"{_MODEL}: 424, and the exception of the same name inside of a stream",
        UpstreamError,
        names=("ModelErrorException", "ModelStreamErrorException"),
        code="model_error",
        message="The model failed at the target.",
    ),
    Row(
        f"{_MODEL}: 503",
        UpstreamError,
        names=("ServiceUnavailableException", "ServiceUnavailable"),
        status=503,
        message="The target is not available (503).",
    ),
    Row(
        f"{_MODEL}: 500; {_COMMON} has the other name",
        UpstreamError,
        names=("InternalServerException", "InternalFailure"),
        message="The target failed (500).",
    ),
    Row(
        f"{_MODEL}: 403; {_COMMON} has the others; the words hold account ids and role names",
        UpstreamAuthError,
        names=(
            *("AccessDeniedException", "ExpiredTokenException", "IncompleteSignature", "NotAuthorized"),
            *("InvalidSignatureException", "MissingAuthenticationTokenException", "OptInRequired"),
            *("UnrecognizedClientException", "InvalidClientTokenId", "RequestExpired"),
        ),
        message=_REFUSED_ACCESS,
    ),
    Row(
        f"{_MODEL}: 404, an unknown model or profile, or one that is not in this region",
        UpstreamRefusedError,
        names=("ResourceNotFoundException",),
        status=404,
        code="model_not_found",
        param="model",
        failover=True,
    ),
    Row(
        f"{_MODEL}: 400",
        UpstreamError,
        names=("ConflictException",),
        message="The target reports a conflict.",
    ),
    Row("RFC 9110", UpstreamRateLimitError, statuses=(429,)),
    Row("RFC 9110", UpstreamAuthError, statuses=(401, 402, 403), message=_REFUSED_ACCESS),
    Row("RFC 9110", UpstreamTimeoutError, statuses=(408, 504), message="The target gave up waiting."),
    Row("RFC 9110", UpstreamRefusedError, statuses=(400, 404, 405, 409, 413, 415, 422)),
    Row("RFC 9110", UpstreamError, statuses=(503,), status=503, message="The target is not available (503)."),
    Row(
        "Whatever has no row; internals of the target are not shown",
        UpstreamError,
        message="The target failed.",
    ),
)
_TYPES = {
    401: "AccessDeniedException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    500: "InternalServerException",
    502: "ModelErrorException",
    503: "ServiceUnavailableException",
    504: "ModelTimeoutException",
}
_IN_STREAM = {429: "throttlingException", 503: "serviceUnavailableException", 500: "internalServerException"}


class _Body(Struct, frozen=True):
    message: str | None = None
    capital: str | None = msgspec.field(default=None, name="Message")
    type: str | None = msgspec.field(default=None, name="__type")
    code: str | int | None = None


_body = msgspec.json.Decoder(_Body)


def write_error(error: FirstTokenError, request_id: str) -> bytes:
    """Return the body of an error answer. AWS's clients take the kind from ``__type``."""
    default = "ValidationException" if error.status < 500 else "InternalServerException"
    kind = _TYPES.get(error.status, default)
    return _encode({"__type": kind, "message": str(error), "requestId": request_id})


def exception_of(error: FirstTokenError) -> str:
    """Return the kind of exception that says ``error`` inside of a stream."""
    if isinstance(error, InternalError):
        return _IN_STREAM[500]
    refused = "validationException" if error.status < 500 else "modelStreamErrorException"
    return _IN_STREAM.get(error.status, refused)


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Return the error that a target's error answer means.

    A refusal of the request is passed on in the target's own words; of its inner failures and of our account
    the client learns only that there are some.
    """
    said = _said(body)
    name = headers.get("x-amzn-errortype") or said.type or str(said.code or "")
    words = said.message or said.capital or ""
    return _error(name.partition(":")[0].rpartition("#")[2], words, status, retry_after(headers))


def error_in_stream(name: str, payload: bytes) -> UpstreamError:
    """Return the error that an exception inside of a stream means."""
    said = _said(payload)
    return _error(name[:1].upper() + name[1:], said.message or said.capital or "", 0, None)


def _error(name: str, words: str, status: int, wait: float | None) -> UpstreamError:
    known = any(name in row.names for row in ROWS)
    row = next(row for row in ROWS if _fits(row, name if known else "", status, words))
    message = row.message.format(words) if row.message else words
    error = row.error(
        message or f"The target answered with an error ({name or status}).",
        code=row.code,
        param=row.param,
        status=row.status or (status if row.error is UpstreamRefusedError and status else None),
        retry_after=wait,
    )
    if row.retryable is not None:
        error.retryable = row.retryable
    if row.failover is not None:
        error.failover = row.failover
    return error


def _fits(row: Row, name: str, status: int, words: str) -> bool:
    if (name not in row.names) if name else (row.names or (row.statuses and status not in row.statuses)):
        return False
    return not row.says or re.search(row.says, words, re.IGNORECASE) is not None


def _said(body: bytes) -> _Body:
    try:
        return _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Body()
