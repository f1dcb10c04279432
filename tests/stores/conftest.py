"""Every kind of store, each started once: the suite asks the same of all of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from firsttoken.settings import MemoryStore, RedisStore, SqliteStore, StoreSettings
from firsttoken.stores import Guarded, Store, create_store
from tests.stores import cloud
from tests.stores.servers import redis_server

PATIENCE = 20.0
"""Seconds that an operation may take where the test is not about time: the machine may be busy."""


@dataclass
class Subject:
    """A store under test, how other processes reach it, and the loop that it lives in."""

    kind: str
    store: Store
    settings: StoreSettings
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    env: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def key(self, name: str = "key") -> str:
        """A key that no other test uses."""
        return f"{next(self._numbers)}/{name}"


@asynccontextmanager
async def _own(settings: StoreSettings) -> AsyncIterator[tuple[Store, StoreSettings]]:
    store = create_store(settings).inner
    try:
        yield store, settings
    finally:
        await store.aclose()


@asynccontextmanager
async def _opened(kind: str, directory: Any) -> AsyncIterator[tuple[Store, StoreSettings]]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        if kind == "guarded":
            store, settings = await enter(_own(MemoryStore(timeout=PATIENCE)))
            yield Guarded(store, settings), settings
        elif kind == "memory":
            yield await enter(_own(MemoryStore()))
        elif kind == "sqlite":
            yield await enter(_own(SqliteStore(path=str(directory / "store.sqlite"), timeout=PATIENCE)))
        elif kind == "redis":
            server = stack.enter_context(redis_server())
            yield await enter(_own(RedisStore(url=server.url, timeout=PATIENCE)))
        elif kind == "dynamodb":
            settings = cloud.dynamodb_settings()
            yield await enter(cloud.dynamodb_store(table=settings.table)), settings
        else:
            settings = cloud.tables_settings()
            yield await enter(cloud.tables_store(table=settings.table)), settings


KINDS = ["memory", "guarded", "sqlite", "redis", "dynamodb", "tables"]
SHARED = KINDS[2:]


@pytest.fixture(scope="session", params=KINDS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A store of the kind that the parameter names."""
    kind = request.param
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:
        opened = stack.enter_async_context(_opened(kind, tmp_path_factory.mktemp(kind)))
        store, settings = runner.run(opened)
        yield Subject(kind, store, settings, runner.run, cloud.AWS if kind == "dynamodb" else {})
        runner.run(stack.aclose())
