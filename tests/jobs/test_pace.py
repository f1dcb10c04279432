"""Permits for jobs: a share of the limits, over all workers."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from firsttoken.errors import StoreError
from firsttoken.jobs.pace import Pace
from firsttoken.settings import Jobs, MemoryStore
from firsttoken.stores.memory import MemoryStore as Memory


class Clock:
    """A clock that is set by hand."""

    now = 1_790_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def pace(clock: Clock, store: Memory, limit: float = 600, **settings: float) -> Pace:
    return Pace(store, Jobs(**settings), lambda _: limit, clock=clock, rng=Random(1))


async def drain(workers: list[Pace], clock: Clock, seconds: int) -> int:
    """Let workers take permits for so long, each coming back when it is told to; return how many they got."""
    due = [clock.now] * len(workers)
    end, taken = clock.now + seconds, 0
    while min(due) < end:
        number = due.index(min(due))
        clock.now = due[number]
        wait = await workers[number].wait_time("m")
        taken += not wait
        due[number] += wait
    return taken


@pytest.mark.parametrize("rpm", [30, 600, 1000, 6000])
def test_all_workers_together_keep_the_rate_and_use_it(rpm: int) -> None:
    """Four workers over two minutes: no more than allowed, and at least nine tenths of it."""
    clock, store = Clock(), Memory(MemoryStore())
    workers = [pace(clock, store, rpm=rpm) for _ in range(4)]
    taken = asyncio.run(drain(workers, clock, 120))
    assert 0.9 * 2 * rpm <= taken <= 2 * rpm + 1


def test_jobs_get_a_share_of_what_the_targets_allow() -> None:
    """Without a number of their own: half of the limit, or as the setting says."""
    clock, store = Clock(), Memory(MemoryStore())
    assert pace(clock, store, limit=600).rate("m") == 5
    assert pace(clock, store, limit=600, share=0.1).rate("m") == 1
    assert pace(clock, store, limit=600, rpm=60).rate("m") == 1


def test_where_no_limit_is_known_nothing_waits() -> None:
    """Then nothing is counted either."""
    clock, store = Clock(), Memory(MemoryStore())
    assert asyncio.run(drain([pace(clock, store, limit=0)], clock, 0)) == 0
    assert asyncio.run(pace(clock, store, limit=0).wait_time("m")) == 0


def test_models_do_not_share_a_pace() -> None:
    """Each has permits of its own."""

    async def scenario() -> None:
        clock, store = Clock(), Memory(MemoryStore())
        one = pace(clock, store, rpm=60)
        assert await one.wait_time("a") == 0
        assert await one.wait_time("a") > 0
        assert await one.wait_time("b") == 0

    asyncio.run(scenario())


def test_without_a_store_the_targets_limits_are_enough() -> None:
    """A permit that cannot be counted is given."""

    class Down(Memory):
        async def add(self, key: str, amount: int, ttl: float) -> int:  # noqa: ARG002 - a store
            raise StoreError("down")

    assert asyncio.run(pace(Clock(), Down(MemoryStore()), rpm=60).wait_time("m")) == 0
