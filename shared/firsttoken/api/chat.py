"""One answer for one request, streamed or whole, in the wire format that the client speaks."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from math import inf

import msgspec

from firsttoken.api.exchange import Exchange, Heartbeat
from firsttoken.api.lifetime import deadline_of, until_the_client_leaves
from firsttoken.errors import DeferredError, RequestError
from firsttoken.gateway import Gateway
from firsttoken.model import Call, Chunk
from firsttoken.telemetry.record import Record
from firsttoken.wire.codec import Codec
from firsttoken.wire.json_depth import deeper_than

_JSON = (b"content-type", b"application/json")


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
    if gateway.settings.queue is not None or b'"background"' in body:
        from firsttoken.api.prefer import later_of

        call.later = later_of(exchange, gateway, call)
    if gateway.settings.idempotency.enabled and "idempotency-key" in exchange.headers:
        from firsttoken.api.idempotency import once

        await once(exchange, gateway, call, lambda inner: _answer(inner, gateway, call, inf))
    else:
        work = _answer(exchange, gateway, call, server.heartbeat_seconds)
        await until_the_client_leaves(exchange, call.deadline, work)


async def _answer(exchange: Exchange, gateway: Gateway, call: Call, heartbeat: float) -> None:
    chunks = gateway.stream(call)
    try:
        if call.request.stream:
            await _stream(exchange, chunks, call, heartbeat)
        else:
            collected = [_note(chunk, call) async for chunk in chunks]
            body = exchange.codec.write_answer(call, collected, int(time.time()))
            await exchange.answer(200, body, [_JSON, *metadata_headers(call.record)])
    except DeferredError as deferred:
        from firsttoken.api.jobs import accept

        await accept(exchange, gateway, call, deferred.id)
    finally:
        await chunks.aclose()


async def _stream(exchange: Exchange, chunks: AsyncGenerator[Chunk], call: Call, heartbeat: float) -> None:
    created = int(time.time())
    writer = exchange.writer = exchange.codec.open_writer(call, created)
    head = stream_headers(exchange.codec)
    beat = Heartbeat(exchange, heartbeat, head)
    try:
        async for chunk in chunks:
            if chunk.follows is not None:
                from firsttoken.wire.takeover import resume_writer

                writer = exchange.writer = resume_writer(exchange.codec, call, created, chunk.follows)
            data = writer.write(_note(chunk, call))
            if not exchange.started:
                await exchange.start(200, [*head, *metadata_headers(call.record)])
            if data:
                await exchange.write(data)
        if not exchange.started:
            await exchange.start(200, [*head, *metadata_headers(call.record)])
        await exchange.end(_closing_metadata(exchange.codec, call.record) + writer.end())
    finally:
        beat.stop()


def stream_headers(codec: Codec) -> list[tuple[bytes, bytes]]:
    """Return the headers of a streamed answer: nothing on the way may keep or collect it."""
    return [
        (b"content-type", codec.STREAM_TYPE.encode()),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    ]


def metadata_headers(record: Record) -> list[tuple[bytes, bytes]]:
    """Return the headers that say where an answer came from, as far as that is known when it begins."""
    headers = [(b"x-firsttoken-target", _visible(record.target))] if record.target else []
    if record.rung:
        headers.append((b"x-firsttoken-rung", _visible(record.rung)))
    if len(record.attempts) > 1:
        headers.append((b"x-firsttoken-attempts", b"%d" % len(record.attempts)))
    if record.coalesced:
        headers.append((b"x-firsttoken-coalesced", b"true"))
    if record.cache:
        headers.append((b"x-firsttoken-cache", record.cache.encode()))
    return headers


def _visible(name: str) -> bytes:
    """Return a name as a header holds it: visible ASCII; other bytes, and ``%``, are percent-encoded."""
    raw = name.encode("utf-8", "surrogatepass")
    return _INVISIBLE.sub(lambda found: b"%%%02X" % found[0][0], raw)


_INVISIBLE = re.compile(rb"[^!-~]|%")


def _closing_metadata(codec: Codec, record: Record) -> bytes:
    """Return a comment on an answer that did not come from where it was asked for; a client reads over it."""
    if not (record.resumed or record.rung) or not codec.STREAM_TYPE.startswith("text/event-stream"):
        return b""
    if codec.WIRE == "gemini":
        return b""  # Google's own SDK takes a comment for JSON
    told = {"target": record.target, "rung": record.rung, "resumed": record.resumed}
    return b": firsttoken %b\n\n" % msgspec.json.encode({name: said for name, said in told.items() if said})


def _note(chunk: Chunk, call: Call) -> Chunk:
    record = call.record
    if record.first_chunk is None:
        record.first_chunk = asyncio.get_running_loop().time()
    if chunk.usage:
        record.input_tokens, record.output_tokens = chunk.usage.input, chunk.usage.output
        record.cached_tokens = chunk.usage.cached
    return chunk
