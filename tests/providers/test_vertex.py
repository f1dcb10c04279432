"""The Vertex AI provider, through the whole endpoint, against a scripted server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from support import Answer, ask, chat, make_app

from firsttoken.providers import vertex
from firsttoken.settings import Route, Timeouts, VertexProvider
from tests.providers.scripted import Scripted, reply

GENERATE = "/v1/projects/p/locations/us/publishers/google/models/m:generateContent"
TURN: dict[str, Any] = {"role": "user", "parts": [{"text": "hi"}]}
GEMINI = json.dumps(
    {"candidates": [{"content": {"parts": [{"text": "one two"}]}, "finishReason": "STOP"}]}
).encode()
CLAUDE = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [{"type": "text", "text": "one two"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }
).encode()


def call(
    answer: bytes,
    body: Any,
    *,
    model: str,
    path: str = "/v1/chat/completions",
    check: Callable[[Scripted], None] = lambda _: None,
    **settings: Any,
) -> Answer:
    """Put an endpoint before a scripted server and make one call."""

    async def run() -> Answer:
        async with Scripted(answer) as upstream:
            provider = VertexProvider(
                **{"project": "p", "api_key": "token", "base_url": upstream.url, **settings}
            )
            app = make_app(
                providers={"up": provider},
                models={"m": Route(target=f"up/{model}"), "*": Route(target="up/*")},
                timeouts=Timeouts(first_chunk=5, gap=0.5),
            )
            try:
                return await ask(app, body, path=path)
            finally:
                check(upstream)
                await app.gateway.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "https://aiplatform.googleapis.com"),
        ("us", "https://aiplatform.us.rep.googleapis.com"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com"),
        ("europe-west4", "https://europe-west4-aiplatform.googleapis.com"),
    ],
)
def test_hosts(location: str, host: str) -> None:
    """Global, multi-regional and regional locations have hosts of different shapes."""
    settings = VertexProvider(project="my project", location=location, api_version="v1beta1")
    assert vertex.parent(settings) == f"{host}/v1beta1/projects/my%20project/locations/{location}"


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("gemini-3-flash", False, "publishers/google/models/gemini-3-flash:generateContent"),
        ("gemini-3-flash", True, "publishers/google/models/gemini-3-flash:streamGenerateContent?alt=sse"),
        ("endpoints/123", False, "endpoints/123:generateContent"),
        ("claude-opus-5", False, "publishers/anthropic/models/claude-opus-5:rawPredict"),
        ("claude-opus-5@20260101", False, "publishers/anthropic/models/claude-opus-5%4020260101:rawPredict"),
        ("claude-opus-5", True, "publishers/anthropic/models/claude-opus-5:streamRawPredict"),
    ],
)
@pytest.mark.parametrize("by_client", [False, True])
def test_addresses(model: str, stream: bool, path: str, by_client: bool) -> None:
    """The name says whose model it is, configured or said by the client, and with it the operation."""

    def check(upstream: Scripted) -> None:
        (request,) = upstream.requests
        assert request.line.split()[1] == f"/v1/projects/p/locations/global/{path}"
        assert request.headers["authorization"] == "Bearer token"

    whole = CLAUDE if model.startswith("claude") else GEMINI
    body = chat(stream=stream, model=model if by_client else "m")
    answer = call(reply(whole), body, model=model, check=check)
    said = answer.text() if stream else answer.json()["choices"][0]["message"]["content"]
    assert said == "one two"


def test_claude_s_body() -> None:
    """Anthropic's format, without the model, with the version that Vertex AI wants in the body."""

    def check(upstream: Scripted) -> None:
        sent = json.loads(upstream.requests[0].body)
        assert "model" not in sent
        assert sent["anthropic_version"] == "vertex-2023-10-16"
        assert sent["max_tokens"] == 77
        assert sent["messages"][0]["role"] == "user"

    assert call(reply(CLAUDE), chat(), model="claude-x", check=check, max_tokens=77).status == 200


@pytest.mark.parametrize(
    ("traffic", "header"),
    [
        ("priority", "x-vertex-ai-llm-shared-request-type"),
        ("flex", "x-vertex-ai-llm-shared-request-type"),
        ("shared", "x-vertex-ai-llm-request-type"),
        ("dedicated", "x-vertex-ai-llm-request-type"),
        ("", ""),
    ],
)
def test_kinds_of_traffic(traffic: str, header: str) -> None:
    """The kind of traffic is asked for in a header."""

    def check(upstream: Scripted) -> None:
        asked = {k: v for k, v in upstream.requests[0].headers.items() if k.startswith("x-vertex")}
        assert asked == ({header: traffic} if traffic else {})

    assert call(reply(GEMINI), chat(), model="gemini-3-flash", check=check, traffic=traffic).status == 200


def test_ids_of_calls_are_left_out() -> None:
    """Vertex AI refuses ids in calls and responses; a client that got some elsewhere may still send them."""
    call_part = {"functionCall": {"id": "a", "name": "f", "args": {"id": 1}}, "thoughtSignature": "c2ln"}
    response = {"function_response": {"id": "a", "name": "f", "response": {"id": "kept"}}}
    turns = [TURN, {"role": "model", "parts": [call_part]}, {"role": "user", "parts": [response]}]
    body = {"contents": turns, "cachedContent": "projects/p/locations/us/cachedContents/1"}

    def check(upstream: Scripted) -> None:
        sent = json.loads(upstream.requests[0].body)
        assert sent["contents"][1]["parts"] == [
            {"functionCall": {"name": "f", "args": {"id": 1}}, "thoughtSignature": "c2ln"}
        ]
        assert sent["contents"][2]["parts"] == [
            {"functionResponse": {"name": "f", "response": {"id": "kept"}}}
        ]
        assert sent["cachedContent"] == body["cachedContent"]

    assert call(reply(GEMINI), body, model="gemini-3-flash", path=GENERATE, check=check).status == 200


def test_bytes_of_the_same_format_pass_unchanged() -> None:
    """A body without ids goes as it is."""
    body = b'{ "contents" : [{"parts":{"text":"hi"}}] , "cachedContent": "c" }'

    def check(upstream: Scripted) -> None:
        assert upstream.requests[0].body == body

    answer = call(reply(GEMINI), body, model="gemini-3-flash", path=GENERATE, check=check)
    assert answer.body == GEMINI
