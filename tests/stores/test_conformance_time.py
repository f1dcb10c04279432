"""What every store does alike: counters, leases, and how everything ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.stores.conftest import Subject

LONG = 600.0
SHORT = 0.1


async def soon(what: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so: nothing tells when a store's time is over."""
    async with asyncio.timeout(20):
        while not await what():
            await asyncio.sleep(0.02)


async def in_time(attempt: Callable[[float], Awaitable[bool]]) -> None:
    """Make an attempt that needs several operations within a time to live; a busy machine gets more of it."""
    for ttl in (0.2, 1.0, 8.0):
        if await attempt(ttl):
            return
    pytest.fail("the operations took too long, or the store is wrong")


def test_what_has_expired_is_never_seen_again(subject: Subject) -> None:
    """An expired value is absent for every operation, though nobody deleted it."""

    async def main() -> None:
        store = subject.store
        keys = [subject.key() for _ in range(4)]
        await asyncio.gather(*(store.put(key, b"old", SHORT) for key in keys))
        await soon(lambda: _absent(keys[0]))
        await asyncio.sleep(SHORT)
        assert await store.get_many(keys) == {}
        assert await store.delete(keys[1]) is False
        assert await store.delete(keys[1], b"old") is False
        assert await store.swap(keys[2], b"old", b"new", LONG) is False
        assert await store.swap(keys[3], None, b"new", LONG) is True
        assert await store.get_many(keys) == {keys[3]: b"new"}

    async def _absent(key: str) -> bool:
        return await subject.store.get(key) is None

    subject.run(main())


def test_time_counts_from_the_last_write(subject: Subject) -> None:
    """Writing a value again, or swapping it, gives it a new time to live: longer, or shorter."""

    async def main() -> None:
        store = subject.store
        put, swapped, cut = (subject.key() for _ in range(3))

        async def attempt(ttl: float) -> bool:
            await store.put(put, b"1", ttl)
            await store.put(put, b"2", LONG)
            await store.put(swapped, b"1", ttl)
            return await store.swap(swapped, b"1", b"2", LONG)

        await in_time(attempt)
        await store.put(cut, b"1", LONG)
        await store.put(cut, b"1", SHORT)
        await soon(lambda: _absent(cut))
        await asyncio.sleep(0.2)
        assert await store.get_many([put, swapped]) == {put: b"2", swapped: b"2"}

    async def _absent(key: str) -> bool:
        return await subject.store.get(key) is None

    subject.run(main())


def test_a_counter_adds(subject: Subject) -> None:
    """Counters begin at 0, go below it, and have 64 bits."""

    async def main() -> None:
        store, key, large = subject.store, subject.key(), subject.key()
        assert await store.add(key, 0, LONG) == 0
        assert await store.add(key, 5, LONG) == 5
        assert await store.add(key, -7, LONG) == -2
        assert await store.add(key, 0, LONG) == -2
        assert await store.add(large, 2**62 + 1, LONG) == 2**62 + 1
        assert await store.add(large, 2**62 - 2, LONG) == 2**63 - 1
        assert await store.add(large, -(2**63 - 1), LONG) == 0

    subject.run(main())


def test_a_counter_that_is_full_stays(subject: Subject) -> None:
    """A sum beyond 64 bits is a ValueError, and the counter stays what it was."""

    async def main() -> None:
        store = subject.store
        for full, one in ((2**63 - 1, 1), (-(2**63), -1)):
            key = subject.key()
            assert await store.add(key, full, LONG) == full
            with pytest.raises(ValueError, match="64 bits"):
                await store.add(key, one, LONG)
            assert await store.add(key, 0, LONG) == full

    subject.run(main())


def test_no_addition_is_lost(subject: Subject) -> None:
    """Each of many additions at once sees a sum of its own."""

    async def main() -> None:
        key = subject.key()
        sums = await asyncio.gather(*(subject.store.add(key, 1, LONG) for _ in range(50)))
        assert sorted(sums) == list(range(1, 51))

    subject.run(main())


def test_a_counter_lives_from_its_first_addition(subject: Subject) -> None:
    """Later additions don't prolong a counter; after its time it begins anew, with a time of its own."""

    async def main() -> None:
        store, keys = subject.store, [""]

        async def attempt(ttl: float) -> bool:
            keys.append(subject.key())
            return [await store.add(keys[-1], 1, ttl), await store.add(keys[-1], 1, LONG)] == [1, 2]

        async def anew() -> bool:
            return await store.add(keys[-1], 1, SHORT) == 1

        await in_time(attempt)
        await soon(anew)
        await soon(anew)

    subject.run(main())


def test_one_owner_holds_a_lease(subject: Subject) -> None:
    """Who holds a lease may renew it and give it back; nobody else may. Each holder has a new epoch."""

    async def main() -> None:
        store, key = subject.store, subject.key()
        epoch = await store.lease(key, "me", LONG)
        assert epoch is not None
        assert await store.lease(key, "me", LONG) == epoch
        assert await store.lease(key, "you", LONG) is None
        assert await store.release(key, "you") is False
        assert await store.lease(key, "me", LONG) == epoch
        assert await store.release(key, "me") is True
        assert await store.release(key, "me") is False
        assert await store.lease(key, "you", LONG) == epoch + 1
        assert await store.release(key, "me") is False
        assert await store.lease(key, "me", LONG) is None
        assert await store.release(key, "you") is True
        assert await store.lease(key, "you", LONG) == epoch + 2

    subject.run(main())


def test_one_of_many_gets_the_lease(subject: Subject) -> None:
    """Of many that ask at once, one gets the lease."""

    async def main() -> None:
        key = subject.key()
        epochs = await asyncio.gather(*(subject.store.lease(key, f"{n}", LONG) for n in range(20)))
        assert sum(epoch is not None for epoch in epochs) == 1

    subject.run(main())


def test_an_expired_lease_is_free(subject: Subject) -> None:
    """Another owner takes over after the time is over, with the next epoch; the old one cannot release it."""

    async def main() -> None:
        store, key = subject.store, subject.key()
        first = await store.lease(key, "me", SHORT)
        epochs: list[int | None] = []

        async def taken() -> bool:
            epochs.append(await store.lease(key, "you", LONG))
            return epochs[-1] is not None

        await soon(taken)
        assert epochs[-1] == first + 1
        assert await store.release(key, "me") is False
        assert await store.lease(key, "me", LONG) is None

    subject.run(main())


def test_a_lease_that_was_lost_is_taken_anew(subject: Subject) -> None:
    """Who comes back after the time was over has a new epoch: somebody may have held it in between."""

    async def main() -> None:
        store, key = subject.store, subject.key()
        first = await store.lease(key, "me", SHORT)
        await asyncio.sleep(SHORT * 2)
        assert await store.release(key, "me") is False
        assert await store.lease(key, "me", LONG) == first + 1

    subject.run(main())


def test_renewing_keeps_a_lease(subject: Subject) -> None:
    """A renewed lease counts from its renewal; its epoch stays."""

    async def main() -> None:
        store = subject.store
        key = subject.key()

        async def attempt(ttl: float) -> bool:
            epoch = await store.lease(key, "me", ttl)
            return await store.lease(key, "me", LONG) == epoch

        await in_time(attempt)
        await asyncio.sleep(0.25)
        assert await store.lease(key, "you", LONG) is None

    subject.run(main())


def test_purging_leaves_what_lives(subject: Subject) -> None:
    """Purging deletes only what has expired, and says how many there were."""

    async def main() -> None:
        store, living = subject.store, subject.key()
        await store.put(living, b"lives", LONG)
        await store.add(living, 3, LONG)
        epoch = await store.lease(living, "me", LONG)
        for _ in range(3):
            await store.put(subject.key(), b"dies", 0.01)
        await asyncio.sleep(0.1)
        count = await store.purge()
        assert count >= 3 if subject.kind in ("memory", "guarded", "sqlite") else count >= 0
        assert await store.get(living) == b"lives"
        assert await store.add(living, 0, LONG) == 3
        assert await store.lease(living, "me", LONG) == epoch

    subject.run(main())
