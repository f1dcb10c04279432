"""Open, then stream: a policy ends where the answer begins (docs/adr/0008).

Until its first content an answer can be tried again, elsewhere, or twice; from then on it is committed. So
a policy is a way to *open* an answer, and hands on what was opened. Nothing of it stands in the way of the
chunks that follow: however many policies there are, one loop passes the chunks on, watches the gaps and tells
every policy at the end how it went.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from math import inf
from typing import cast

from msgspec import Struct

from firsttoken.errors import FirstTokenError, UpstreamProtocolError, UpstreamTimeoutError
from firsttoken.model import Call, Chunk, Model, Usage

MAX_HEAD = 256
"""Chunks without content before an answer begins; a target that sends more of them is broken."""


class Ending(Struct, frozen=True):
    """How an answer ended: ``error`` is None when it is whole; ``left``: nobody read it to its end."""

    error: FirstTokenError | None = None
    left: bool = False
    usage: Usage | None = None
    chunks: int = 0


class Opened:
    """An answer that has begun: its chunks up to the first content, and the rest of it, still to be read.

    Whoever holds one reads `chunks` (in one task) or calls `aclose`, once.
    """

    __slots__ = ("_rest", "ends", "gap", "head")

    def __init__(self, head: list[Chunk], rest: AsyncGenerator[Chunk]) -> None:
        self.head = head
        self._rest = rest
        self.gap = inf
        """Seconds of silence after which the answer counts as broken."""
        self.ends: list[Callable[[Ending], None]] = []
        """Told, in this order, how it ended. They neither wait nor raise."""

    async def chunks(self) -> AsyncGenerator[Chunk]:
        """Stream the whole answer. Raises FirstTokenError where it breaks."""
        usage: Usage | None = None
        count = 0
        error: FirstTokenError | None = None
        left = True
        watch = _Watch(self.gap)
        now = watch.loop.time
        try:
            for chunk in self.head:
                usage = chunk.usage or usage
                yield chunk
            watch.since = now()
            async for chunk in self._rest:
                watch.since = inf
                count += 1
                if chunk.usage is not None:
                    usage = chunk.usage
                yield chunk
                watch.since = now()
            left = False
        except asyncio.CancelledError:
            if not watch.caught():
                raise
            left = False
            error = UpstreamTimeoutError(f"The target fell silent for {self.gap:g} s (gap).")
            raise error from None
        except FirstTokenError as broken:
            left = False
            error = broken
            raise
        finally:
            watch.stop()
            await self._end(Ending(error, left, usage, count + len(self.head)))

    async def aclose(self) -> None:
        """Throw the answer away: the work behind it stops at once."""
        usage = next((chunk.usage for chunk in reversed(self.head) if chunk.usage is not None), None)
        await self._end(Ending(left=True, usage=usage, chunks=len(self.head)))

    async def _end(self, ending: Ending) -> None:
        try:
            await self._rest.aclose()
        finally:
            ends, self.ends = self.ends, []
            for end in ends:
                end(ending)


class Policy(ABC):
    """A model that is opened. What wraps a model and acts before its first content derives from this."""

    @abstractmethod
    async def open(self, call: Call) -> Opened:
        """Return the answer once it has begun. Raises FirstTokenError.

        Cancelled, it leaves nothing behind.
        """

    async def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the answer to ``call``; see `Model`."""
        opened = await self.open(call)
        async with aclosing(opened.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk


async def open_model(model: Model, call: Call) -> Opened:
    """Open the answer of any model: read it up to its first content."""
    if isinstance(model, Policy):
        return await model.open(call)
    stream = model.stream(call)
    try:
        return Opened(await _head(stream), stream)
    except BaseException:
        await stream.aclose()
        raise


async def _head(stream: AsyncGenerator[Chunk]) -> list[Chunk]:
    head: list[Chunk] = []
    async for chunk in stream:
        head.append(chunk)
        if chunk.has_content():
            return head
        if len(head) > MAX_HEAD:
            raise UpstreamProtocolError(f"The target sent {len(head)} chunks without content.")
    raise UpstreamProtocolError("The target's answer holds no answer.")


class _Watch:
    """Cancels the reader when it has waited too long: one timer a call, a timestamp a chunk."""

    __slots__ = ("_cancelling", "_expired", "_gap", "_task", "_timer", "loop", "since")

    def __init__(self, gap: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.since = inf
        """When the reader began to wait; infinite while it does not."""
        self._gap = gap
        self._expired = False
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._cancelling = self._task.cancelling()
        self._timer = self.loop.call_later(gap, self._check) if gap < inf else None

    def caught(self) -> bool:
        """Return whether this watch, and nobody else, cancelled the reader."""
        if not self._expired:
            return False
        self._expired = False
        return self._task.uncancel() <= self._cancelling

    def stop(self) -> None:
        self.caught()  # where the answer's generator turned the cancellation into an error of its own
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        now = self.loop.time()
        due = self.since + self._gap
        if now >= due:
            self._expired = True
            self._task.cancel()  # it waits in the answer's generator, so that is where it is cancelled
        else:
            self._timer = self.loop.call_at(min(due, now + self._gap), self._check)
