"""Texts of several callers in one call of an embedding model: many more of them a second, for a short wait.

A call that comes alone is sent at once. While others are on their way it waits for company: until a batch
is full, or for ``window`` seconds. Tenants take turns, so that one with a thousand texts does not keep the
others waiting. What a model refuses is asked again for each caller alone: nobody fails for another's text.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from copy import copy
from typing import Any

from msgspec.structs import replace

from firsttoken.embedding import EmbedCall, Embedder, Embeddings, estimate_tokens
from firsttoken.errors import FirstTokenError, RequestError, UpstreamClosedError, UpstreamRefusedError
from firsttoken.model import Source
from firsttoken.settings import Embedding
from firsttoken.telemetry.record import Record

_Kind = tuple[Any, ...]


class MicroBatched:
    """An embedder around another one, for one target.

    Batched are plain texts that ask for the same: model, size, purpose, and the ``headers`` that are passed
    on. Memory: the requests of those who wait.
    """

    def __init__(self, embedder: Embedder, settings: Embedding, *, headers: Sequence[str] = ()) -> None:
        self._embedder = embedder
        self._settings = settings
        self._headers = tuple(headers)
        self._groups: dict[_Kind, _Group] = {}
        self._running: set[asyncio.Task[None]] = set()
        self.calls = 0
        """Calls of the model ..."""
        self.texts = 0
        """... and texts in them."""

    async def embed(self, call: EmbedCall) -> Embeddings:
        """Return the vectors of ``call``; its tokens are its share of the batch's. Raises FirstTokenError."""
        request = call.request
        alone = request.tokens or request.user or call.source.unknown
        if alone or not 0 < len(request.inputs) < self._settings.batch:
            return await self._embedder.embed(call)
        kind = (request.model, request.dimensions, request.input_type, *map(call.headers.get, self._headers))
        group = self._groups.setdefault(kind, _Group())
        waiting = _Waiting(call)
        group.add(waiting)
        self._schedule(kind, group)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            group.leave(waiting)
            waiting.leave()
            raise

    def _schedule(self, kind: _Kind, group: _Group) -> None:
        """Have a group sent: at once when it is full or nothing is on its way, otherwise soon."""
        loop = asyncio.get_running_loop()
        if len(self._running) >= self._settings.concurrent:
            return  # whoever ends next sends it
        if group.texts >= self._settings.batch:
            self._send(kind, group)
        elif group.timer is None:
            wait = (
                self._settings.window if self._running else 0.0
            )  # 0: with what comes in this turn of the loop
            group.timer = loop.call_later(wait, self._send, kind, group)

    def _send(self, kind: _Kind, group: _Group) -> None:
        if group.timer is not None:
            group.timer.cancel()
            group.timer = None
        if len(self._running) >= self._settings.concurrent:
            return
        batch = group.take(self._settings.batch)
        if not group.texts:
            self._groups.pop(kind, None)
        if not batch:
            return
        task = asyncio.get_running_loop().create_task(self._answer(batch))
        for waiting in batch:
            waiting.batch = (task, batch)
        self._running.add(task)
        task.add_done_callback(self._ended)
        if group.texts:
            self._schedule(kind, group)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a defect of ours: the loop reports it
        for kind, group in list(self._groups.items()):
            if group.timer is None:  # it has waited for this one to end
                self._send(kind, group)

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        """Answer everybody in a batch."""
        try:
            answer = await self._ask(batch)
        except (RequestError, UpstreamRefusedError) as error:
            if len(batch) == 1:
                batch[0].fail(error)
                return
            for waiting in batch:
                if not waiting.answer.done():
                    await self._answer([waiting])
        except FirstTokenError as error:
            for waiting in batch:
                waiting.fail(error)
        except asyncio.CancelledError:
            for waiting in batch:
                waiting.fail(UpstreamClosedError("The call was stopped."))
            raise
        else:
            _share(batch, answer)

    async def _ask(self, batch: Sequence[_Waiting]) -> Embeddings:
        self.calls += 1
        self.texts += sum(waiting.count for waiting in batch)
        first = batch[0].call
        if len(batch) == 1:
            return await self._embedder.embed(first)  # the client's own bytes, and the target's
        texts = tuple([text for waiting in batch for text in waiting.call.request.inputs])
        until = max(waiting.call.deadline for waiting in batch)
        request = replace(first.request, inputs=texts, encoding="base64")
        source, record = Source("", b""), Record()
        call = replace(first, request=request, source=source, deadline=until, tenant="", record=record)
        return await self._embedder.embed(call)


class _Waiting:
    """A call that waits for its vectors."""

    __slots__ = ("answer", "batch", "call", "count")

    def __init__(self, call: EmbedCall) -> None:
        self.call = call
        self.count = len(call.request.inputs)
        self.answer: asyncio.Future[Embeddings] = asyncio.get_running_loop().create_future()
        self.batch: tuple[asyncio.Task[None], Sequence[_Waiting]] | None = None

    def fail(self, error: FirstTokenError) -> None:
        """Hand on an error: a copy, as each caller adds its own frames."""
        if not self.answer.done():
            self.answer.set_exception(copy(error))

    def leave(self) -> None:
        """Stop the batch that this one is in, if nobody waits for it any more."""
        if self.batch is not None and all(waiting.answer.done() for waiting in self.batch[1]):
            self.batch[0].cancel()


class _Group:
    """Calls that ask for the same, and wait to be sent: a line for each tenant."""

    def __init__(self) -> None:
        self.texts = 0
        self.timer: asyncio.TimerHandle | None = None
        self._lines: dict[str, deque[_Waiting]] = {}

    def add(self, waiting: _Waiting) -> None:
        """Put a call at the end of its tenant's line."""
        self._lines.setdefault(waiting.call.tenant, deque()).append(waiting)
        self.texts += waiting.count

    def leave(self, waiting: _Waiting) -> None:
        """Take a call out of its line, if it is still there."""
        tenant = waiting.call.tenant
        line = self._lines.get(tenant, deque())
        if waiting in line:
            line.remove(waiting)
            self.texts -= waiting.count
            if not line:
                del self._lines[tenant]

    def take(self, most: int) -> list[_Waiting]:
        """Take calls of up to ``most`` texts, one of each tenant in turn."""
        taken: list[_Waiting] = []
        left = most
        while self._lines:
            tenant, line = next(iter(self._lines.items()))
            if line[0].count > left:
                break
            waiting = line.popleft()
            left -= waiting.count
            self.texts -= waiting.count
            taken.append(waiting)
            del self._lines[tenant]
            if line:
                self._lines[tenant] = line  # at the end: it is the others' turn
        return taken


def _share(batch: Sequence[_Waiting], answer: Embeddings) -> None:
    """Give everybody their vectors, and their part of the bill by the length of their texts."""
    if len(batch) == 1:
        if not batch[0].answer.done():
            batch[0].answer.set_result(answer)
        return
    sizes = [estimate_tokens(waiting.call.request.inputs) for waiting in batch]
    whole, position, billed, size = sum(sizes), 0, 0, 0
    for waiting, own in zip(batch, sizes, strict=True):
        size += own
        until = answer.tokens * size // whole
        vectors = answer.vectors[position : position + waiting.count]
        position += waiting.count
        part = Embeddings(vectors, tokens=until - billed, estimated=True, model=answer.model)
        billed = until
        if not waiting.answer.done():
            waiting.answer.set_result(part)
