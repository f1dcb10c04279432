"""What the head of an answer says: times and traces, in and out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from support import ask, chat, make_app, simulate
from telemetry.records import attempt, record

from firsttoken.model import Call, Chunk
from firsttoken.settings import Telemetry
from firsttoken.telemetry.head import server_timing
from firsttoken.telemetry.record import Record
from firsttoken.telemetry.trace import begin, parse

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLIENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "queue;dur=10.0, upstream;dur=180.0, total;dur=250.0"),
        ({"cache": "hit", "attempts": []}, "cache;desc=hit, total;dur=250.0"),
        ({"coalesced": True}, "total;dur=250.0"),
        ({"attempts": [attempt(first_chunk=None)]}, "queue;dur=10.0, total;dur=250.0"),
        (
            {"attempts": [attempt(first_chunk=None), attempt(started=100.1, cached_tokens=1)]},
            "queue;dur=10.0, failed;dur=90.0, upstream;dur=90.0, total;dur=250.0",
        ),
    ],
)
def test_server_timing(fields: dict[str, Any], said: str) -> None:
    """It names what is known when the answer begins, in milliseconds."""
    assert server_timing(record(**fields), 100.25) == said


_TIMING = re.compile(r"[a-z]+(;dur=\d+\.\d|;desc=[a-z]+)(, [a-z]+(;dur=\d+\.\d|;desc=[a-z]+))*")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("spec", ["", "fault=status,status=503"])
def test_answers_and_errors_carry_it(spec: str, stream: bool) -> None:
    """Streamed or whole, good or bad."""
    answer = asyncio.run(ask(make_app(), chat(stream=stream), headers=simulate(spec) if spec else {}))
    assert (answer.status == 200) == (not spec)
    said = answer.headers["server-timing"]
    assert _TIMING.fullmatch(said), said
    assert said.startswith("queue;dur=")
    assert ("upstream;dur=" in said) == (not spec)


def test_it_can_be_turned_off() -> None:
    """And is not said of what is no call."""
    app = make_app(telemetry=Telemetry(server_timing=False))
    assert "server-timing" not in asyncio.run(ask(app, chat())).headers
    assert "server-timing" not in asyncio.run(ask(make_app(), method="GET", path="/healthz")).headers


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        CLIENT.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\r\nx: y",
    ],
)
def test_what_is_no_trace_is_taken_out(header: str) -> None:
    """A header that the standard calls invalid is not passed on, nor what belongs to it."""
    headers, call = {"traceparent": header, "tracestate": "a=b", "x": "y"}, Record()
    begin(call, headers, always=False)
    assert (headers, call.trace, call.parent) == ({"x": "y"}, "", "")


@pytest.mark.parametrize("header", [CLIENT, f"01-{TRACE}-{SPAN}-01-more", f" {CLIENT} "])
def test_a_trace_is_gone_on_with(header: str) -> None:
    """The client's trace and decision to sample are kept; its span becomes the parent of ours."""
    headers, call = {"traceparent": header, "tracestate": "a=b"}, Record()
    begin(call, headers, always=False)
    found = parse(call.trace)
    assert found is not None
    assert (found[0], found[2], call.parent) == (TRACE, "01", SPAN)
    assert found[1] != SPAN
    assert headers == {"traceparent": call.trace, "tracestate": "a=b"}
    assert call.summary()["trace_id"] == TRACE


def test_a_new_trace() -> None:
    """One begins only where somebody looks at it."""
    headers, call = {}, Record()
    begin(call, headers, always=False)
    assert (headers, call.trace) == ({}, "")
    begin(call, headers, always=True)
    assert parse(call.trace)
    assert call.parent == ""


def test_the_trace_goes_through_a_call() -> None:
    """The client gets our span, and what is called gets it as its parent."""
    records: list[Record] = []
    app = make_app(records)
    seen: list[Any] = []

    class Upstream:
        async def stream(self, call: Call) -> AsyncGenerator[Chunk]:
            seen.append(dict(call.headers))
            yield Chunk(text="hi", finish="stop")

    app.gateway.routes["m"] = Upstream()
    answer = asyncio.run(ask(app, chat(), headers={"traceparent": CLIENT}))
    assert answer.headers["traceparent"] == seen[0]["traceparent"] == records[0].trace
    assert records[0].parent == SPAN
    assert "traceparent" not in asyncio.run(ask(app, chat())).headers
