"""Streams without ``alt=sse`` at the Gemini endpoint: one JSON array."""

from __future__ import annotations

import asyncio

import pytest
from support import ask, make_app, simulate

BODY = {"contents": [{"parts": [{"text": "hi"}]}]}
STREAM = "/v1beta/models/m:streamGenerateContent"


@pytest.mark.parametrize("query", ["", "?key=k", "?alt=json"])
def test_a_stream_without_alt_sse_is_one_array(query: str) -> None:
    """Its items are the events, sent as they come; the last one has the reason to finish."""
    answer = asyncio.run(ask(make_app(), BODY, path=STREAM + query))
    assert answer.headers["content-type"].startswith("application/json")
    assert len(answer.pieces) > 5
    items = answer.json()
    texts = [part["text"] for item in items for part in item["candidates"][0]["content"]["parts"]]
    assert "".join(texts).startswith("You said: hi")
    assert items[-1]["candidates"][0]["finishReason"] == "STOP"


def test_an_array_that_breaks_ends_with_the_error() -> None:
    """It is still JSON, and never looks like a whole answer."""
    answer = asyncio.run(ask(make_app(), BODY, path=STREAM, headers=simulate("fault=error_event,after=2")))
    *_, last = answer.json()
    assert last["error"]["status"] == "UNAVAILABLE"


def test_events_are_for_those_who_ask() -> None:
    """The SDK always does; with an API key of Vertex AI alone it leaves project and location out."""
    path = "/v1beta1/publishers/google/models/m:streamGenerateContent?alt=sse"
    answer = asyncio.run(ask(make_app(), BODY, path=path))
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.body.startswith(b"data: ")
