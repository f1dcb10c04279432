"""The state of one Pub/Sub subscription: which messages are due, which are handed out, which come again.

No network here, and no clock but the loop's: everything happens at its time on a virtual loop, too.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from random import Random

from msgspec import Struct, field

MAX_BACKLOG = 100_000
"""Messages that one subscription keeps; a publisher beyond that is told to wait."""
PUSH_BACKOFF = (0.1, 60.0)
"""Seconds: the least and the longest delay of a push that failed, without a retry policy."""
_LATEST = 1.0
"""Seconds that a message which is delivered twice, or out of order, is late at most."""


class Faults(Struct, frozen=True):
    """What at-least-once delivery in any order may look like: shares of messages from 0 to 1."""

    duplicates: float = 0.0
    """Delivered once more, while they are worked on or after they were acknowledged."""
    reorder: float = 0.0
    """Held back for a moment, so that later ones overtake them."""
    seed: int = 0


class Message(Struct, frozen=True):
    """A published message; ``published`` in Unix seconds."""

    id: str
    data: bytes
    attributes: dict[str, str]
    ordering_key: str
    published: float

    @property
    def time(self) -> str:
        """When it was published, as Google's APIs write it."""
        text = datetime.fromtimestamp(self.published, UTC).isoformat(timespec="milliseconds")
        return text.replace("+00:00", "Z")


class Rules(Struct, frozen=True):
    """What a subscription does with messages. Times in seconds."""

    ack_deadline: float = 10.0
    backoff: tuple[float, float] = (0.0, 0.0)
    """Least and longest delay of a message that was not acknowledged; it doubles with each time."""
    max_attempts: int | None = None
    """After so many, a message goes to the dead letters; None: never."""


class _Entry:
    """A message that was not acknowledged yet."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.failures = 0
        self.finished = False


class Lease(Struct):
    """A message that is handed out, and until when (a time of the loop)."""

    ack_id: str
    entry: _Entry
    until: float
    is_extra: bool = False
    """Delivered once more by a fault: what becomes of it says nothing of the message but success."""
    attempt: int = field(default=1)

    @property
    def message(self) -> Message:
        """The message."""
        return self.entry.message


class Subscription:
    """Messages from `add` until `acknowledge`; ``bury`` takes dead letters and says whether it could.

    Memory: up to `MAX_BACKLOG` messages. A message costs O(log n).
    """

    def __init__(self, rules: Rules, faults: Faults, bury: Callable[[Message, int], bool]) -> None:
        self.rules = rules
        self._faults = faults
        self._rng = Random(faults.seed)  # noqa: S311 - faults that can be repeated
        self._bury = bury
        self._numbers = itertools.count()
        self._entries: set[_Entry] = set()
        self._due: list[tuple[float, int, _Entry, bool]] = []
        self._leases: dict[str, Lease] = {}
        self._ends: list[tuple[float, str]] = []
        self._changed = asyncio.Event()

    @property
    def backlog(self) -> int:
        """How many messages were not acknowledged yet."""
        return len(self._entries)

    @property
    def outstanding(self) -> int:
        """How many are handed out."""
        return len(self._leases)

    def add(self, message: Message) -> None:
        """Take a message that was published."""
        entry = _Entry(message)
        self._entries.add(entry)
        is_late = self._rng.random() < self._faults.reorder
        self._schedule(entry, self._rng.uniform(0, _LATEST) if is_late else 0.0)

    def take(self, limit: int, hidden: float | None = None) -> list[Lease]:
        """Hand out up to ``limit`` messages that are due, for ``hidden`` seconds (the ack deadline)."""
        now = asyncio.get_running_loop().time()
        self._expire(now)
        until = now + (self.rules.ack_deadline if hidden is None else hidden)
        taken: list[Lease] = []
        while len(taken) < limit and self._due and self._due[0][0] <= now:
            _, number, entry, is_extra = heapq.heappop(self._due)
            if entry.finished and not is_extra:
                continue
            lease = Lease(f"{entry.message.id}-{number}", entry, until, is_extra, 1 + entry.failures)
            self._leases[lease.ack_id] = lease
            heapq.heappush(self._ends, (until, lease.ack_id))
            taken.append(lease)
            if not is_extra and self._rng.random() < self._faults.duplicates:
                self._schedule(entry, self._rng.uniform(0, _LATEST), is_extra=True)
        return taken

    def acknowledge(self, ack_id: str) -> None:
        """Finish with a message; who comes too late, or twice, is told nothing."""
        if lease := self._leases.pop(ack_id, None):
            lease.entry.finished = True
            self._entries.discard(lease.entry)
            self._wake()

    def extend(self, ack_id: str, seconds: float) -> None:
        """Hide a message for so long from now on; 0 gives it back."""
        if seconds <= 0:
            self.fail(ack_id)
        elif lease := self._leases.get(ack_id):
            lease.until = asyncio.get_running_loop().time() + seconds
            heapq.heappush(self._ends, (lease.until, ack_id))

    def fail(self, ack_id: str) -> None:
        """Give a message back that was not acknowledged: it comes again after its delay, or is dead."""
        lease = self._leases.pop(ack_id, None)
        if lease is None:
            return
        entry = lease.entry
        if not lease.is_extra and not entry.finished:
            entry.failures += 1
            most = self.rules.max_attempts
            # Pub/Sub, too, goes on delivering while the dead-letter topic cannot be had.
            if most is not None and entry.failures >= most and self._bury(entry.message, entry.failures):
                entry.finished = True
                self._entries.discard(entry)
            else:
                least, longest = self.rules.backoff
                self._schedule(entry, min(least * 2.0 ** min(entry.failures - 1, 60), longest))
        self._wake()

    async def wait(self, until: float = inf, *, for_due: bool = True) -> None:
        """Wait for a change, for the next message that is due (if wanted), or for a time of the loop."""
        changed = self._changed
        times = [until, *[heap[0][0] for heap in (self._due, self._ends) if heap and for_due]]
        try:
            async with asyncio.timeout_at(None if min(times) == inf else min(times)):
                await changed.wait()
        except TimeoutError:
            pass

    def _expire(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            until, ack_id = heapq.heappop(self._ends)
            lease = self._leases.get(ack_id)
            if lease is not None and lease.until == until:
                self.fail(ack_id)

    def _schedule(self, entry: _Entry, delay: float, *, is_extra: bool = False) -> None:
        at = asyncio.get_running_loop().time() + delay
        heapq.heappush(self._due, (at, next(self._numbers), entry, is_extra))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
