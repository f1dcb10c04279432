"""One answer for one request, streamed or whole, in the wire format that the client speaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from firsttoken.api.exchange import Exchange, Heartbeat
from firsttoken.api.lifetime import deadline_of, until_the_client_leaves
from firsttoken.errors import RequestError
from firsttoken.gateway import Gateway
from firsttoken.model import Call, Chunk
from firsttoken.wire.codec import Codec
from firsttoken.wire.json_depth import deeper_than


async def complete(
    exchange: Exchange, gateway: Gateway, model: str = "", *, stream: bool | None = None
) -> None:
    """Answer one request in the exchange's format.

    ``model`` and ``stream`` are given where the path holds them. Raises FirstTokenError for what the caller
    must answer.
    """
    server = gateway.settings.server
    record = exchange.record
    body = await exchange.body(server.max_body_bytes)
    request, source = exchange.codec.read_request(body, model, stream=stream)
    if deeper_than(body, server.max_json_depth):
        message = f"The body is nested deeper than {server.max_json_depth} levels."
        raise RequestError(message, code="nested_too_deep")
    record.model, record.stream = request.model, request.stream
    call = Call(
        request=request,
        source=source,
        id=exchange.id,
        deadline=deadline_of(exchange, gateway),
        tenant=record.tenant,
        headers=exchange.headers,
        record=record,
    )
    await until_the_client_leaves(exchange, call.deadline, _answer(exchange, gateway, call))


async def _answer(exchange: Exchange, gateway: Gateway, call: Call) -> None:
    chunks = gateway.stream(call)
    try:
        if call.request.stream:
            await _stream(exchange, chunks, call, gateway.settings.server.heartbeat_seconds)
        else:
            collected = [_note(chunk, call) async for chunk in chunks]
            await exchange.answer(200, exchange.codec.write_answer(call, collected, int(time.time())))
    finally:
        await chunks.aclose()


async def _stream(exchange: Exchange, chunks: AsyncGenerator[Chunk], call: Call, heartbeat: float) -> None:
    writer = exchange.codec.open_writer(call, int(time.time()))
    exchange.writer = writer
    head = stream_headers(exchange.codec)
    beat = Heartbeat(exchange, heartbeat, head)
    try:
        async for chunk in chunks:
            data = writer.write(_note(chunk, call))
            if not exchange.started:
                await exchange.start(200, head)
            if data:
                await exchange.write(data)
        if not exchange.started:
            await exchange.start(200, head)
        await exchange.end(writer.end())
    finally:
        beat.stop()


def stream_headers(codec: Codec) -> list[tuple[bytes, bytes]]:
    """Return the headers of a streamed answer: nothing on the way may keep or collect it."""
    return [
        (b"content-type", codec.STREAM_TYPE.encode()),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    ]


def _note(chunk: Chunk, call: Call) -> Chunk:
    record = call.record
    if record.first_chunk is None:
        record.first_chunk = asyncio.get_running_loop().time()
    if chunk.usage:
        record.input_tokens, record.output_tokens = chunk.usage.input, chunk.usage.output
    return chunk
