"""How fast jobs may be answered, over all workers, so that a recovery does not cause the next outage.

Jobs get a share of what a route's targets allow; who waits for an answer gets the rest, and goes first
(`firsttoken.policies.line`). Each second has its permits, counted in the store: one addition a permit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from firsttoken.errors import StoreError
from firsttoken.settings import Jobs

if TYPE_CHECKING:
    from firsttoken.stores.store import Store

_TTL = 120.0
_SPREAD = 0.2
"""Of a second: those who wait for the same one come one after the other."""


class Pace:
    """Hands out permits to answer a job. No memory: the store holds a counter for each second and route."""

    def __init__(
        self,
        store: Store,
        settings: Jobs,
        limit_of: Callable[[str], float],
        *,
        clock: Callable[[], float] = time.time,
        rng: Random,
    ) -> None:
        """Take permits from ``store``; ``limit_of`` says how many requests a minute a route allows, or 0."""
        self._store = store
        self._settings = settings
        self._limit_of = limit_of
        self._clock = clock
        self._rng = rng

    def rate(self, route: str) -> float:
        """Return the jobs a second that may be answered by a route; 0: as many as come."""
        return (self._settings.rpm or self._settings.share * self._limit_of(route)) / 60

    async def wait_time(self, route: str) -> float:
        """Take a permit and return 0, or return the seconds after which one may be had.

        Without a store there is no pace either: the targets' own limits still hold.
        """
        rate = self.rate(route)
        if not rate:
            return 0.0
        now = self._clock()
        second = int(now)
        here = _permits(rate, second)
        try:
            taken = await self._store.add(f"pace:{route}:{second}", 1, _TTL) if here else 1
        except StoreError:
            return 0.0
        if taken <= here:
            return 0.0
        ahead = taken - here
        while ahead > 0:
            second += 1
            ahead -= _permits(rate, second)
        return second - now + _SPREAD * self._rng.random()


def _permits(rate: float, second: int) -> int:
    """Return how many permits a second has: whole ones that add up to the rate."""
    return int(rate * (second + 1)) - int(rate * second)
