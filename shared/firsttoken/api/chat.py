"""``POST /v1/chat/completions`` and ``GET /v1/models``: the OpenAI Chat Completions API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import cast

import msgspec

from firsttoken.api.exchange import Exchange, Heartbeat, header_seconds
from firsttoken.errors import DeadlineError, NotFoundError, RequestError
from firsttoken.gateway import Gateway
from firsttoken.model import Call, Chunk
from firsttoken.telemetry.record import Record
from firsttoken.wire import openai_chat
from firsttoken.wire.json_depth import deeper_than

_STREAM_HEADERS = [
    (b"content-type", openai_chat.StreamWriter.media_type),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
TIMEOUT_HEADER = "x-firsttoken-timeout"


async def complete(exchange: Exchange, gateway: Gateway, tenant: str, record: Record) -> None:
    """Answer one chat completion, streamed or whole.

    Raises FirstTokenError for what the caller must answer.
    """
    server = gateway.settings.server
    body = await exchange.body(server.max_body_bytes)
    request, source = openai_chat.read_request(body)
    if deeper_than(body, server.max_json_depth):
        message = f"The body is nested deeper than {server.max_json_depth} levels."
        raise RequestError(message, code="nested_too_deep")
    record.model, record.stream = request.model, bool(request.stream)
    call = Call(
        request=request,
        source=source,
        id=exchange.id,
        deadline=_deadline(exchange, gateway),
        tenant=tenant,
        headers=exchange.headers,
        record=record,
    )
    await _until_the_client_leaves(exchange, gateway, call)


async def _until_the_client_leaves(exchange: Exchange, gateway: Gateway, call: Call) -> None:
    task = cast("asyncio.Task[None]", asyncio.current_task())
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        task.cancel()

    watcher = exchange.watch(leave)
    try:
        async with asyncio.timeout_at(call.deadline):
            await _answer(exchange, gateway, call)
    except TimeoutError as error:
        raise DeadlineError("The time for this call is used up.") from error
    except asyncio.CancelledError:
        if not gone or task.uncancel() > 0:
            raise
        call.record.disconnected = True
    finally:
        watcher.cancel()


async def _answer(exchange: Exchange, gateway: Gateway, call: Call) -> None:
    chunks = gateway.stream(call)
    try:
        if call.request.stream:
            await _stream(exchange, chunks, call, gateway.settings.server.heartbeat_seconds)
        else:
            collected = [_note(chunk, call.record) async for chunk in chunks]
            await exchange.answer(200, openai_chat.write_answer(call, collected, int(time.time())))
    finally:
        await chunks.aclose()


async def _stream(exchange: Exchange, chunks: AsyncGenerator[Chunk], call: Call, heartbeat: float) -> None:
    writer = openai_chat.StreamWriter(call, int(time.time()))
    beat = Heartbeat(exchange, heartbeat, _STREAM_HEADERS)
    try:
        async for chunk in chunks:
            data = writer.write(_note(chunk, call.record))
            if not exchange.started:
                await exchange.start(200, _STREAM_HEADERS)
            if data:
                await exchange.write(data)
        if not exchange.started:
            await exchange.start(200, _STREAM_HEADERS)
        await exchange.end(writer.end())
    finally:
        beat.stop()


def _note(chunk: Chunk, record: Record) -> Chunk:
    if record.first_chunk is None:
        record.first_chunk = asyncio.get_running_loop().time()
    if chunk.usage:
        record.input_tokens, record.output_tokens = chunk.usage.input, chunk.usage.output
    return chunk


def _deadline(exchange: Exchange, gateway: Gateway) -> float:
    """Return the nearest of the client's, the configured and the platform's deadline, on the loop's clock."""
    limits = [gateway.settings.timeouts.total]
    if (wanted := header_seconds(exchange.headers, TIMEOUT_HEADER)) is not None:
        limits.append(wanted)
    deadline = asyncio.get_running_loop().time() + min(limits)
    platform = exchange.scope.get("extensions", {}).get("firsttoken", {}).get("deadline")
    return deadline if platform is None else min(deadline, platform)


async def models(exchange: Exchange, gateway: Gateway) -> None:
    """List the public model names, or describe the one that the path names."""
    listed = [
        {"id": name, "object": "model", "created": 0, "owned_by": route.target.partition("/")[0]}
        for name, route in gateway.settings.models.items()
    ]
    _, _, name = exchange.scope["path"].partition("/v1/models/")
    if not name:
        await exchange.answer(200, msgspec.json.encode({"object": "list", "data": listed}))
        return
    found = [model for model in listed if model["id"] == name]
    if not found:
        raise NotFoundError(f"The model {name!r} does not exist here.", param="model", code="model_not_found")
    await exchange.answer(200, msgspec.json.encode(found[0]))
