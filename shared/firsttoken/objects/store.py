"""Objects in the store itself, compressed and in parts: no service of its own is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firsttoken.errors import StoreError
from firsttoken.settings import StoreObjects
from firsttoken.stores.parts import get_large, put_large

if TYPE_CHECKING:
    from firsttoken.providers.http import HttpClient
    from firsttoken.stores.store import Store


class ObjectsInStore:
    """An object is a value of the store, of up to `firsttoken.stores.parts.MAX_LARGE_BYTES`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, name: str, data: bytes, ttl: float) -> None:
        """Write an object; see `Objects`. Raises ValueError beyond the largest size."""
        await put_large(self._store, f"object:{name}", data, ttl)

    async def get(self, name: str, limit: int) -> bytes | None:
        """Return an object, or None; see `Objects`."""
        data = await get_large(self._store, f"object:{name}")
        if data is not None and len(data) > limit:
            raise StoreError(f"The object has {len(data)} bytes; expected at most {limit}.")
        return data

    async def delete(self, name: str) -> None:
        """Delete an object; see `Objects`. Its parts stay until their time is over."""
        await self._store.delete(f"object:{name}")

    async def aclose(self) -> None:
        """Do nothing: the store is its owner's."""


def create(_settings: StoreObjects, _client: HttpClient, store: Store) -> ObjectsInStore:
    """Return the objects in ``store``."""
    return ObjectsInStore(store)
