"""One producer's items for any number of followers: each reads from the first item on, at its own pace.

There is no lock and no task per item: a follower that has read all sleeps on a future of its own, and all of
them are woken once for whatever arrived together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Broadcast(Generic[T]):
    """Items in memory, appended by one task and read by others of the same event loop.

    Memory: ``limit`` bytes as ``measure`` counts them, and one item more. Beyond that nobody can join any
    more, what all followers have read is dropped, and the producer is to wait in `room` for the slowest.
    """

    __slots__ = (
        *("_dropped", "_error", "_followers", "_held", "_items", "_limit", "_measure", "_room"),
        *("_traceback", "_waiting", "done", "joinable"),
    )

    def __init__(self, limit: int, measure: Callable[[T], int]) -> None:
        self.done = False
        """Whether it has ended, whole or broken."""
        self.joinable = True
        """Whether the first item is still there."""
        self._limit = limit
        self._measure = measure
        self._items: list[T] = []
        self._held = 0
        self._dropped = 0
        self._followers: set[_Follower] = set()
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._room: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None

    @property
    def items(self) -> list[T]:
        """Return what is held: all items, as long as it is `joinable`."""
        return self._items

    @property
    def followed(self) -> bool:
        """Return whether anybody follows."""
        return bool(self._followers)

    def append(self, item: T) -> None:
        """Add an item. The producer waits in `room` before the next one when this is no longer `joinable`."""
        self._items.append(item)
        self._held += self._measure(item)
        if self._held > self._limit:
            self.joinable = False
        self._wake()

    def finish(self, error: BaseException | None = None) -> None:
        """End it, once; every follower gets ``error`` behind the last item."""
        if not self.done:
            self.done = True
            self._error = error
            self._traceback = error.__traceback__ if error else None
            self._wake()

    async def room(self) -> None:
        """Wait until less than the limit is unread by the slowest follower."""
        self._trim()
        while self._held > self._limit:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def follow(self) -> AsyncGenerator[T]:
        """Stream the items from the first one on. Raises what `finish` was given."""
        me = _Follower()
        self._followers.add(me)
        loop = asyncio.get_running_loop()
        try:
            while True:
                while me.read - self._dropped < len(self._items):
                    item = self._items[me.read - self._dropped]
                    me.read += 1
                    if not self.joinable:
                        self._trim()
                    yield item
                if self.done:
                    break
                me.news = loop.create_future()
                self._waiting[me.news] = None
                await me.news
        finally:
            self._followers.discard(me)
            if me.news is not None:
                self._waiting.pop(me.news, None)
            if not self.joinable:
                self._trim()
        if self._error is not None:
            # Each follower's own frames, on those of the producer: not those of all who raised it before.
            raise self._error.with_traceback(self._traceback)

    def _wake(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    def _trim(self) -> None:
        """Drop what every follower has read."""
        end = self._dropped + len(self._items)
        count = min([follower.read for follower in self._followers], default=end) - self._dropped
        if count:
            self._held -= sum(map(self._measure, self._items[:count]))
            del self._items[:count]
            self._dropped += count
        if self._room is not None and not self._room.done() and self._held <= self._limit:
            self._room.set_result(None)


class _Follower:
    """How much one of them has read, and what it sleeps on."""

    __slots__ = ("news", "read")

    def __init__(self) -> None:
        self.read = 0
        self.news: asyncio.Future[None] | None = None
