"""A short list of names in the store, which several instances add to and remove from: an index."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import msgspec

from firsttoken.errors import StoreError
from firsttoken.stores.store import Store

MAX_TRIES = 16
"""Writers that may come first, one after the other, before a change is given up."""
PAUSE = 0.02
"""Seconds, at most, before the second try; those before later ones grow with their number."""
_rng = Random()  # noqa: S311 - jitter
_names = msgspec.msgpack.Decoder(list[str])


class Listing:
    """At most ``limit`` names, oldest first, in one value of the store. Each method may raise StoreError."""

    def __init__(self, store: Store, key: str, limit: int, ttl: float) -> None:
        self._store = store
        self._key = key
        self._limit = limit
        self._ttl = ttl

    async def names(self) -> list[str]:
        """Return all names, oldest first."""
        return (await self._read())[1]

    async def add(
        self, name: str, *, push: bool = False, fits: Callable[[list[str]], bool] = lambda _: True
    ) -> bool:
        """Add a name, if it is not there, and say whether there was room.

        With ``push`` the oldest one makes room. ``fits`` says whether the name may join the others.
        """
        for tries in range(MAX_TRIES):
            await _turn(tries)
            raw, names = await self._read()
            if name in names:
                return True
            if (len(names) >= self._limit and not push) or not fits(names):
                return False
            if await self._write(raw, [*names, name][-self._limit :]):
                return True
        raise StoreError("A list in the store is changed by too many at once.")

    async def remove(self, gone: set[str]) -> None:
        """Remove names, those that are there."""
        for tries in range(MAX_TRIES):
            await _turn(tries)
            raw, names = await self._read()
            rest = [name for name in names if name not in gone]
            if len(rest) == len(names) or await self._write(raw, rest):
                return
        raise StoreError("A list in the store is changed by too many at once.")

    async def _read(self) -> tuple[bytes | None, list[str]]:
        raw = await self._store.get(self._key)
        try:
            return raw, [] if raw is None else _names.decode(raw)
        except msgspec.DecodeError as error:
            raise StoreError(f"A list in the store cannot be read: {error}.") from error

    async def _write(self, old: bytes | None, names: list[str]) -> bool:
        return await self._store.swap(self._key, old, msgspec.msgpack.encode(names), self._ttl)


async def _turn(tries: int) -> None:
    """Wait so that those who change a list at the same time come one after the other."""
    if tries:
        await asyncio.sleep(_rng.uniform(0, PAUSE * tries))
