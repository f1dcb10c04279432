"""A queue in this process: for one instance, and as the double of the others in tests."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count, islice
from typing import TYPE_CHECKING

from msgspec import Struct

from firsttoken.errors import QueueError
from firsttoken.queues.queue import Dead, Delivery, Depth
from firsttoken.settings import MemoryQueue as Settings

if TYPE_CHECKING:
    from firsttoken.providers.http import HttpClient

MAX_BODY_BYTES = 256 * 1024
MAX_DELAY = 900.0


class _Message(Struct):
    """``at``: from when on it is handed out, if it is not by ``entry``, the latest of its places."""

    id: str
    body: bytes
    count: int = 0
    at: float = 0.0
    entry: int = 0


class MemoryQueue:
    """Messages of one process, in its event loop's time. Sending and receiving take logarithmic time.

    Memory: ``settings.entries`` messages, and as many dead letters, of which the oldest goes first.
    """

    pulls = True
    max_body_bytes = MAX_BODY_BYTES
    max_delay = MAX_DELAY

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.entries
        self._messages: dict[str, _Message] = {}
        self._heap: list[tuple[float, int, str]] = []
        """When, which place, which message; places that are not a message's latest mean nothing."""
        self._dead: deque[Dead] = deque(maxlen=settings.entries)
        self._ids = count(1)
        self._places = count(1)
        self._waiting: set[asyncio.Future[None]] = set()

    async def send(self, body: bytes, delay: float = 0.0) -> None:
        """Add a message; see `Queue`."""
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"The message has {len(body)} bytes; expected at most {MAX_BODY_BYTES}.")
        if len(self._messages) >= self._limit:
            raise QueueError(f"The queue is full: it holds {self._limit} messages.")
        message = _Message(str(next(self._ids)), body)
        self._messages[message.id] = message
        self._place(message, min(max(delay, 0.0), MAX_DELAY))

    async def receive(self, limit: int, hidden: float, wait: float) -> Sequence[Delivery]:
        """Return messages, waiting for the first; see `Queue`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            now = loop.time()
            taken = self._take(limit, hidden, now)
            if taken or now >= until:
                return taken
            await self._changed(min(self._heap[0][0], until) if self._heap else until)

    async def extend(self, delivery: Delivery, hidden: float) -> bool:
        """Hide a message from now on; see `Queue`."""
        message = self._held(delivery)
        if message is not None:
            self._place(message, hidden)
        return message is not None

    async def done(self, delivery: Delivery) -> None:
        """Delete a message, if this is its latest delivery; see `Queue`."""
        if self._held(delivery) is not None:
            del self._messages[delivery.id]

    async def bury(self, body: bytes, reason: str) -> None:
        """Add a dead letter; see `Queue`."""
        self._dead.append(Dead(body, str(next(self._ids)), reason, time.time()))

    async def dead(self, limit: int) -> Sequence[Dead]:
        """Return the oldest dead letters; see `Queue`."""
        return list(islice(self._dead, limit))

    async def redrive(self, limit: int) -> int:
        """Send the oldest dead letters again; see `Queue`."""
        number = 0
        while self._dead and number < limit:
            await self.send(self._dead[0].body)
            self._dead.popleft()
            number += 1
        return number

    async def purge_dead(self, limit: int) -> int:
        """Delete the oldest dead letters; see `Queue`."""
        number = min(limit, len(self._dead))
        for _ in range(number):
            self._dead.popleft()
        return number

    async def depth(self) -> Depth:
        """Return how many messages there are; see `Queue`. Looks at all of them."""
        now = asyncio.get_running_loop().time()
        messages = self._messages.values()
        waiting = sum(message.at <= now for message in messages)
        delayed = sum(message.at > now and not message.count for message in messages)
        return Depth(waiting, delayed, len(messages) - waiting - delayed, len(self._dead))

    async def aclose(self) -> None:
        """Keep everything: it is gone with the process."""

    def _place(self, message: _Message, delay: float) -> None:
        message.at = asyncio.get_running_loop().time() + delay
        message.entry = next(self._places)
        heappush(self._heap, (message.at, message.entry, message.id))
        if len(self._heap) > 2 * len(self._messages) + 64:
            self._heap = sorted((m.at, m.entry, m.id) for m in self._messages.values())
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def _take(self, limit: int, hidden: float, now: float) -> list[Delivery]:
        taken: list[_Message] = []
        while self._heap and self._heap[0][0] <= now and len(taken) < limit:
            _, entry, name = heappop(self._heap)
            message = self._messages.get(name)
            if message is None or message.entry != entry:
                continue
            message.count += 1
            taken.append(message)
        for message in taken:
            self._place(message, hidden)
        return [Delivery(item.body, item.id, item.count, receipt=item.count) for item in taken]

    def _held(self, delivery: Delivery) -> _Message | None:
        message = self._messages.get(delivery.id)
        return message if message is not None and message.count == delivery.receipt else None

    async def _changed(self, until: float) -> None:
        """Wait for a message that comes, or until then."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.add(future)
        try:
            async with asyncio.timeout_at(until):
                await future
        except TimeoutError:
            return
        finally:
            self._waiting.discard(future)


def create(settings: Settings, _client: HttpClient, _name: str) -> MemoryQueue:
    """Return a queue in this process."""
    return MemoryQueue(settings)
