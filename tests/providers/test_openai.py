"""The OpenAI-compatible provider, through the whole endpoint, against a scripted server on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from support import Answer, ask, chat, make_app

from firsttoken.errors import ConfigError
from firsttoken.settings import OpenAIProvider, Route, Timeouts

EVENT = b'data: {"model":"big","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":%s}]}\n\n'
STREAM = EVENT % (b"one", b"null") + EVENT % (b" two", b'"stop"')
WHOLE = (
    b'{"id":"x", "choices":[{"index":0,"message":{"role":"assistant","content":"one two"},'
    b'"finish_reason":"stop"}]}'
)


def reply(
    body: bytes, content_type: str = "application/json", status: str = "200 OK", more: str = ""
) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


class Upstream:
    """Answers each request with the same bytes and remembers what was asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.left = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append((headers, body))
                writer.write(self.answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


def call(  # noqa: PLR0913 - each is one thing that a test varies
    answer: bytes,
    body: Any,
    *,
    target: str = "up/m",
    headers: dict[str, str] | None = None,
    check: Callable[[Upstream], None] = lambda _: None,
    provider: dict[str, Any] | None = None,
) -> Answer:
    """Put an endpoint before a scripted server and make one call."""

    async def run() -> Answer:
        upstream = Upstream(answer)
        server = await asyncio.start_server(upstream.handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/"
        app = make_app(
            providers={"up": OpenAIProvider(base_url=url, **(provider or {}))},
            models={"m": Route(target=target)},
            timeouts=Timeouts(first_chunk=5, gap=0.1),
        )
        try:
            return await ask(app, body, headers=headers)
        finally:
            check(upstream)
            await app.gateway.aclose()
            server.close()

    return asyncio.run(run())


def test_whole_answers_pass_byte_by_byte() -> None:
    """Request and answer are what client and target wrote."""
    body = json.dumps(chat(future=[1.50], logprobs=True)).encode()

    def check(upstream: Upstream) -> None:
        headers, sent = upstream.requests[0]
        assert sent == body
        assert headers["accept"] == "application/json"
        assert "authorization" not in headers

    answer = call(reply(WHOLE), body, check=check)
    assert (answer.status, answer.body) == (200, WHOLE)


def test_streams_pass_byte_by_byte() -> None:
    """The events are the target's own, and the end mark follows when they are complete."""
    answer = call(reply(STREAM + b"data: [DONE]\n\n", "text/event-stream"), chat(stream=True))
    assert answer.body == STREAM + b"data: [DONE]\n\n"


def test_a_stream_without_end_mark_but_with_a_finish_is_complete() -> None:
    """Some servers leave the end mark out; clients still get it."""
    assert call(reply(STREAM, "text/event-stream"), chat(stream=True)).events()[-1] == "[DONE]"


def test_keys_headers_and_model_of_the_target() -> None:
    """Our key replaces the client's, only named headers are forwarded, the model's name is the target's."""

    def check(upstream: Upstream) -> None:
        headers, sent = upstream.requests[0]
        assert headers["authorization"] == "Bearer ours"
        assert headers["x-team"] == "a"
        assert headers["x-trace"] == "t"
        assert "x-secret" not in headers
        assert json.loads(sent)["model"] == "big"

    sent = {"authorization": "Bearer client", "X-Trace": "t", "x-secret": "s"}
    provider = {"api_key": "ours", "headers": {"x-team": "a"}, "forward_headers": ["X-Trace"]}
    call(reply(WHOLE), chat(), target="up/big", headers=sent, check=check, provider=provider)


@pytest.mark.parametrize("stream", [False, True])
def test_a_target_that_answers_in_the_other_shape(stream: bool) -> None:
    """A whole answer to a streamed request is streamed on, and the other way round."""
    other = reply(WHOLE) if stream else reply(STREAM + b"data: [DONE]\n\n", "text/event-stream")
    answer = call(other, chat(stream=stream))
    said = answer.text() if stream else answer.json()["choices"][0]["message"]["content"]
    assert said == "one two"


@pytest.mark.parametrize(
    ("upstream", "status", "code"),
    [
        (
            reply(b'{"error":{"message":"bad","param":"x","code":"odd"}}', status="400 Bad Request"),
            400,
            "odd",
        ),
        (reply(b"", status="429 Too Many Requests", more="retry-after: 3\r\n"), 429, "rate_limit_exceeded"),
        (reply(b"", status="401 Unauthorized"), 502, "upstream_auth"),
        (reply(b"", status="500 Internal Server Error"), 502, "upstream_error"),
        (reply(b"", status="302 Found", more="location: http://169.254.169.254/\r\n"), 502, "upstream_error"),
        (reply(b"<html>"), 502, "upstream_protocol"),
        (reply(b"{}"), 502, "upstream_protocol"),
        (reply(b"data: {}\n\n", "text/event-stream"), 502, "upstream_closed"),
        (reply(b'data: {"error": {"message": "x"}}\n\n', "text/event-stream"), 502, "upstream_error"),
        (b"garbage\r\n\r\n", 502, "upstream_protocol"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_failures_of_the_target(upstream: bytes, status: int, code: str, stream: bool) -> None:
    """Every way to fail has its status and code, before the first byte as an answer, after it as an event."""
    answer = call(upstream, chat(stream=stream))
    error = (answer.events()[-1] if answer.status == 200 else answer.json())["error"]
    assert error["code"] == code
    if answer.status != 200:
        assert answer.status == status
    if status == 429:
        assert answer.headers["retry-after"] == "3"


def test_a_dead_target_is_named_without_its_address() -> None:
    """The client learns that the target cannot be reached, not where it is."""

    async def run() -> Answer:
        app = make_app(
            providers={"up": OpenAIProvider(base_url="http://127.0.0.1:9/v1")},
            models={"m": Route(target="up/m")},
        )
        return await ask(app, chat())

    answer = asyncio.run(run())
    assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert b"127.0.0.1" not in answer.body


@pytest.mark.parametrize("key", ["a\nb", "schlüssel"])
def test_a_key_that_cannot_be_sent_stops_the_start(key: str) -> None:
    """A key with a line break or non-ASCII characters is a mistake in the configuration."""
    with pytest.raises(ConfigError, match=r"providers\.up\.api_key") as caught:
        make_app(
            providers={"up": OpenAIProvider(base_url="http://x", api_key=key)},
            models={"m": Route(target="up/m")},
        )
    assert key not in str(caught.value)


class TwoPackets(Upstream):
    """Sends the end of a streamed body, if at all, in a packet behind its end mark."""

    def __init__(self, *, ends: bool) -> None:
        super().__init__(b"")
        self.ends = ends
        self.connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        body = STREAM + b"data: [DONE]\n\n"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                asked = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(asked.split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(head + b"%x\r\n%s\r\n" % (len(body), body))
                await writer.drain()
                if self.ends:
                    writer.write(b"0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize("ends", [True, False])
def test_the_end_of_the_body_may_come_late(ends: bool) -> None:
    """The connection is kept; an end that never comes costs the connection and not the answer."""

    async def run() -> tuple[list[Answer], int]:
        upstream = TwoPackets(ends=ends)
        server = await asyncio.start_server(upstream.handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        app = make_app(providers={"up": OpenAIProvider(base_url=url)}, models={"m": Route(target="up/m")})
        answers = [await ask(app, chat(stream=True)) for _ in range(2)]
        await app.gateway.aclose()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)
        return answers, upstream.connections

    answers, connections = asyncio.run(run())
    assert all(answer.text() == "one two" and answer.events()[-1] == "[DONE]" for answer in answers)
    assert connections == (1 if ends else 2)
