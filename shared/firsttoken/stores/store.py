"""What a store must be able to do: small values that several instances share, each with a time to live.

Breakers, rate limits, idempotent answers, leases and (later) caches and jobs need nothing else. No call waits
for a store unless the client asked for what only the store knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

MAX_KEY_BYTES = 512
"""Of a key in UTF-8. A key is any text; each store encodes what it cannot hold."""


class Store(Protocol):
    """Every method may raise a StoreError, and nothing else, when the store cannot be had.

    Values, counters and leases of the same key are apart. A store may have a method ``open`` for what must
    be done once for each event loop (imports, credentials); it is not counted as an operation's time.

    ``ttl`` is in seconds and counts from the write; what has expired is never seen again. Values are bytes of
    at most ``max_value_bytes``; a larger one is a ValueError (see `firsttoken.stores.parts`).
    """

    @property
    def shared(self) -> bool:
        """Whether other instances see the same values."""

    @property
    def max_value_bytes(self) -> int:
        """How large one value can be."""

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None when there is none."""

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values that are there, in one round trip where the store can."""

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Write a value, whatever was there."""

    async def swap(self, key: str, old: bytes | None, new: bytes, ttl: float) -> bool:
        """Write ``new`` only where the value is ``old`` (None: where there is none); say whether it was."""

    async def delete(self, key: str, old: bytes | None = None) -> bool:
        """Delete a value (only where it is ``old``, if given); say whether there was one to delete."""

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add to a counter, atomically, and return its new value; a counter that is not there is 0.

        Counters are signed 64-bit integers with keys of their own; ``ttl`` counts from the first addition.
        A sum beyond 64 bits is a ValueError, and changes nothing.
        """

    async def lease(self, key: str, owner: str, ttl: float) -> int | None:
        """Take the lease, or renew it where ``owner`` holds it.

        Returns the fencing epoch (it grows by one with each new holder, and stays when renewed), or None
        while another owner holds it. An expired lease is free.
        """

    async def release(self, key: str, owner: str) -> bool:
        """Give the lease back; say whether ``owner`` held it. Its epoch is remembered for an hour or more."""

    async def purge(self) -> int:
        """Delete what has expired, where the store does not do so itself; return how many there were."""

    async def aclose(self) -> None:
        """Close connections and files."""
