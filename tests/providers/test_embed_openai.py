"""Embeddings of OpenAI-compatible servers, through the whole endpoint, against a scripted server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsttoken.settings import OpenAIProvider
from tests.providers.embed_server import Reply, embed, vectors

SAID = (
    b'{"object":"list","data":[{"index":0,"embedding":[0.5,1.50]}],"model":"big","usage":{"prompt_tokens":4}}'
)


def provider(url: str) -> OpenAIProvider:
    return OpenAIProvider(base_url=f"{url}/v1/", api_key="ours", forward_headers=["x-trace"])


def test_bytes_pass_in_both_directions() -> None:
    """Request and answer are what client and target wrote; key and headers are ours and the named ones."""
    body = json.dumps({"model": "m", "input": [1, 2], "future": 1.50}).encode()
    sent = {"x-trace": "t", "x-secret": "s", "authorization": "Bearer client"}
    answer, upstream = embed(lambda *_: (200, {}, SAID), body, provider, headers=sent)
    assert (answer.status, answer.body) == (200, SAID)
    (request,) = upstream.requests
    assert (request.path, request.raw) == ("/v1/embeddings", body)
    assert request.headers["authorization"] == "Bearer ours"
    assert request.headers["x-trace"] == "t"
    assert "x-secret" not in request.headers


def test_the_model_of_the_target() -> None:
    """Only the model's name is replaced when the route says so; ``*`` passes the client's on."""
    body = {"model": "m", "input": "x"}
    _, upstream = embed(lambda *_: (200, {}, SAID), body, provider, target="up/big")
    assert upstream.requests[0].body == {"model": "big", "input": "x"}
    _, upstream = embed(lambda *_: (200, {}, SAID), body, provider, target="up/*")
    assert upstream.requests[0].body == body


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        ((400, {}, {"error": {"message": "bad", "param": "input", "code": "odd"}}), 400, "odd"),
        ((429, {"retry-after": "3"}, b""), 429, "rate_limit_exceeded"),
        ((401, {}, b""), 502, "upstream_auth"),
        ((500, {}, b""), 502, "upstream_error"),
        ((200, {}, b"<html>"), 502, "upstream_protocol"),
        ((200, {}, {"data": []}), 502, "upstream_protocol"),
    ],
)
def test_failures_of_the_target(reply: Reply, status: int, code: str) -> None:
    """Every way to fail has its status and code, in the shape of OpenAI's errors."""
    answer, _ = embed(lambda *_: reply, {"model": "m", "input": "x"}, provider)
    error: Any = answer.json()["error"]
    assert (answer.status, error["code"]) == (status, code)
    assert error["request_id"] == answer.headers["x-request-id"]


def test_a_target_that_ignores_the_encoding() -> None:
    """A client that asks for base64 gets it from a target that knows only numbers."""
    body = {"model": "m", "input": "x", "encoding_format": "base64"}
    answer, _ = embed(lambda *_: (200, {}, SAID), body, provider)
    assert answer.json()["data"][0]["embedding"] == "AAAAPwAAwD8="
    assert vectors(answer)
