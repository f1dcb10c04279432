"""What the other instances spend of a target's limits, told through the store and beside the calls.

Each instance adds what it spent to a counter of the running minute, every ``sync`` seconds while it has
calls, and takes from its own buckets what the others have added. Nobody waits for that. How far all of them
together can pass the limit: by what all let through before they hear of each other, that is by instances x
``sync`` x the limit a second; it is owed, and so paid back from the next refill. While the store is down each
instance counts for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from firsttoken.policies.bucket import MINUTE, Quotas
from firsttoken.policies.shadow import Shadow
from firsttoken.stores.store import Store

if TYPE_CHECKING:
    from random import Random

TTL = 180.0
_SHIFT = 40
"""A counter holds requests above this bit, and tokens below it (with a sign: what was given back)."""
Counts = tuple[int, int, int]


class QuotaSync:
    """Tells one target's spending and learns the others'. Two additions to the store at most each time."""

    def __init__(  # noqa: PLR0913 - what it joins, and the clocks
        self,
        name: str,
        quotas: Quotas,
        store: Store,
        shadow: Shadow,
        every: float,
        *,
        wall: Callable[[], float],
        rng: Random,
    ) -> None:
        self._name = name
        self._quotas = quotas
        self._store = store
        self._shadow = shadow
        self._every = every
        self._wall = wall
        self._rng = rng
        self._due = -inf
        self._done = -inf
        """When it last worked, on the loop's clock."""
        self._busy = False
        self._minute = -1
        self._told: Counts = (0, 0, 0)
        """How much of what this process has spent the store knows."""
        self._own: Counts = (0, 0, 0)
        """... and how much of it in this minute."""
        self._others: Counts = (0, 0, 0)
        """What the others have told in this minute."""

    def touch(self, now: float) -> None:
        """Start an exchange when one is due. To be called before anything is spent."""
        if now < self._due:
            return
        self._due = now + self._every * (0.9 + 0.2 * self._rng.random())  # instances must not go in step
        if now - self._done > MINUTE:
            self._told = _whole(self._quotas)  # spent long ago, by now refilled
        if not self._busy:
            self._shadow.run(self._exchange(now))

    async def _exchange(self, now: float) -> None:
        self._busy = True
        try:
            minute, seconds = divmod(self._wall(), MINUTE)
            if int(minute) != self._minute:
                await self._turn(int(minute), seconds)
            spent = _whole(self._quotas)
            news = _minus(spent, self._told)
            total = await self._add(self._minute, news)
            self._told, self._own = spent, _plus(self._own, news)
            self._hear(_minus(total, self._own))
            self._done = now
        finally:
            self._busy = False

    async def _turn(self, minute: int, seconds: float) -> None:
        """Begin with a new counter; what was told too late for the last one is heard before that."""
        joins = self._minute != minute - 1
        if joins:
            self._own = self._others = (0, 0, 0)
        last = await self._add(minute - 1, (0, 0, 0))
        if joins:  # it begins with what the last sixty seconds have left
            part = 1 - seconds / MINUTE
            self._hear((int(last[0] * part), int(last[1] * part), int(last[2] * part)))
        else:
            self._hear(_minus(last, self._own))
        self._minute, self._own, self._others = minute, (0, 0, 0), (0, 0, 0)

    def _hear(self, others: Counts) -> None:
        for bucket, spent in zip(self._quotas.buckets, _minus(others, self._others), strict=True):
            bucket.debit_others(spent)
        self._others = others

    async def _add(self, minute: int, counts: Counts) -> Counts:
        """Add to the counters of a minute and return what they hold. Raises StoreError."""
        requests, tokens, output = counts
        key = f"limit/{self._name}/{minute}"
        both = await self._store.add(key, (requests << _SHIFT) + tokens, TTL)
        tokens = ((both + (1 << (_SHIFT - 1))) & ((1 << _SHIFT) - 1)) - (1 << (_SHIFT - 1))
        if self._quotas.output.known:
            output = await self._store.add(f"{key}/output", output, TTL)
        else:
            output += self._own[2]  # as if there were no others
        return (both - tokens) >> _SHIFT, tokens, output


def _whole(quotas: Quotas) -> Counts:
    requests, tokens, output = quotas.spent
    return int(requests), int(tokens), int(output)


def _plus(one: Counts, other: Counts) -> Counts:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _minus(one: Counts, other: Counts) -> Counts:
    return one[0] - other[0], one[1] - other[1], one[2] - other[2]
