"""A key that one of several instances answers, as the store knows it.

A mark says who answers what; it is renewed while he works and expires when he dies. The answer stands beside
it, at a key of its own for each owner, so that two who both believe to own the key cannot mix theirs.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TypeVar

import msgspec
from msgspec import Struct

from firsttoken.errors import IdempotencyError, StoreError
from firsttoken.settings import Idempotency
from firsttoken.stores.parts import get_large, put_large
from firsttoken.stores.store import Store

T = TypeVar("T")

POLL = 0.05
"""Seconds between two looks at another one's mark, at first; they grow to `MAX_POLL`."""
MAX_POLL = 0.5
_GROWTH = 1.5


class _Mark(Struct, frozen=True):
    owner: str
    fingerprint: str
    done: bool = False


class Kept(Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    target: str


_encode = msgspec.msgpack.encode


class Claim:
    """The right to answer the key ``name`` for a request with this fingerprint."""

    def __init__(self, store: Store, settings: Idempotency, name: str, fingerprint: str) -> None:
        self.local = False
        """Whether the store could not be had, so that other instances know nothing of it."""
        self._store = store
        self._settings = settings
        self._name = name
        self._fingerprint = fingerprint
        self._owner = os.urandom(12).hex()
        self._mine = _encode(_Mark(self._owner, fingerprint))

    async def take(self) -> Kept | None:
        """Take the key, or return the answer that it has already, waiting for it where need be.

        Raises IdempotencyError where the key belongs to another request. Without a store it is taken. Costs
        one operation where the key is new.
        """
        old: bytes | None = None
        try:
            while not await self._store.swap(self._name, old, self._mine, self._settings.lease):
                old, found = await self._watch()
                if found is not None:
                    return found
        except StoreError:
            self.local = True
        return None

    async def renew(self) -> None:
        """Keep the mark alive until it is another one's: this instance was taken for dead."""
        held = not self.local
        while held:
            await asyncio.sleep(self._settings.lease / 3)
            with suppress(StoreError):
                held = await self._store.swap(self._name, self._mine, self._mine, self._settings.lease)

    async def keep(self, answer: Kept) -> bool:
        """Write the answer to the store; say whether others will find it there."""
        if self.local:
            return False
        done = _encode(_Mark(self._owner, self._fingerprint, done=True))
        try:
            await put_large(self._store, f"{self._name}:{self._owner}", _encode(answer), self._settings.ttl)
            return await self._store.swap(self._name, self._mine, done, self._settings.ttl)
        except StoreError:
            return False

    async def free(self) -> None:
        """Give the key back."""
        with suppress(StoreError):
            await self._store.delete(self._name, self._mine)

    async def _watch(self) -> tuple[bytes | None, Kept | None]:
        """Wait for what another one answers; return that, or the mark of his that may be replaced."""
        pause = POLL
        while (seen := await self._store.get(self._name)) is not None:
            mark = _decode(seen, _Mark)
            if mark is None:
                return seen, None
            if mark.fingerprint != self._fingerprint:
                raise reused()
            if mark.done:
                packed = await get_large(self._store, f"{self._name}:{mark.owner}")
                return seen, None if packed is None else _decode(packed, Kept)
            await asyncio.sleep(pause * (0.5 + os.urandom(1)[0] / 510))
            pause = min(pause * _GROWTH, MAX_POLL)
        return None, None


def reused() -> IdempotencyError:
    """Return the error for a key that another request has used."""
    message = "Idempotency-Key: this key was used before with another path or body; expected a new key."
    return IdempotencyError(message, param="Idempotency-Key")


def _decode(data: bytes, kind: type[T]) -> T | None:
    """Return a value of the store, or None for one that another version wrote."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.DecodeError:
        return None
