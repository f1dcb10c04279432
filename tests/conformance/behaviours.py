"""The behaviours that every runtime must show, each as one function on a running endpoint.

`CANNOT` lists the cells that a platform makes impossible; their functions are then called with
``possible=False`` and assert what happens instead, so that a platform that learns it is noticed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import aiohttp
import openai
import pytest
from endpoints import KEY, Endpoint, state
from openai.types.chat import ChatCompletionChunk

PROMPT = "Say naïve 東京 🙂"
BODY: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": PROMPT}]}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
STREAMS = 100

NOT_TOLD = (
    "Lambda does not tell a function that its client left; it runs on and is billed (documented by AWS)"
)
BUFFERS = "AWS's emulator hands an answer over when it is complete"
ONE = "AWS's emulator takes one invocation at a time; the calls wait for each other and all are answered"
CANNOT = {
    ("aws", "a client that leaves stops the upstream within 1 s"): NOT_TOLD,
    ("aws-web-adapter", "a client that leaves stops the upstream within 1 s"): (
        "the adapter is not told either (the app under it stops at once, which is what is tested here)"
    ),
    ("aws-rie", "a client that leaves stops the upstream within 1 s"): NOT_TOLD,
    ("aws-rie", "chunks arrive one by one"): BUFFERS,
    ("aws-rie", "heartbeats while the model is silent"): "the comments arrive, but together with the answer: "
    + BUFFERS,
    ("aws-rie", f"{STREAMS} concurrent streams"): ONE,
}
TESTED_AS_POSSIBLE = {("aws-web-adapter", "a client that leaves stops the upstream within 1 s")}

Behaviour = Callable[[Endpoint, bool], Awaitable[None]]
BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(name: str) -> Callable[[Behaviour], Behaviour]:
    """Register a behaviour under its name in the table."""

    def register(function: Behaviour) -> Behaviour:
        BEHAVIOURS[name] = function
        return function

    return register


@asynccontextmanager
async def sdk(endpoint: Endpoint, key: str = KEY) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official SDK, pointed at the endpoint."""
    async with openai.AsyncOpenAI(
        base_url=f"{endpoint.url}/v1", api_key=key, max_retries=0, timeout=60
    ) as client:
        yield client


@asynccontextmanager
async def post(
    endpoint: Endpoint, body: Any, simulate: str = "", key: str = KEY
) -> AsyncIterator[aiohttp.ClientResponse]:
    """A plain HTTP client that shows bytes as they come."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    if simulate:
        headers["x-firsttoken-simulate"] = simulate
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=90)) as session,
        session.post(f"{endpoint.url}/v1/chat/completions", data=data, headers=headers) as answer,
    ):
        yield answer


async def text_of(stream: openai.AsyncStream[ChatCompletionChunk]) -> str:
    """Collect the text of a stream."""
    return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


async def error_of(endpoint: Endpoint, body: Any, key: str = KEY) -> tuple[int, dict[str, Any]]:
    """Return status and error object of an answer, after checking the shape that all errors have."""
    async with post(endpoint, body, key=key) as answer:
        error = (await answer.json())["error"]
        assert set(error) == {"message", "type", "param", "code", "request_id"}
        assert answer.headers["x-request-id"] == error["request_id"]
        return answer.status, error


@behaviour("cold start: the first call is answered")
async def cold_start(endpoint: Endpoint, possible: bool) -> None:
    """Nothing was asked before; this test comes first for each runtime."""
    assert possible
    async with sdk(endpoint) as client:
        stream = await client.chat.completions.create(**BODY, stream=True)
        assert (await text_of(stream)).startswith("You said:")


@behaviour("a whole answer")
async def whole(endpoint: Endpoint, possible: bool) -> None:
    """Text, finish reason and usage through the official SDK."""
    assert possible
    async with sdk(endpoint) as client:
        answer = await client.chat.completions.create(**BODY)
        assert (answer.choices[0].message.content or "").startswith(f"You said: {PROMPT}")
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 12
        assert [model.id async for model in client.models.list()] == ["chat", "later", "two"]


@behaviour("a streamed answer, the same text")
async def streamed(endpoint: Endpoint, possible: bool) -> None:
    """The stream says what the whole answer says, through the official SDK."""
    assert possible
    async with sdk(endpoint) as client:
        answer = await client.chat.completions.create(**BODY)
        stream = await client.chat.completions.create(**BODY, stream=True)
        assert await text_of(stream) == answer.choices[0].message.content


@behaviour("chunks arrive one by one")
async def one_by_one(endpoint: Endpoint, possible: bool) -> None:
    """With 60 ms between the provider's tokens, arrivals are spread: the first comes long before the last."""
    arrivals: list[float] = []
    async with post(endpoint, {**BODY, "stream": True}, "ttft_ms=20,itl_ms=60,tokens=8") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for data in answer.content.iter_any():
            arrivals.extend([time.monotonic()] * data.count(b'"content":"'))
    spread = arrivals[-1] - arrivals[0]
    distinct = 1 + sum(later - earlier > 0.01 for earlier, later in pairwise(arrivals))
    if possible:
        assert spread > 0.3
        assert distinct >= 7
    else:
        assert distinct == 1


@behaviour("characters split across packets stay whole")
async def characters(endpoint: Endpoint, possible: bool) -> None:
    """The provider sends three bytes at a time; the text is the same, byte for byte."""
    assert possible
    async with sdk(endpoint) as client:
        header = {"x-firsttoken-simulate": "slice=3"}
        stream = await client.chat.completions.create(**BODY, stream=True, extra_headers=header)
        assert (await text_of(stream)).startswith(f"You said: {PROMPT}")


@behaviour("tool calls, streamed and whole")
async def tools(endpoint: Endpoint, possible: bool) -> None:
    """Name and arguments arrive, and the tool's answer goes back in."""
    assert possible
    messages: list[Any] = [{"role": "user", "content": "please use get_weather"}]
    async with sdk(endpoint) as client:
        whole = await client.chat.completions.create(model="chat", messages=messages, tools=[TOOL])
        call = (whole.choices[0].message.tool_calls or [])[0]
        assert call.type == "function"
        assert json.loads(call.function.arguments) == {"city": "please use get_weather"}
        stream = await client.chat.completions.create(
            model="chat", messages=messages, tools=[TOOL], stream=True
        )
        deltas = [c.choices[0].delta async for c in stream if c.choices]
        parts = [t.function for d in deltas for t in d.tool_calls or () if t.function]
        assert "".join(p.arguments or "" for p in parts) == call.function.arguments
        assert next(p.name for p in parts if p.name) == "get_weather"
        messages += [whole.choices[0].message.model_dump(exclude_none=True)]
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        after = await client.chat.completions.create(model="chat", messages=messages, tools=[TOOL])
        assert (after.choices[0].message.content or "").startswith("The tool says: sunny")


@behaviour("usage at the end of a stream")
async def usage(endpoint: Endpoint, possible: bool) -> None:
    """Token counts come when the client asks for them."""
    assert possible
    async with sdk(endpoint) as client:
        stream = await client.chat.completions.create(
            **BODY, stream=True, stream_options={"include_usage": True}
        )
        counts = [chunk.usage.completion_tokens async for chunk in stream if chunk.usage]
        assert counts == [12]


@behaviour("heartbeats while the model is silent")
async def heartbeats(endpoint: Endpoint, possible: bool) -> None:
    """Comments come before the first token when that takes long; the SDK reads over them."""
    async with post(endpoint, {**BODY, "stream": True}, "ttft_ms=700") as answer:
        first = await answer.content.readany()
        rest = await answer.content.read()
    assert (first + rest).count(b": keep-alive\n\n") >= 2
    assert (first + rest).endswith(b"data: [DONE]\n\n")
    if possible:
        assert b"content" not in first
    else:
        assert b"content" in first + rest


@behaviour("a client that leaves stops the upstream within 1 s")
async def leaves(endpoint: Endpoint, possible: bool) -> None:
    """The provider sees its connection close, long before its answer would be complete."""
    before = (await state(endpoint))["disconnected"]
    async with post(
        endpoint, {**BODY, "stream": True}, "itl_ms=50,tokens=40" if not possible else "itl_ms=50,tokens=400"
    ) as answer:
        await answer.content.readany()
    if possible:
        async with asyncio.timeout(1):
            while (await state(endpoint))["disconnected"] == before:
                await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        while (await state(endpoint))["active"]:
            await asyncio.sleep(0.02)
    assert (await state(endpoint))["disconnected"] == before + possible


@behaviour("an error before the first byte has its status")
async def error_before(endpoint: Endpoint, possible: bool) -> None:
    """A rate limit of the provider reaches the client with the time to wait."""
    assert possible
    header = {"x-firsttoken-simulate": "fault=status,status=429,retry_after=7"}
    async with sdk(endpoint) as client:
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(**BODY, stream=stream, extra_headers=header)
            assert caught.value.response.headers["retry-after"] == "7"


@behaviour("an error after the first byte is an event, without the end mark")
async def error_after(endpoint: Endpoint, possible: bool) -> None:
    """A provider whose connection breaks in mid-answer never looks like a whole answer."""
    assert possible
    for fault in ("cut", "reset", "malformed"):
        async with post(endpoint, {**BODY, "stream": True}, f"fault={fault},itl_ms=10") as answer:
            data = await answer.content.read()
        assert answer.status == 200
        assert b'"content":"You"' in data
        assert b'{"error":{' in data.rsplit(b"\n\n", 2)[-2]
        assert b"[DONE]" not in data
    async with sdk(endpoint) as client:
        header = {"x-firsttoken-simulate": "fault=cut,itl_ms=10"}
        stream = await client.chat.completions.create(**BODY, stream=True, extra_headers=header)
        with pytest.raises(openai.APIError) as caught:
            await text_of(stream)
        assert caught.value.code == "upstream_closed"


@behaviour("a dead target is replaced by the next one")
async def failover(endpoint: Endpoint, possible: bool) -> None:
    """The client gets the answer, and is told who gave it after how many attempts."""
    assert possible
    body = {**BODY, "model": "two"}
    for stream in (False, True):
        async with post(endpoint, {**body, "stream": stream}) as answer:
            data = await answer.content.read()
        assert answer.status == 200
        assert answer.headers["x-firsttoken-target"] == "upstream/simulated"
        assert answer.headers["x-firsttoken-attempts"] == "2"
        assert b"[DONE]" in data if stream else b'"finish_reason":"stop"' in data


@behaviour("a stream that breaks is gone on with by the next target")
async def resume(endpoint: Endpoint, possible: bool) -> None:
    """The client gets one answer without repeats: the text of one that did not break."""
    assert possible
    body = {**BODY, "model": "two"}
    async with sdk(endpoint) as client:
        whole = await text_of(await client.chat.completions.create(**body, stream=True))
        for fault in ("cut", "reset", "malformed", "error_event"):
            header = {"x-firsttoken-simulate": f"fault={fault},after=7"}
            stream = await client.chat.completions.create(**body, stream=True, extra_headers=header)
            assert await text_of(stream) == whole


@behaviour("a body that is too large is refused")
async def oversize(endpoint: Endpoint, possible: bool) -> None:
    """413, with the limit."""
    assert possible
    status, error = await error_of(endpoint, {**BODY, "user": "x" * 200_000})
    assert (status, error["code"]) == (413, "body_too_large")


@behaviour("a body that is not JSON, or wrong, is refused by field")
async def bad_json(endpoint: Endpoint, possible: bool) -> None:
    """400, with what was wrong and what was expected."""
    assert possible
    for body, param in (
        (b"{", None),
        (b"", None),
        (b"\xff\xfe", None),
        (b'{"model":"chat","messages":"hi"}', "messages"),
        ({**BODY, "temperature": 9}, "temperature"),
        (
            b'{"model":"chat","messages":[{"role":"user","content":"hi"}],"x":'
            + b"[" * 20_000
            + b"]" * 20_000
            + b"}",
            None,
        ),
        ({**BODY, "metadata": {"a": 1}}, "metadata[...]"),
    ):
        status, error = await error_of(endpoint, body)
        assert (status, error["param"]) == (400, param), (
            (body[:40], error) if isinstance(body, bytes) else error
        )


@behaviour("an unknown model is refused")
async def unknown_model(endpoint: Endpoint, possible: bool) -> None:
    """404 in the words of the OpenAI API."""
    assert possible
    status, error = await error_of(endpoint, {**BODY, "model": "absent"})
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")


@behaviour("a missing or invalid key is refused")
async def keys(endpoint: Endpoint, possible: bool) -> None:
    """401, as the SDK expects it."""
    assert possible
    async with sdk(endpoint, "wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(**BODY)
        assert caught.value.code == "invalid_api_key"
    assert (await error_of(endpoint, BODY, key=""))[0] == 401


@behaviour(f"{STREAMS} concurrent streams")
async def concurrent(endpoint: Endpoint, possible: bool) -> None:
    """All are in progress at once, and each is complete and its own. The first wave may start instances."""

    async def one(number: int, simulate: str) -> None:
        body = {**BODY, "messages": [{"role": "user", "content": f"I am {number}."}], "stream": True}
        async with post(endpoint, body, simulate) as answer:
            data = await answer.content.read()
        assert answer.status == 200, data
        words = [
            json.loads(event[6:])["choices"][0]["delta"].get("content") or ""
            for event in data.decode().split("\n\n")
            if event.startswith("data: {")
        ]
        assert "".join(words).startswith(f"You said: I am {number}.")
        assert data.endswith(b"data: [DONE]\n\n")

    waves = ("tokens=12", "ttft_ms=1500,itl_ms=10,tokens=12") if possible else ("tokens=12",)
    for wave in waves:
        await asyncio.gather(*(one(number, wave) for number in range(STREAMS)))
    peak = (await state(endpoint))["peak"]
    assert peak >= STREAMS if possible else peak < 3
