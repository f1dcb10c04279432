"""An answer under way: collected whole, and written in parts beside it for those who follow the job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from firsttoken.cache.entry import bare, size_of
from firsttoken.errors import StoreError
from firsttoken.jobs.job import Job
from firsttoken.jobs.kept import MAX_BYTES, Kept
from firsttoken.model import Chunk

PAUSE = 0.25
"""Seconds that a part is collected for, but for the first one ..."""
PART_BYTES = 16 * 1024
"""... unless so much arrived earlier."""
MAX_PARTS = 4096
"""Of one answer; those who follow get the rest of a longer one when it is whole."""


class Progress:
    """Collects an answer. Used as a context; its parts are written by a task of its own, one write each.

    Nobody waits for a part, and one that cannot be written ends the parts: the whole answer says the same.
    Memory: the answer, at most `MAX_BYTES` and what comes in `PAUSE` seconds; beyond that it is ``over``.
    """

    limit = MAX_BYTES

    def __init__(self, kept: Kept, job: Job, ttl: float) -> None:
        self._kept = kept
        self._job = job
        self._ttl = ttl
        self._chunks: list[Chunk] = []
        self._bytes = 0
        self._waiting: list[Chunk] = []
        self._waiting_bytes = 0
        self._some, self._full = asyncio.Event(), asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._parts = 0
        self._broken = False
        self.over = False
        """Whether the answer is larger than can be kept."""

    async def __aenter__(self) -> Self:
        """Begin to write parts."""
        self._writer = asyncio.get_running_loop().create_task(self._write())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop writing."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])

    def add(self, chunk: Chunk) -> None:
        """Take in the next chunk, without its target's own bytes."""
        chunk = bare(chunk)
        self._waiting.append(chunk)
        self._waiting_bytes += size_of(chunk)
        self.over = self.over or self._bytes + self._waiting_bytes > 2 * self.limit
        self._some.set()
        if self._waiting_bytes >= PART_BYTES:
            self._full.set()

    def whole(self) -> tuple[Chunk, ...]:
        """Return all of it: what the parts hold, in the same chunks, and the rest."""
        return (*self._chunks, *joined(self._waiting))

    async def _write(self) -> None:
        while True:
            await self._some.wait()
            if self._parts:  # the first one goes at once: somebody waits for it
                with suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE):
                        await self._full.wait()
            await self._flush()

    async def _flush(self) -> None:
        part = joined(self._waiting)
        self._chunks += part
        self._bytes += sum(map(size_of, part))
        self._waiting, self._waiting_bytes = [], 0
        self.over = self.over or self._bytes > self.limit
        self._some.clear()
        self._full.clear()
        self._broken = self._broken or self._parts >= MAX_PARTS
        if self._broken:
            return
        try:
            await self._kept.put_part(self._job, self._parts, part, self._ttl)
        except (StoreError, ValueError):
            self._broken = True
        self._parts += 1


def joined(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Return the same answer in fewer chunks: text after text is one, and so on. Linear in their number."""
    groups: list[list[Chunk]] = []
    kind = ""
    for chunk in chunks:
        before, kind = kind, _kind(chunk)
        if kind and kind == before:
            groups[-1].append(chunk)
        else:
            groups.append([chunk])
            kind = _goes_on(chunk) or kind
    return [_one(group) for group in groups]


def _kind(chunk: Chunk) -> str:
    """Return what a chunk is nothing but a further piece of, or an empty text."""
    if chunk.text:
        return "text" if chunk == Chunk(chunk.text, model=chunk.model) else ""
    if chunk.reasoning:
        return "reasoning" if chunk == Chunk(reasoning=chunk.reasoning, model=chunk.model) else ""
    if len(chunk.tool_calls) == 1 and chunk == Chunk(tool_calls=chunk.tool_calls, model=chunk.model):
        call = chunk.tool_calls[0]
        return "" if call.id or call.name or call.signature else f"tool {call.index}"
    return ""


def _goes_on(chunk: Chunk) -> str:
    """Return what may follow the beginning of a tool call."""
    if len(chunk.tool_calls) == 1 and chunk == Chunk(tool_calls=chunk.tool_calls, model=chunk.model):
        return f"tool {chunk.tool_calls[0].index}"
    return ""


def _one(group: list[Chunk]) -> Chunk:
    first = group[0]
    if len(group) == 1:
        return first
    if not first.tool_calls:
        text, reasoning = "".join([c.text for c in group]), "".join([c.reasoning for c in group])
        return replace(first, text=text, reasoning=reasoning)
    arguments = "".join([chunk.tool_calls[0].arguments for chunk in group])
    return replace(first, tool_calls=(replace(first.tool_calls[0], arguments=arguments),))
