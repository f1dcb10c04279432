"""Errors of the Gemini codec, read and written."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from firsttoken.errors import (
    FirstTokenError,
    UpstreamAuthError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from firsttoken.wire import gemini as wire
from firsttoken.wire.gemini import errors


def detail(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


@pytest.mark.parametrize(
    ("code", "word", "message", "details", "error", "shown", "policy"),
    [
        (400, "INVALID_ARGUMENT", "bad x", [], UpstreamRefusedError, "bad x", (False, False)),
        (
            400,
            "INVALID_ARGUMENT",
            "API key not valid: AIza123",
            [detail("ErrorInfo", reason="API_KEY_INVALID")],
            UpstreamAuthError,
            "credentials",
            (False, True),
        ),
        (400, "FAILED_PRECONDITION", "not in your country", [], UpstreamAuthError, "region", (False, True)),
        (401, "UNAUTHENTICATED", "AIza123", [], UpstreamAuthError, "credentials", (False, True)),
        (403, "PERMISSION_DENIED", "AIza123", [], UpstreamAuthError, "credentials", (False, True)),
        (
            404,
            "NOT_FOUND",
            "Model `projects/secret-1/locations/us/x` was not found",
            [],
            UpstreamRefusedError,
            "projects/-/locations/us/x",
            (False, False),
        ),
        (429, "RESOURCE_EXHAUSTED", "project 42", [], UpstreamRateLimitError, "asks to wait", (True, True)),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "Too many requests. Exceeded the Provisioned Throughput.",
            [],
            UpstreamRateLimitError,
            "purchased",
            (True, True),
        ),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "quota",
            [detail("QuotaFailure", violations=[{"quotaId": "GenerateRequestsPerDayPerProject"}])],
            UpstreamRateLimitError,
            "this day",
            (False, True),
        ),
        (499, "CANCELLED", "x", [], UpstreamError, "499 CANCELLED", (True, True)),
        (500, "INTERNAL", "at 10.0.0.1", [], UpstreamError, "500 INTERNAL", (True, True)),
        (503, "UNAVAILABLE", "overloaded", [], UpstreamError, "not available", (True, True)),
        (504, "DEADLINE_EXCEEDED", "x", [], UpstreamTimeoutError, "too slow", (True, True)),
    ],
)
@pytest.mark.parametrize("in_stream", [False, True])
def test_error_answers_are_told_apart(  # noqa: PLR0913, PLR0917 - the columns of a table
    code: int,
    word: str,
    message: str,
    details: list[Any],
    error: type[FirstTokenError],
    shown: str,
    policy: tuple[bool, bool],
    in_stream: bool,
) -> None:
    """By the canonical word, with or without an HTTP status; secrets and internals are never shown."""
    said = json.dumps(
        {"error": {"code": code, "message": message, "status": word, "details": details}}
    ).encode()
    found = errors.error_from(errors.IN_STREAM if in_stream else code, {}, said)
    assert type(found) is error
    assert shown in str(found)
    assert (found.retryable, found.failover) == policy
    assert not [
        secret for secret in ("AIza123", "secret-1", "10.0.0.1", "project 42") if secret in str(found)
    ]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (429, b"<html>", UpstreamRateLimitError),
        (413, b"", UpstreamRefusedError),
        (404, b'[{"error": {"code": 404, "message": "m", "status": "NOT_FOUND"}}]', UpstreamRefusedError),
        (302, b"", UpstreamError),
        (500, b"[]", UpstreamError),
        (500, b'{"error": "plain"}', UpstreamError),
    ],
)
def test_errors_in_other_shapes(status: int, body: bytes, error: type[FirstTokenError]) -> None:
    """Proxies answer with pages, streams without ``alt=sse`` with arrays: then the status decides."""
    assert type(errors.error_from(status, {}, body)) is error


def test_details_of_errors() -> None:
    """A field that is named, a context that is full, and the time to wait are read from the details."""
    violation = detail("BadRequest", fieldViolations=[{"field": "contents[0]", "description": "x"}])
    full = "The input token count (5000) exceeds the maximum number of tokens allowed (10)."
    body = {"error": {"code": 400, "message": full, "status": "INVALID_ARGUMENT", "details": [violation]}}
    found = errors.error_from(400, {}, json.dumps(body).encode())
    assert (found.param, found.code) == ("contents[0]", "context_length_exceeded")
    wait = {
        "error": {
            "code": 429,
            "status": "RESOURCE_EXHAUSTED",
            "details": [detail("RetryInfo", retryDelay="34.07s")],
        }
    }
    assert errors.error_from(429, {"retry-after": "1"}, json.dumps(wait).encode()).retry_after == 34.07
    wait["error"]["details"][0]["retryDelay"] = "soon"
    assert errors.error_from(429, {"retry-after": "1"}, json.dumps(wait).encode()).retry_after == 1.0


def test_errors_are_written() -> None:
    """Code, message, canonical word; the request's id, the field and the time to wait are details."""
    error = UpstreamRateLimitError("Wait.", param="contents", retry_after=2.5)
    said = json.loads(wire.write_error(error, "req_1"))["error"]
    assert (said["code"], said["message"], said["status"]) == (429, "Wait.", "RESOURCE_EXHAUSTED")
    assert [d["@type"].rpartition(".")[2] for d in said["details"]] == [
        "ErrorInfo",
        "RequestInfo",
        "BadRequest",
        "RetryInfo",
    ]
    assert said["details"][3]["retryDelay"] == "2.500s"
    odd = msgspec.json.decode(wire.write_error(UpstreamRefusedError("x", status=418), "r"))
    assert odd["error"]["status"] == "INVALID_ARGUMENT"
