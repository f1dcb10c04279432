"""The store in memory: its bounds, and what goes first."""

from __future__ import annotations

import asyncio

import pytest

from firsttoken.settings import MemoryStore as Settings
from firsttoken.stores import memory
from firsttoken.stores.memory import MemoryStore
from tests.virtual_time import run


def test_what_was_used_least_recently_goes() -> None:
    """There are never more entries than configured; reading one keeps it."""

    async def main() -> None:
        store = MemoryStore(Settings(entries=16))
        for number in range(16):
            await store.put(f"{number}", b"", 60)
        assert await store.get("0") == b""
        await store.put("new", b"", 60)
        assert await store.get("1") is None
        assert await store.get("0") == b""
        assert len(store._entries) == 16

    run(main())


def test_counters_and_leases_count_too() -> None:
    """Values, counters and leases share one bound."""

    async def main() -> None:
        store = MemoryStore(Settings(entries=16))
        for number in range(100):
            await store.put(f"{number}", b"", 60)
            await store.add(f"{number}", 1, 60)
            await store.lease(f"{number}", "me", 60)
        assert len(store._entries) == 16
        assert await store.get("99") == b""
        assert await store.add("99", 1, 60) == 2
        assert await store.lease("99", "you", 60) is None
        assert await store.lease("0", "you", 60) == 1

    run(main())


def test_all_values_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large values push out old ones; what is deleted, replaced or expired makes room."""
    monkeypatch.setattr(memory, "MAX_BYTES", 1000)

    async def main() -> None:
        store = MemoryStore(Settings())
        for _ in range(10):
            await store.put("a", bytes(400), 60)
        await store.put("b", bytes(400), 60)
        assert len(await store.get_many(["a", "b"])) == 2
        await store.put("c", bytes(400), 1)
        assert set(await store.get_many(["a", "b", "c"])) == {"b", "c"}
        await asyncio.sleep(2)
        assert await store.get("c") is None
        await store.put("d", bytes(600), 60)
        assert set(await store.get_many(["b", "d"])) == {"b", "d"}
        await store.delete("b")
        await store.delete("d")
        assert store._bytes == 0

    run(main())


def test_time_is_exact() -> None:
    """An entry is there up to its time, and no longer; a lease's epoch is remembered for an hour and more."""

    async def main() -> None:
        store = MemoryStore(Settings())
        await store.put("k", b"", 10)
        assert await store.add("k", 1, 10) == 1
        assert await store.lease("k", "me", 10) == 1
        await asyncio.sleep(9.9)
        assert await store.get("k") == b""
        assert await store.add("k", 1, 10) == 2
        assert await store.lease("k", "you", 10) is None
        await asyncio.sleep(0.2)
        assert await store.get("k") is None
        assert await store.add("k", 1, 10) == 1
        await asyncio.sleep(3600)
        assert await store.lease("k", "you", 10) == 2

    run(main())


def test_purging_lets_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Purging many entries is done in steps; what changes meanwhile does no harm."""
    monkeypatch.setattr(memory, "_STEP", 10)

    async def main() -> None:
        store = MemoryStore(Settings())
        for number in range(100):
            await store.put(f"{number}", b"", 1)
        await store.put("lives", b"", 60)
        await asyncio.sleep(2)
        purge = asyncio.create_task(store.purge())
        await asyncio.sleep(0)
        assert not purge.done()
        assert await store.get("99") is None
        assert await purge == 99
        assert list(store._entries) == [("value", "lives")]

    run(main())
