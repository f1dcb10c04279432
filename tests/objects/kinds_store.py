"""Objects in the store itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from firsttoken.objects import Objects, create_objects
from firsttoken.providers.http import HttpClient
from firsttoken.settings import SqliteStore, StoreObjects
from firsttoken.stores import create_store
from tests.objects.kinds import Kind


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Objects]:
    store = create_store(SqliteStore(path=str(directory / "store.sqlite"), timeout=20.0))
    try:
        yield create_objects(StoreObjects(), HttpClient(), store)
    finally:
        await store.aclose()


def unreachable(directory: Path) -> Objects:
    store = create_store(SqliteStore(path=str(directory / "missing" / "store.sqlite")))
    return create_objects(StoreObjects(), HttpClient(), store)


KINDS = [Kind("store", opened, unreachable)]
