"""The records of batches: each changes only by a conditional write of all of it, whoever changes it."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from firsttoken.batch.batch import Batch
from firsttoken.batch.listing import MAX_TRIES
from firsttoken.errors import StoreError
from firsttoken.stores.store import Store

_ID = re.compile(r"batch_[A-Za-z0-9_-]{1,64}")
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Batch).decode


class Book:
    """The records in a store, each kept for ``keep`` seconds after it was last changed.

    Every method may raise StoreError; after one a write may have been done.
    """

    def __init__(self, store: Store, keep: float) -> None:
        self._store = store
        self._keep = keep

    async def find(self, tenant: str, name: str) -> Batch | None:
        """Return a batch, or None."""
        if _ID.fullmatch(name) is None:
            return None
        raw = await self._store.get(key_of(tenant, name))
        return None if raw is None else _read(raw)

    async def find_many(self, tenant: str, names: list[str]) -> list[Batch]:
        """Return those of these batches that are there, in the same order."""
        keys = [key_of(tenant, name) for name in names]
        found = await self._store.get_many(keys)
        return [_read(found[key]) for key in keys if key in found]

    async def create(self, batch: Batch) -> None:
        """Write a new record."""
        await self._store.swap(key_of(batch.tenant, batch.id), None, _encode(batch), self._keep)

    async def take_back(self, batch: Batch) -> None:
        """Delete a record that is still as it was created."""
        await self._store.delete(key_of(batch.tenant, batch.id), _encode(batch))

    async def change(self, tenant: str, name: str, step: Callable[[Batch], Batch | None]) -> Batch | None:
        """Take a step and return the record after it; None where there is no such batch.

        ``step`` returns the new record, or None where it is not to be taken: the record stays as it is. It is
        called again where another writer came first. Raises StoreError after `MAX_TRIES` of those.
        """
        key = key_of(tenant, name)
        for _ in range(MAX_TRIES):
            raw = await self._store.get(key) if _ID.fullmatch(name) else None
            if raw is None:
                return None
            old = _read(raw)
            new = step(old)
            if new is None:
                return old
            if await self._store.swap(key, raw, _encode(new), self._keep):
                return new
        raise StoreError(f"The batch {name} is changed by too many at once.")


def key_of(tenant: str, name: str) -> str:
    """Return the key of a batch's record, and of its lease."""
    return f"batch:{tenant}:{name}"


def _read(raw: bytes) -> Batch:
    try:
        return _decode(raw)
    except msgspec.DecodeError as error:
        raise StoreError(f"A batch's record cannot be read: {error}.") from error
