"""A store in this process: for one instance, and as the double of the shared ones in tests."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from msgspec import Struct

from firsttoken.settings import MemoryStore as Settings
from firsttoken.stores.keys import check_number, check_value

MAX_BYTES = 64 * 1024 * 1024
"""Of all values together; beyond it, what was used least recently goes."""
EPOCH_SECONDS = 7_200.0
"""How long the epoch of a lease that nobody holds is remembered."""
_STEP = 1_000


class _Entry(Struct):
    """A value, a counter (``number``) or a lease (``owner`` until ``until``, epoch ``number``)."""

    expires: float
    value: bytes = b""
    number: int = 0
    owner: str = ""
    until: float = 0.0


class MemoryStore:
    """Values, counters and leases of one process, in its event loop's time.

    Every operation but `purge` takes constant time. Memory: ``settings.entries`` keys, `MAX_BYTES` of values.
    Values, counters and leases of one key are apart. What is evicted is lost before its time, a lease too.
    """

    shared = False
    max_value_bytes = 16 * 1024 * 1024

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.entries
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._bytes = 0

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None; see `Store`."""
        entry = self._find("value", key)
        return None if entry is None else entry.value

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values that are there; see `Store`."""
        found = {key: self._find("value", key) for key in keys}
        return {key: entry.value for key, entry in found.items() if entry is not None}

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Write a value; see `Store`."""
        check_value(value, self.max_value_bytes)
        self._write("value", key, _Entry(_now() + ttl, bytes(value)))

    async def swap(self, key: str, old: bytes | None, new: bytes, ttl: float) -> bool:
        """Write a value where it is ``old``; see `Store`."""
        check_value(new, self.max_value_bytes)
        if await self.get(key) != old:
            return False
        await self.put(key, new, ttl)
        return True

    async def delete(self, key: str, old: bytes | None = None) -> bool:
        """Delete a value; see `Store`."""
        entry = self._find("value", key)
        if entry is None or (old is not None and entry.value != old):
            return False
        self._drop(("value", key))
        return True

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add to a counter; see `Store`. Raises ValueError beyond 64 bits."""
        entry = self._find("counter", key)
        if entry is None:
            self._write("counter", key, _Entry(_now() + ttl, number=check_number(amount)))
            return amount
        entry.number = check_number(entry.number + amount)
        return entry.number

    async def lease(self, key: str, owner: str, ttl: float) -> int | None:
        """Take or renew a lease; see `Store`."""
        now = _now()
        entry = self._find("lease", key) or _Entry(now)
        held = entry.until > now
        if held and entry.owner != owner:
            return None
        epoch = entry.number if held else entry.number + 1
        self._write("lease", key, _Entry(now + ttl + EPOCH_SECONDS, b"", epoch, owner, now + ttl))
        return epoch

    async def release(self, key: str, owner: str) -> bool:
        """Give a lease back; see `Store`."""
        now = _now()
        entry = self._find("lease", key)
        if entry is None or entry.until <= now or entry.owner != owner:
            return False
        entry.until, entry.expires = now, now + EPOCH_SECONDS
        return True

    async def purge(self) -> int:
        """Delete what has expired, letting others work every thousand keys; return how many there were."""
        count = 0
        for number, key in enumerate(list(self._entries), 1):
            entry = self._entries.get(key)
            if entry is not None and entry.expires <= _now():
                self._drop(key)
                count += 1
            if not number % _STEP:
                await asyncio.sleep(0)
        return count

    async def aclose(self) -> None:
        """Keep everything: it is gone with the process."""

    def _find(self, kind: str, key: str) -> _Entry | None:
        name = kind, key
        entry = self._entries.get(name)
        if entry is None:
            return None
        if entry.expires <= _now():
            self._drop(name)
            return None
        self._entries.move_to_end(name)
        return entry

    def _write(self, kind: str, key: str, entry: _Entry) -> None:
        name = kind, key
        if name in self._entries:
            self._drop(name)
        self._entries[name] = entry
        self._bytes += len(entry.value)
        while len(self._entries) > self._limit or self._bytes > MAX_BYTES:
            self._drop(next(iter(self._entries)))

    def _drop(self, name: tuple[str, str]) -> None:
        self._bytes -= len(self._entries.pop(name).value)


def _now() -> float:
    return asyncio.get_running_loop().time()
