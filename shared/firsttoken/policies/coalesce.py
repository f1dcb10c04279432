"""Identical calls in flight share one upstream call: its chunks are kept in memory until its end.

The upstream call belongs to none of the clients. It is made as soon as the first of them asks, goes on as
long as one of them listens, and stops when the last one leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from firsttoken.cache.key import request_key
from firsttoken.errors import UpstreamClosedError
from firsttoken.model import Call, Chunk, Model
from firsttoken.policies.broadcast import Broadcast
from firsttoken.settings import Coalesce
from firsttoken.telemetry.record import Record

SIMULATE = "x-firsttoken-simulate"
"""A header that chooses what a simulated target does."""
_Key = tuple[str, str, bool, bool]


class Coalesced:
    """A model whose identical calls share one answer. An error goes to all who listen and is not kept.

    A call listens to another one's answer from its first chunk on, unless less than half of the time that it
    has itself is left to that one. The shared call has the latest deadline of all who joined when each of its
    attempts begins; a client whose own deadline is nearer stops listening, as with any answer.

    ``headers`` are the names of the client's headers that targets get. Memory: of each answer in flight,
    ``settings.max_bytes`` of text and bytes, and one chunk more (see `Broadcast`).
    """

    def __init__(self, model: Model, settings: Coalesce, *, headers: Sequence[str] = ()) -> None:
        self._model = model
        self._settings = settings
        self._headers = (SIMULATE, *headers)
        self._answers: dict[_Key, _Answer] = {}

    def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the answer to ``call``; see `Model`."""
        key = self._key(call) if self._may_share(call) else None
        return self._model.stream(call) if key is None else self._listen(call, key)

    def _may_share(self, call: Call) -> bool:
        if self._settings.mode == "auto":
            return call.request.temperature == 0 or call.request.seed is not None
        return self._settings.mode == "on"

    def _key(self, call: Call) -> _Key | None:
        request, sent = call.request, call.headers
        scope = "\n".join([f"{name}: {sent[name]}" for name in self._headers if name in sent]) if sent else ""
        key = request_key(call, scope=scope)
        return None if key is None else (key, call.source.wire, request.stream, request.include_usage)

    async def _listen(self, call: Call, key: _Key) -> AsyncGenerator[Chunk]:
        answer = self._answers.get(key)
        leads = answer is None or not answer.suits(call)
        if answer is None or leads:
            answer = self._begin(call, key)
        else:
            answer.call.deadline = max(answer.call.deadline, call.deadline)
            call.record.coalesced = True
        answer.listeners += 1
        begun = leads
        try:
            async with aclosing(answer.chunks.follow()) as chunks:
                async for chunk in chunks:
                    if not begun:
                        begun = True
                        _copy(answer.call.record, call.record)
                    yield chunk
        finally:
            answer.listeners -= 1
            if not leads:
                _copy(answer.call.record, call.record)
            if not answer.listeners:
                await self._stop(key, answer)

    def _begin(self, call: Call, key: _Key) -> _Answer:
        answer = _Answer(replace(call), self._settings.max_bytes)
        self._answers[key] = answer
        answer.task = asyncio.get_running_loop().create_task(self._produce(answer))

        def ended(task: asyncio.Task[None]) -> None:
            self._forget(key, answer)
            stopped = UpstreamClosedError("The shared answer was stopped.") if task.cancelled() else None
            answer.chunks.finish(stopped or task.exception())

        answer.task.add_done_callback(ended)  # it comes even where the task is cancelled before it began
        return answer

    async def _produce(self, answer: _Answer) -> None:
        shared = answer.chunks
        async with aclosing(self._model.stream(answer.call)) as chunks:
            async for chunk in chunks:
                shared.append(chunk)
                if not shared.joinable:
                    await shared.room()
        shared.finish()

    async def _stop(self, key: _Key, answer: _Answer) -> None:
        """Stop the work for an answer that nobody listens to any more, if there is work left."""
        self._forget(key, answer)
        if answer.task is not None and not answer.task.done():
            answer.task.cancel()
            await asyncio.wait({answer.task})

    def _forget(self, key: _Key, answer: _Answer) -> None:
        if self._answers.get(key) is answer:
            del self._answers[key]


class _Answer:
    """One shared answer: the call that is made for it, and what came of it so far."""

    __slots__ = ("call", "chunks", "listeners", "task")

    def __init__(self, call: Call, limit: int) -> None:
        self.call = call
        """The first client's, with a deadline of its own and the same record: the policies write there."""
        self.chunks: Broadcast[Chunk] = Broadcast(limit, _size)
        self.listeners = 0
        self.task: asyncio.Task[None] | None = None

    def suits(self, call: Call) -> bool:
        """Return whether ``call`` can still listen, and would not be cut off long before its own time."""
        if self.chunks.done or not self.chunks.joinable:
            return False
        now = asyncio.get_running_loop().time()
        return self.call.deadline - now >= (call.deadline - now) / 2


def _size(chunk: Chunk) -> int:
    size = len(chunk.text) + len(chunk.raw) + len(chunk.reasoning)
    return size + sum([len(tool.arguments) for tool in chunk.tool_calls]) if chunk.tool_calls else size


def _copy(source: Record, record: Record) -> None:
    """Note whose answer a listener got."""
    record.target, record.rung, record.resumed = source.target, source.rung, source.resumed
    record.cache = source.cache
    record.attempts = list(source.attempts)
    record.notes = dict(source.notes)
