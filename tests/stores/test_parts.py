"""Values that are larger than a store takes."""

from __future__ import annotations

import asyncio
import random
import zlib

import pytest

from firsttoken.settings import MemoryStore as Settings
from firsttoken.stores.guarded import Guarded
from firsttoken.stores.keys import fit_key
from firsttoken.stores.memory import MemoryStore
from firsttoken.stores.parts import MAX_LARGE_BYTES, get_large, put_large
from tests.stores.conftest import Subject
from tests.virtual_time import run

RANDOM = random.Random(7).randbytes(300_000)
LIMIT = 4096


class Small(MemoryStore):
    """A store whose values are small, and that notes the keys of its writes."""

    max_value_bytes = LIMIT

    def __init__(self) -> None:
        super().__init__(Settings())
        self.written: list[str] = []

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        self.written.append(key)
        await super().put(key, value, ttl)


@pytest.mark.parametrize(
    ("value", "writes"),
    [
        (b"", 1),
        (b"short", 1),
        (RANDOM[: LIMIT - 1], 1),
        (RANDOM[:LIMIT], 3),
        (RANDOM[: LIMIT + 1], 3),
        (b"a" * 500_000, 1),
        (RANDOM, 75),
    ],
    ids=lambda item: str(len(item)) if isinstance(item, bytes) else str(item),
)
def test_large_values_come_back(value: bytes, writes: int) -> None:
    """A value of any size up to the limit comes back; it is split only where compressing is not enough."""

    async def main() -> None:
        store = Small()
        await put_large(store, "k", value, 60)
        assert await get_large(store, "k") == value
        assert len(store.written) == writes
        assert store.written[-1] == "k"
        assert await get_large(store, "other") is None

    asyncio.run(main())


def test_every_store_takes_large_values(subject: Subject) -> None:
    """What compresses badly and is larger than one value of the store is kept in parts."""

    async def main() -> None:
        key = subject.key("x" * 500)
        value = random.Random(1).randbytes(min(subject.store.max_value_bytes * 2 + 1, MAX_LARGE_BYTES))
        await put_large(subject.store, fit_key(key), value, 600)
        assert await get_large(subject.store, fit_key(key)) == value

    subject.run(main())


def test_a_value_has_a_largest_size() -> None:
    """What is too large, or would need too many parts, is a ValueError, and nothing is written."""

    class Tiny(Small):
        max_value_bytes = 16

    async def main() -> None:
        store = Tiny()
        for value in (bytes(MAX_LARGE_BYTES + 1), RANDOM):
            with pytest.raises(ValueError, match="expected at most"):
                await put_large(store, "k", value, 60)
        assert store.written == []

    asyncio.run(main())


def test_parts_that_are_missing_or_wrong_are_no_value() -> None:
    """Without any one of its parts, or with a changed one, there is no value."""

    async def main() -> None:
        for number in range(75):
            store = Small()
            await put_large(store, "k", RANDOM, 60)
            name = store.written[number]
            part = await store.get(name)
            await store.put(name, part[:-1] + bytes([part[-1] ^ 1]), 60)
            assert await get_large(store, "k") is None
            await store.put(name, part, 60)
            assert (await get_large(store, "k")) == RANDOM
            await store.delete(name)
            assert await get_large(store, "k") is None

    asyncio.run(main())


BOMB = zlib.compress(bytes(MAX_LARGE_BYTES + 1))


@pytest.mark.parametrize(
    "stored", [b"", b"?", b"p", b"p\xff\xff", b"p\x93\x00\x00\xc4\x00", b"z", b"z123", b"z" + BOMB[:-9]]
)
def test_what_is_not_ours_is_no_value(stored: bytes) -> None:
    """Bytes that `put_large` did not write are no value, and not an error."""

    async def main() -> None:
        store = MemoryStore(Settings())
        await store.put("k", stored, 60)
        assert await get_large(store, "k") is None

    asyncio.run(main())


def test_a_value_never_unfolds_beyond_the_limit() -> None:
    """Few bytes that decompress to more than the limit are no value."""

    async def main() -> None:
        store = MemoryStore(Settings())
        await store.put("k", b"z" + BOMB, 60)
        assert await get_large(store, "k") is None
        await put_large(store, "k", bytes(MAX_LARGE_BYTES), 60)
        assert await get_large(store, "k") == bytes(MAX_LARGE_BYTES)

    asyncio.run(main())


def test_writers_of_one_key_do_not_mix() -> None:
    """Two values written at once to one key: afterwards one of them is there, whole."""

    class Yielding(Small):
        async def put(self, key: str, value: bytes, ttl: float) -> None:
            await asyncio.sleep(0)
            await super().put(key, value, ttl)

    async def main() -> None:
        store = Guarded(Yielding(), Settings())
        values = [RANDOM[:20_000], RANDOM[20_000:50_000]]
        await asyncio.gather(*(put_large(store, "k", value, 60) for value in values))
        assert await get_large(store, "k") in values

    run(main())
