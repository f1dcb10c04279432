"""The index that is remembered in the store: instances that come later find what others were asked."""

from __future__ import annotations

import asyncio

import pytest
from policies.fleet import FakeStore
from virtual_time import run, wall

from firsttoken.cache.crypto import Aes256Gcm, Checksum, Seal
from firsttoken.cache.index import MemoryIndex, Question
from firsttoken.cache.index_store import (
    EMPTY_SECONDS,
    MAX_REMEMBERED,
    READ_SECONDS,
    WRITE_SECONDS,
    StoredIndex,
)
from firsttoken.embedding import pack
from firsttoken.errors import StoreError
from firsttoken.policies.shadow import Shadow

TTL = 3600.0
SEAL = Checksum()


def instance(store: FakeStore, seal: Seal = SEAL) -> StoredIndex:
    return StoredIndex(MemoryIndex(1000), store, Shadow(), ttl=TTL, now=wall, seal=seal)


def question(number: int, *, size: int = 2) -> Question:
    return Question(
        f"k{number}", f"question {number}", f"q{number}", pack([1.0, *[float(number)] * (size - 1)]), wall()
    )


async def keys(index: StoredIndex, scope: str = "s") -> set[str]:
    return {one.key for one in await index.nearest(scope, pack([1.0, 1.0]), 500)}


def test_a_cold_instance_finds_what_another_was_asked():
    """The first look-up of a process reads the scope: by its words and by its vector a question is there."""

    async def work():
        store = FakeStore()
        await instance(store).add("s", question(1))
        cold = instance(store)
        found = await cold.equal("s", "q1")
        assert (found.key, found.text, found.asked) == ("k1", "question 1", wall())
        assert (await instance(store).nearest("s", pack([1.0, 1.0]), 1))[0].score == pytest.approx(
            1.0, abs=1e-3
        )
        assert await keys(instance(store), "other") == set()

    run(work())


def test_only_a_call_of_an_empty_scope_waits_for_the_store():
    """What is here is read again beside the calls, once in a while; an empty scope once a second."""

    async def work():
        store = FakeStore()
        index = instance(store)
        for _ in range(5):
            await index.equal("s", "q1")
        assert store.asked["get"] == 1
        await asyncio.sleep(EMPTY_SECONDS * 1.1)
        await index.equal("s", "q1")
        assert store.asked["get"] == 2
        await index.add("s", question(1))
        await asyncio.sleep(READ_SECONDS * 1.1)
        other = instance(store)
        await other.add("s", question(2))
        store.delay = 5.0
        before = asyncio.get_running_loop().time()
        assert await index.equal("s", "q2") is None
        assert asyncio.get_running_loop().time() == before
        await index._shadow.settle(60)
        assert (await index.equal("s", "q2")).key == "k2"

    run(work())


def test_writes_are_few_and_keep_what_others_wrote():
    """One write in `WRITE_SECONDS` holds everything that came in between, and what others wrote."""

    async def work():
        store = FakeStore()
        one, two = instance(store), instance(store)
        for number in range(10):
            await one.add("s", question(number))
        assert store.asked["get"] == 1  # a write begins with a read
        await two.add("s", question(100))
        await asyncio.sleep(WRITE_SECONDS)
        await one.add("s", question(10))
        assert await keys(instance(store)) == {f"k{number}" for number in [*range(11), 100]}
        assert "k100" in await keys(one)

    run(work())


def test_the_store_holds_the_newest_only():
    """Its value is bounded; what was asked last stays."""

    async def work():
        store = FakeStore()
        for begin in (0, 1):
            index = instance(store)
            for number in range(begin, 300, 2):
                await asyncio.sleep(WRITE_SECONDS)
                await index.add("s", question(number))
        found = await keys(instance(store))
        assert len(found) == MAX_REMEMBERED
        assert {f"k{number}" for number in range(1, 300, 2)} <= found

    run(work())


def test_what_was_removed_does_not_come_back():
    """A question taken out goes from the store, too, even where another instance still has it."""

    async def work():
        store = FakeStore()
        one, two = instance(store), instance(store)
        await one.add("s", question(1))
        await one.add("s", question(2))
        assert await keys(two) == {"k1"}
        await one.remove("s", "k1")
        assert await keys(instance(store)) == {"k2"}
        await asyncio.sleep(READ_SECONDS)
        await two.add("s", question(3))
        await asyncio.sleep(READ_SECONDS)
        assert "k1" not in await keys(one)
        await one._shadow.settle(1)
        assert "k1" not in await keys(one)
        await one.drop("s")
        assert await keys(instance(store)) == set()

    run(work())


def test_what_is_older_than_answers_live_is_not_taken():
    """A question whose answer must be gone by now is not added."""

    async def work():
        store = FakeStore()
        index = instance(store)
        await index.add("s", question(1))
        await asyncio.sleep(TTL / 2)
        await index.add("s", question(2))
        await asyncio.sleep(TTL * 0.6)
        assert await keys(instance(store)) == {"k2"}

    run(work())


def test_questions_of_another_embedder_drive_nothing_out():
    """Vectors of another length in the store are left alone."""

    async def work():
        store = FakeStore()
        await instance(store).add("s", question(1, size=3))
        index = instance(store)
        index._memory.put("s", question(2))
        await index.add("s", question(3))
        assert await keys(index) == {"k2", "k3"}

    run(work())


def written(body: bytes) -> bytes:
    return b"vc" + SEAL.close("similar:s", body)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"v",
        b"vgarbage",
        b"zgarbage",
        b"vc",
        b"vc" + bytes(40),
        written(b"\x92\x01\x91\x91\xa1k"),
        written(b"\x92\x63\x90"),
    ],
)
def test_a_damaged_value_is_no_value(value):
    """Whatever stands in the store, a look-up finds nothing in it and the next write replaces it."""

    async def work():
        store = FakeStore()
        await store.put("similar:s", value, TTL)
        index = instance(store)
        assert await keys(index) == set()
        await index.add("s", question(1))
        assert await keys(instance(store)) == {"k1"}

    run(work())


def test_what_is_written_is_sealed():
    """With a key the store holds no words; with another key, or in another scope, nothing is found."""

    async def work():
        store = FakeStore()
        seal = Aes256Gcm(bytes(32))
        await instance(store, seal).add("s", question(1))
        value = await store.get("similar:s")
        assert b"question" not in value
        assert await keys(instance(store, Aes256Gcm(bytes(32)))) == {"k1"}
        assert await keys(instance(store, Aes256Gcm(bytes(31) + b"1"))) == set()
        assert await keys(instance(store)) == set()
        await store.put("similar:t", value, TTL)
        assert await keys(instance(store, seal), "t") == set()

    run(work())


def test_without_the_store_the_memory_is_enough():
    """A store that is down costs other instances their hits, and this one nothing."""

    async def work():
        store = FakeStore()
        store.down = True
        index = instance(store)
        assert await keys(index) == set()
        with pytest.raises(StoreError):
            await index.add("s", question(1))
        assert await keys(index) == {"k1"}

    run(work())
