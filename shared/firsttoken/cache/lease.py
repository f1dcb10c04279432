"""Whose turn it is to make an answer: one instance makes it, the others look for it a while.

A turn spares upstream calls, it is no gate: who has waited long enough, or cannot reach the store, makes the
answer as well.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

from firsttoken.cache.entry import Entry
from firsttoken.errors import StoreError
from firsttoken.policies.shadow import Shadow
from firsttoken.stores.store import Store

POLL = 0.05
"""Seconds between two looks, at first; they grow to `MAX_POLL`."""
MAX_POLL = 0.5
MAX_WAIT = 3.0
_GROWTH = 1.5

Find = Callable[[], Awaitable[Entry | None]]


class Turn:
    """A lease on the answer of one key. Held, it is renewed every third of its ``seconds`` until `free`."""

    def __init__(self, store: Store, shadow: Shadow, key: str, seconds: float) -> None:
        self.held = False
        self._store = store
        self._shadow = shadow
        self._name = f"cache-turn:{key}"
        self._seconds = seconds
        self._owner = os.urandom(8).hex()
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, find: Find, seconds: float, rng: Random) -> Entry | None:
        """Return what another one makes meanwhile, or None: then the caller makes it, whether `held` or not.

        Costs one operation where nobody else makes it.
        """
        now = asyncio.get_running_loop().time
        until, pause = now() + seconds, POLL
        with suppress(StoreError):
            while not (epoch := await self.take()):
                left = until - now()
                if left <= 0:
                    return None
                await asyncio.sleep(min(left, pause * (0.5 + rng.random())))
                pause = min(pause * _GROWTH, MAX_POLL)
                if (entry := await find()) is not None:
                    return entry
            if epoch > 1:  # another one had it before: perhaps since the caller looked
                return await find()
        return None

    async def take(self) -> int:
        """Take the lease and keep it; return its epoch, or 0 while another one has it. Raises StoreError."""
        epoch = await self._store.lease(self._name, self._owner, self._seconds)
        if epoch:
            self.held = True
            self._wind()
        return epoch or 0

    def stop(self) -> None:
        """Renew it no more: it is over by itself, unless it is given back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def free(self) -> None:
        """Give it back. Raises StoreError."""
        self.stop()
        async with self._lock:  # a renewal that is under way must not take it again
            if self.held:
                self.held = False
                await self._store.release(self._name, self._owner)

    def _wind(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds / 3, self._due)

    def _due(self) -> None:
        self._wind()
        self._shadow.run(self._renew())

    async def _renew(self) -> None:
        async with self._lock:
            if self.held:
                await self._store.lease(self._name, self._owner, self._seconds)
