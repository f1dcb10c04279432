"""What functions do that no client waits for: answer queued calls, and probe targets on a schedule."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Raw, Struct

from firsttoken.errors import DeadlineError, RequestError, StoreError
from firsttoken.gateway import ANY, Gateway
from firsttoken.model import Call
from firsttoken.telemetry.record import Record
from firsttoken.wire import openai_chat


class QueuedCall(Struct, frozen=True):
    """The body of a queue message, JSON: a chat completion to answer later, for whom, and under which id."""

    id: str
    tenant: str
    request: Raw


_message = msgspec.json.Decoder(QueuedCall)


async def answer_message(gateway: Gateway, body: str | bytes) -> dict[str, Any]:
    """Answer one queued call and return what came of it, as a flat row.

    Raises FirstTokenError when there is no answer: the queue then delivers the message again, and its own
    dead-letter rule keeps one that can never be answered (a RequestError), so that nothing is lost.
    """
    try:
        message = _message.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        expected = 'expected {"id": ..., "tenant": ..., "request": {...}}'
        raise RequestError(f"The message is not a queued call: {error}; {expected}.") from error
    request, source = openai_chat.read_request(bytes(message.request))
    loop = asyncio.get_running_loop()
    started = loop.time()
    record = Record(id=message.id, tenant=message.tenant, model=request.model, started=started)
    deadline = started + gateway.settings.timeouts.total
    call = Call(
        request=request, source=source, id=message.id, deadline=deadline, tenant=message.tenant, record=record
    )
    try:
        async with asyncio.timeout_at(deadline):
            chunks = [chunk async for chunk in gateway.stream(call)]
    except TimeoutError as error:
        raise DeadlineError("The time for this call is used up.") from error
    answer = openai_chat.write_answer(call, chunks, 0)
    return {
        "status": "done",
        "id": message.id,
        "tenant": message.tenant,
        "answer": msgspec.json.decode(answer),
    }


async def probe_targets(gateway: Gateway) -> dict[str, Any]:
    """Ask every target for one token and tell its breaker, which closes early or tells the others.

    Returns a row each: healthy or not, and the seconds its answer took. A target of any model (``*``) has no
    name to ask for and is left out. What has expired in the store is deleted on the same occasion.
    """
    with suppress(StoreError):
        await gateway.board.read()  # an instance that has just started knows of no open circuit
    names = [name for name in gateway.breakers if not name.endswith(f"/{ANY}")]
    results = await asyncio.gather(*[gateway.breakers[name].probe(_model_of(name)) for name in names])
    with suppress(StoreError):
        await gateway.store.purge()
    rows = [msgspec.to_builtins(result) for result in results]
    return {"healthy": all(row["healthy"] for row in rows), "targets": rows}


def _model_of(target: str) -> str:
    return target.partition("/")[2]
