"""What the circuits of all instances tell each other, through the store and beside the calls.

A circuit decides on what it knows; the board brings it what others know. One read fetches the state of every
target once the local copy is stale, and what one instance finds out is written by compare-and-swap. A store
that is down changes nothing but that: each instance then goes by what it sees itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

import msgspec
from msgspec import Struct

from firsttoken.errors import StoreError
from firsttoken.policies.counted import Counted, unpack
from firsttoken.policies.shadow import Shadow
from firsttoken.settings import Breaker as Settings
from firsttoken.stores.store import Store

MEMORY = 60.0
"""Seconds after which what is known of a target no longer counts."""
_SPREAD = 0.2
"""Instances that started together do not read together."""
_HASTE = 1.0
"""Seconds that the local copy is good for where the fleet has failures."""
_TRIES = 3


class Shared(Struct, frozen=True, omit_defaults=True):
    """What all instances know of one target. Times are Unix seconds: the instances have no other clock."""

    epoch: int = 0
    """Grows with each opening and closing. Counters are kept per epoch, so none outlives a recovery."""
    n: int = 0
    """Openings in a row before this one."""
    opened: float = 0.0
    until: float = 0.0
    """Open until then, and until a probe has succeeded; 0: closed."""
    probed: float = 0.0
    """When a probe last ended ..."""
    healthy: bool = False
    """... and whether it succeeded."""
    cool: float = 0.0
    """The target asked to be left alone until then."""
    code: str = ""
    """The error that opened it."""

    def next_epoch(self, now: float) -> int:
        """Return an epoch after this one, even where the store lost the ones before."""
        return max(self.epoch + 1, int(now * 1000))


_decoder = msgspec.json.Decoder(Shared)
_NOTHING = Shared()


class Board:
    """The circuits' side of the store: at most one read in flight. Memory: a reference a target.

    ``store`` bounds the time of its own operations (`firsttoken.stores.guarded`). Without one every method
    raises StoreError, as with one that is down.
    """

    def __init__(
        self,
        store: Store | None,
        settings: Settings,
        shadow: Shadow,
        *,
        rng: Random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.shadow = shadow
        self.rng = rng
        self.wall = wall
        self.instance = f"{rng.getrandbits(64):016x}"
        """Who holds the leases that this instance takes."""
        self._store = store
        self._stale = settings.stale
        self._window = settings.window
        self._watchers: dict[str, Callable[[Shared], None]] = {}
        self._read_at = 0.0
        self._due = 0.0
        self._reading = False

    @property
    def alone(self) -> bool:
        """Whether there is no store at all."""
        return self._store is None

    def watch(self, name: str, apply: Callable[[Shared], None]) -> None:
        """Have ``apply`` told what is read of the target ``name``."""
        self._watchers[_key(name)] = apply

    def refresh(self) -> None:
        """Start a read beside the call when the local copy is stale; nobody waits for it."""
        now = self.wall()
        if self._read_at <= now < self._due or self._reading or self._store is None:
            return
        self._read_at = now
        self._due = now + self.spread(self._stale)
        self.shadow.run(self.read())

    def hasten(self) -> None:
        """Let the local copy be stale soon: there may be news."""
        self._due = min(self._due, self._read_at + _HASTE)

    async def read(self) -> None:
        """Read what is known of all targets and tell their circuits. Raises StoreError."""
        store = self._reachable()
        self._reading = True
        try:
            values = await store.get_many(list(self._watchers))
        finally:
            self._reading = False
        for key, apply in self._watchers.items():
            apply(_decode(values.get(key)))

    async def get(self, name: str) -> Shared:
        """Return what is known of one target. Raises StoreError."""
        return _decode(await self._reachable().get(_key(name)))

    async def update(self, name: str, change: Callable[[Shared], Shared | None]) -> Shared:
        """Write what ``change`` makes of the present state, None: leave it; return the state then.

        Raises StoreError, also when others were quicker too often.
        """
        store = self._reachable()
        key = _key(name)
        for _ in range(_TRIES):
            old = await store.get(key)
            current = _decode(old)
            new = change(current)
            if new is None:
                return current
            now = self.wall()
            ttl = max(new.until, new.cool, now) - now + MEMORY
            if await store.swap(key, old, msgspec.json.encode(new), ttl):
                return new
        raise StoreError(f"The shared state of {name} changed {_TRIES} times while it was written.")

    async def count(self, name: str, epoch: int, one: Counted) -> Counted:
        """Add ``one`` to what this window has, and return all of it. Raises StoreError.

        One atomic addition.
        """
        bucket = int(self.wall() / self._window)
        key = f"outcomes:{name}:{epoch}:{bucket}"
        return unpack(await self._reachable().add(key, one.pack(), 2 * self._window))

    async def elect(self, name: str, ttl: float) -> bool:
        """Return whether this instance is the one that probes the target. Raises StoreError."""
        return await self._reachable().lease(f"probe:{name}", self.instance, ttl) is not None

    async def resign(self, name: str) -> None:
        """Let others probe the target. Raises StoreError."""
        await self._reachable().release(f"probe:{name}", self.instance)

    def spread(self, seconds: float) -> float:
        """Return ``seconds``, give or take a fifth."""
        return seconds * (1 + _SPREAD * (2 * self.rng.random() - 1))

    def _reachable(self) -> Store:
        if self._store is None:
            raise StoreError("There is no store.")
        return self._store


def _key(name: str) -> str:
    return f"circuit:{name}"


def _decode(value: bytes | None) -> Shared:
    if value is None:
        return _NOTHING
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _NOTHING  # another version's; it is written anew when there is something to say
