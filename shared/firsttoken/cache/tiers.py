"""Where answers are kept: this process before the store, both behind what was purged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from msgspec.structs import replace

from firsttoken import config
from firsttoken.cache.crypto import seal_of
from firsttoken.cache.entry import Entry, decode, encode
from firsttoken.cache.lease import Turn
from firsttoken.cache.memory_tier import MemoryTier
from firsttoken.cache.purge import Purges
from firsttoken.cache.replay import bursts
from firsttoken.errors import StoreError
from firsttoken.policies.shadow import Shadow
from firsttoken.settings import Cache
from firsttoken.stores.parts import MAX_LARGE_BYTES, get_large, put_large
from firsttoken.stores.store import Store
from firsttoken.telemetry.record import Record

MAX_RESTING = 1024
_WORTH_A_THREAD = 64 * 1024


class Tiers:
    """The kept answers of all routes of one process.

    Memory: ``settings.memory_bytes``, and what `Purges` takes. A store that is not shared would only hold
    the same once more; it is asked for purges alone. Time: microseconds in memory; in the store one round
    trip, and one for the marks of purges where those are older than `purge.MAX_AGE`.
    """

    def __init__(
        self, settings: Cache, store: Store, shadow: Shadow, *, wall: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings
        self.shadow = shadow
        self.wall = wall
        self.memory = MemoryTier(settings.memory_bytes)
        self.purges = Purges(store, shadow, wall=wall)
        self.damaged = 0
        """Entries of the store that could not be opened or read."""
        self.shared = store.shared
        self.secret = config.secret(settings.key_secret, "cache.key_secret") if settings.key_secret else ""
        key = settings.encryption_key
        self._seal = seal_of(config.secret(key, "cache.encryption_key") if key else "", self.secret)
        self._store = store if store.shared else None
        self._resting: dict[str, float] = {}

    async def load(self, key: str, record: Record | None = None) -> Entry | None:
        """Return the entry of a key: within its time and not purged. A store that fails has none."""
        entry = self.memory.get(key)
        if entry is not None:
            if self._lives(entry) and await self.purges.are(entry.stamps):
                return entry
            self.memory.drop(key)
        return await self.load_shared(key, record)

    async def load_shared(self, key: str, record: Record | None = None) -> Entry | None:
        """Return the entry that the store has, as `load` does, and keep it here as well."""
        if self._store is None:
            return None
        try:
            data = await get_large(self._store, _name(key))
        except StoreError:
            return None
        if data is None:
            return None
        entry = await self._decode(data, key)
        if entry is None:
            self.damaged += 1
            if record is not None:
                record.notes["cache_entry"] = "damaged"
            return None
        if not self._lives(entry) or not await self.purges.are(entry.stamps):
            return None
        return self.remember(entry)

    def remember(self, entry: Entry) -> Entry:
        """Keep an entry in this process, in the form in which it is given again; return that."""
        if not self.settings.pace:
            entry = replace(entry, chunks=bursts(entry.chunks))
        if not entry.holds_nothing:
            self.memory.put(entry)
        return entry

    async def keep(self, entry: Entry) -> None:
        """Write an entry to the store, if others see it there. Raises StoreError."""
        left = self.life_of(entry) - self.age(entry)
        if self._store is None or left <= 0:
            return
        if entry.size() >= _WORTH_A_THREAD:
            data = await asyncio.to_thread(encode, entry, self._seal)
        else:
            data = encode(entry, self._seal)
        if data is not None and len(data) <= MAX_LARGE_BYTES:
            await put_large(self._store, _name(entry.key), data, left)

    def turn(self, key: str) -> Turn | None:
        """Return a turn to make the answer of a key; None where no other instance could make it."""
        if self._store is None:
            return None
        return Turn(self._store, self.shadow, key, self.settings.lease)

    def age(self, entry: Entry) -> float:
        """Return how old an entry is, in seconds."""
        return max(0.0, self.wall() - entry.created)

    def life_of(self, entry: Entry) -> float:
        """Return how old an entry may become: an answer, a refusal, or a note that there is neither."""
        if entry.holds_nothing:
            return self.settings.lease
        return self.settings.max_age if entry.refusal is None else self.settings.negative_ttl

    def may_renew(self, key: str) -> bool:
        """Return whether it is time to try to renew an answer, and let none try for the time of a lease."""
        now = self.wall()
        if self._resting.get(key, 0.0) > now:
            return False
        self.rest(key, self.settings.lease)
        return True

    def rest(self, key: str, seconds: float) -> None:
        """Let nobody in this process try to renew an answer for ``seconds``."""
        self._resting.pop(key, None)
        while len(self._resting) >= MAX_RESTING:
            del self._resting[next(iter(self._resting))]
        self._resting[key] = self.wall() + seconds

    def _lives(self, entry: Entry) -> bool:
        return self.age(entry) < self.life_of(entry)

    async def _decode(self, data: bytes, key: str) -> Entry | None:
        if len(data) >= _WORTH_A_THREAD:
            return await asyncio.to_thread(decode, data, key, self._seal, self.wall())
        return decode(data, key, self._seal, self.wall())


def _name(key: str) -> str:
    return f"cache:{key}"
