"""The Gemini provider, through the whole endpoint, against a scripted server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from support import Answer, ask, chat, make_app

from firsttoken.errors import ConfigError
from firsttoken.settings import GeminiProvider, Route, Timeouts
from tests.providers.scripted import Scripted, reply

GENERATE = "/v1beta/models/m:generateContent"
STREAM = "/v1beta/models/m:streamGenerateContent?alt=sse"
BODY = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "safetySettings": [{"category": "x"}]}


def event(text: str, finish: str = "") -> bytes:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    counts = {"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 3}
    counts |= {"cachedContentTokenCount": 4, "totalTokenCount": 10}
    answer = {"candidates": [candidate], "usageMetadata": counts, "modelVersion": "big"}
    return b"data: " + json.dumps(answer).encode() + b"\r\n\r\n"


EVENTS = event("one") + event(" two", "STOP")
WHOLE = event("one two", "STOP").removeprefix(b"data: ").strip()


def error(code: int, status: str, message: str = "no", **detail: Any) -> bytes:
    said = {"code": code, "message": message, "status": status, "details": [detail] if detail else []}
    return json.dumps({"error": said}).encode()


def call(  # noqa: PLR0913 - each is one thing that a test varies
    answer: bytes,
    body: Any = BODY,
    *,
    path: str = GENERATE,
    target: str = "up/gemini-3-flash",
    check: Callable[[Scripted], None] = lambda _: None,
    provider: dict[str, Any] | None = None,
) -> Answer:
    """Put an endpoint before a scripted server and make one call."""

    async def run() -> Answer:
        async with Scripted(answer) as upstream:
            settings = GeminiProvider(base_url=f"{upstream.url}/v1beta", **(provider or {}))
            app = make_app(
                providers={"up": settings},
                models={"m": Route(target=target)},
                timeouts=Timeouts(first_chunk=5, gap=0.5),
            )
            try:
                return await ask(app, body, path=path)
            finally:
                check(upstream)
                await app.gateway.aclose()

    return asyncio.run(run())


def test_whole_answers_pass_byte_by_byte() -> None:
    """Request and answer are what client and target wrote; model and operation are in the path."""
    body = json.dumps(BODY).encode()

    def check(upstream: Scripted) -> None:
        (request,) = upstream.requests
        assert request.line == "POST /v1beta/models/gemini-3-flash:generateContent HTTP/1.1"
        assert request.headers["x-goog-api-key"] == "ours"
        assert request.headers["accept"] == "application/json"
        assert request.body == body

    answer = call(reply(WHOLE), body, check=check, provider={"api_key": "ours"})
    assert (answer.status, answer.body) == (200, WHOLE)


def test_streams_pass_byte_by_byte() -> None:
    """The events are the target's own, and nothing is added: the format has no end mark."""

    def check(upstream: Scripted) -> None:
        (request,) = upstream.requests
        assert request.line.split()[1] == "/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse"
        assert request.headers["accept"] == "text/event-stream"
        assert "x-goog-api-key" not in request.headers

    answer = call(reply(EVENTS, "text/event-stream"), path=STREAM, check=check)
    assert answer.body == EVENTS
    assert answer.headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize("stream", [False, True])
def test_clients_of_another_format(stream: bool) -> None:
    """An OpenAI client gets the same text; tokens of thoughts are output, cached ones are input."""

    def check(upstream: Scripted) -> None:
        sent = json.loads(upstream.requests[0].body)
        assert sent == {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}

    answer = call(
        reply(EVENTS, "text/event-stream") if stream else reply(WHOLE),
        chat(stream=stream, stream_options={"include_usage": True} if stream else None),
        path="/v1/chat/completions",
        check=check,
    )
    usage = answer.events()[-2]["usage"] if stream else answer.json()["usage"]
    said = answer.text() if stream else answer.json()["choices"][0]["message"]["content"]
    assert said == "one two"
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 5)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 4
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 3


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-3-flash", "/v1beta/models/gemini-3-flash:generateContent"),
        ("tunedModels/mine", "/v1beta/tunedModels/mine:generateContent"),
        ("*", "/v1beta/models/m:generateContent"),
        ("odd name?", "/v1beta/models/odd%20name%3F:generateContent"),
    ],
)
def test_names_of_models(model: str, path: str) -> None:
    """A name is a part of the path, tuned models have their own collection, ``*`` takes the client's name."""

    def check(upstream: Scripted) -> None:
        assert upstream.requests[0].line.split()[1] == path

    assert call(reply(WHOLE), target=f"up/{model}", check=check).status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_target_that_answers_in_the_other_shape(stream: bool) -> None:
    """A whole answer to a streamed request is streamed on, and the other way round."""
    other = reply(WHOLE) if stream else reply(EVENTS, "text/event-stream")
    answer = call(other, path=STREAM if stream else GENERATE)
    body = answer.body.decode()
    answers = [json.loads(line.removeprefix("data: ")) for line in body.split("\r\n\r\n") if line]
    parts = [part for item in answers for part in item["candidates"][0]["content"]["parts"]]
    assert "".join(part["text"] for part in parts) == "one two"
    assert answers[-1]["candidates"][0]["finishReason"] == "STOP"


def test_an_array_for_a_stream() -> None:
    """A proxy that drops ``alt=sse`` makes the target answer with an array: it is read, too."""
    items = b",".join([e.removeprefix(b"data: ") for e in EVENTS.split(b"\r\n\r\n") if e])
    answer = call(reply(b"[" + items + b"]"), chat(stream=True), path="/v1/chat/completions")
    assert answer.text() == "one two"


@pytest.mark.parametrize(
    ("upstream", "status", "code"),
    [
        (reply(error(400, "INVALID_ARGUMENT", "bad x"), status="400 Bad Request"), 400, "INVALID_ARGUMENT"),
        (
            reply(error(429, "RESOURCE_EXHAUSTED", retryDelay="3.2s"), status="429 Too Many Requests"),
            429,
            "RESOURCE_EXHAUSTED",
        ),
        (reply(error(403, "PERMISSION_DENIED"), status="403 Forbidden"), 502, "UNAVAILABLE"),
        (reply(error(503, "UNAVAILABLE"), status="503 Service Unavailable"), 503, "UNAVAILABLE"),
        (reply(error(504, "DEADLINE_EXCEEDED"), status="504 Gateway Timeout"), 504, "DEADLINE_EXCEEDED"),
        (reply(b"<html>", status="500 Internal Server Error"), 502, "UNAVAILABLE"),
        (reply(b"<html>"), 502, "UNAVAILABLE"),
        (reply(b"{}"), 502, "UNAVAILABLE"),
        (reply(event("half"), "text/event-stream"), 502, "UNAVAILABLE"),
        (reply(b"data: " + error(503, "UNAVAILABLE") + b"\r\n\r\n", "text/event-stream"), 503, "UNAVAILABLE"),
        (reply(error(503, "UNAVAILABLE"), "text/event-stream"), 503, "UNAVAILABLE"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_failures_of_the_target(upstream: bytes, status: int, code: str, stream: bool) -> None:
    """Every way to fail has its status, before the first byte as an answer, after it as an event."""
    answer = call(upstream, path=STREAM if stream else GENERATE)
    last = answer.body.decode().strip().rpartition("data: ")[2]
    said = json.loads(last)["error"]
    assert (said["code"], said["status"]) == (status, code)
    if answer.status != 200:
        assert answer.status == status
    if status == 429:
        assert answer.headers["retry-after"] == "4"


def test_a_key_that_cannot_be_sent_stops_the_start() -> None:
    """A key with a line break is a mistake in the configuration."""
    with pytest.raises(ConfigError, match=r"providers\.up\.api_key"):
        make_app(providers={"up": GeminiProvider(api_key="a\nb")}, models={"m": Route(target="up/m")})
