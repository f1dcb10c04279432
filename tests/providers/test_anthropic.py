"""The Anthropic provider, through the whole endpoint, against a scripted server and our own simulator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from support import Answer, ask, chat, make_app

from firsttoken.settings import AnthropicProvider, Route, Timeouts

MESSAGES = "/v1/messages"
BODY = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


WHOLE = (
    b'{"id":"msg_x", "type":"message","role":"assistant","model":"big",'
    b'"content":[{"type":"text","text":"one two"}],"stop_reason":"end_turn",'
    b'"usage":{"input_tokens":3,"cache_read_input_tokens":4,"output_tokens":2}}'
)
STREAM = b"".join(
    [
        event("message_start", message={"model": "big", "usage": {"input_tokens": 3}}),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("ping"),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"}),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
    ]
)
END = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
OVERLOADED = event("error", error={"type": "overloaded_error", "message": "Overloaded"})


def reply(
    body: bytes, content_type: str = "application/json", status: str = "200 OK", more: str = ""
) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


class Upstream:
    """Answers each request with the same bytes and remembers what was asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.left = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append((first, headers, json.loads(body)))
                writer.write(self.answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.left.set()


def call(  # noqa: PLR0913 - each is one thing that a test varies
    answer: bytes,
    body: Any,
    *,
    path: str = MESSAGES,
    headers: dict[str, str] | None = None,
    check: Callable[[Upstream], None] = lambda _: None,
    provider: dict[str, Any] | None = None,
) -> Answer:
    """Put an endpoint before a scripted server and make one call."""

    async def run() -> Answer:
        upstream = Upstream(answer)
        server = await asyncio.start_server(upstream.handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        app = make_app(
            providers={"up": AnthropicProvider(base_url=url, **{"api_key": "sk-1", **(provider or {})})},
            models={"m": Route(target="up/big")},
            timeouts=Timeouts(first_chunk=5, gap=0.2),
        )
        try:
            return await ask(app, body, path=path, headers=headers)
        finally:
            check(upstream)
            await app.gateway.aclose()
            async with asyncio.timeout(5):
                await upstream.left.wait()
            server.close()

    return asyncio.run(run())


def test_key_version_and_chosen_headers_are_sent() -> None:
    """The key goes where this API wants it; only configured headers of the client are forwarded."""

    def check(upstream: Upstream) -> None:
        first, headers, body = upstream.requests[0]
        assert first == "POST /v1/messages HTTP/1.1"
        assert (headers["x-api-key"], headers["anthropic-version"]) == ("sk-1", "2023-06-01")
        assert headers["anthropic-beta"] == "files-api"
        assert "authorization" not in headers
        assert body == {**BODY, "model": "big"}

    sent = {"anthropic-beta": "files-api", "anthropic-version": "1999-01-01", "x-api-key": "client's"}
    call(reply(WHOLE), BODY, headers=sent, check=check, provider={"forward_headers": ["Anthropic-Beta"]})


def test_a_configured_header_replaces_the_version() -> None:
    """The version is sent once, whichever way it was configured."""

    def check(upstream: Upstream) -> None:
        assert upstream.requests[0][1]["anthropic-version"] == "2030-01-01"

    call(reply(WHOLE), BODY, check=check, provider={"headers": {"anthropic-version": "2030-01-01"}})


def test_answers_pass_byte_by_byte() -> None:
    """A client of this format gets the target's own bytes, whole and streamed."""
    assert call(reply(WHOLE), BODY).body == WHOLE
    answer = call(reply(STREAM + END, "text/event-stream"), {**BODY, "stream": True})
    assert answer.body == STREAM + END
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_a_client_of_another_format_gets_its_own() -> None:
    """The limit of tokens that this API needs is added, and usage counts what was cached."""

    def check(upstream: Upstream) -> None:
        assert upstream.requests[0][2]["max_tokens"] == 77

    answer = call(
        reply(WHOLE), chat(), path="/v1/chat/completions", check=check, provider={"max_tokens": 77}
    ).json()
    assert answer["choices"][0]["message"]["content"] == "one two"
    assert answer["usage"]["prompt_tokens"] == 7
    streamed = call(reply(STREAM + END, "text/event-stream"), chat(stream=True), path="/v1/chat/completions")
    assert streamed.text() == "hi"


@pytest.mark.parametrize(
    ("upstream", "status", "kind"),
    [
        (
            reply(b'{"error":{"type":"invalid_request_error","message":"bad"}}', status="400 Bad"),
            400,
            "invalid_request_error",
        ),
        (reply(b"", status="429 Slow", more="retry-after: 3\r\n"), 429, "rate_limit_error"),
        (reply(b"", status="529 Overloaded", more="retry-after: 3\r\n"), 529, "overloaded_error"),
        (reply(b"", status="401 Unauthorized"), 502, "api_error"),
        (reply(b"<html>"), 502, "api_error"),
        (reply(b"{}"), 502, "api_error"),
        (reply(STREAM[:90], "text/event-stream"), 502, "api_error"),
        (reply(OVERLOADED, "text/event-stream"), 529, "overloaded_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_failures_of_the_target(upstream: bytes, status: int, kind: str, stream: bool) -> None:
    """Every way to fail before the first byte is an answer in this format."""
    answer = call(upstream, {**BODY, "stream": stream})
    assert (answer.status, answer.json()["error"]["type"]) == (status, kind)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    if b"retry-after" in upstream:
        assert answer.headers["retry-after"] == "3"


@pytest.mark.parametrize(("tail", "kind"), [(b"", "api_error"), (OVERLOADED, "overloaded_error")])
def test_an_answer_that_breaks_ends_with_an_error_event(tail: bytes, kind: str) -> None:
    """After the first byte a failure is the last event; it never looks like a whole answer."""
    cut = STREAM[: STREAM.rindex(b"event: message_delta")] + tail
    answer = call(reply(cut, "text/event-stream"), {**BODY, "stream": True})
    events = answer.body.split(b"\n\n")
    assert answer.status == 200
    assert events[-2].startswith(b"event: error\n")
    assert json.loads(events[-2].partition(b"data: ")[2])["error"]["type"] == kind
    assert b"message_stop" not in answer.body


def test_the_target_counts_tokens_itself() -> None:
    """The body reaches the counting path unchanged but for the model."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "future": 1}

    def check(upstream: Upstream) -> None:
        first, headers, sent = upstream.requests[0]
        assert first == "POST /v1/messages/count_tokens HTTP/1.1"
        assert headers["x-api-key"] == "sk-1"
        assert sent == {**body, "model": "big"}

    answer = call(reply(b'{"input_tokens": 14}'), body, path="/v1/messages/count_tokens", check=check)
    assert (answer.status, answer.json()) == (200, {"input_tokens": 14})
    broken = call(reply(b'{"input_tokens": "x"}'), body, path="/v1/messages/count_tokens")
    assert (broken.status, broken.json()["error"]["code"]) == (502, "upstream_protocol")
