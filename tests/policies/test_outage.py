"""What a fleet counts: an outage opens every breaker soon, and errors that are usual open none."""

from __future__ import annotations

import asyncio
from random import Random

import msgspec
import pytest
from policies.fleet import NAME, FakeStore, Instance, Upstream, broken, make_fleet, quiet, traffic
from policies.models import Scripted
from virtual_time import run

from firsttoken.errors import UpstreamClosedError
from firsttoken.policies.board import MEMORY, Shared
from firsttoken.policies.counted import FULL, Counted, unpack
from firsttoken.settings import Breaker as Settings


class Watched(FakeStore):
    """Counts how often a circuit was opened for all."""

    openings = 0

    async def swap(self, key, old, new, ttl):
        swapped = await super().swap(key, old, new, ttl)
        self.openings += swapped and msgspec.json.decode(new, type=Shared).until > 0
        return swapped


@pytest.mark.parametrize("warm", [0, 20], ids=["cold", "warm"])
@pytest.mark.parametrize(("takes", "seconds"), [(0.3, 60), (3.0, 60), (0.3, 180), (3.0, 180)])
def test_outage_costs_a_fleet_a_third(warm, takes, seconds):
    """In a total outage a fleet that shares what it knows sends at most a third of what others send."""

    def outage(store) -> int:
        async def main():
            upstream = Upstream(takes=0.5)
            fleet = make_fleet(100, upstream, store, jitter=0.2)
            await traffic(fleet, warm, 50, Random(5))
            upstream.fault, upstream.takes = broken(), takes
            before = len(upstream.calls)
            await traffic(fleet, seconds, 50, Random(6))
            return len(upstream.calls) - before

        return run(main())

    shared, apart = outage(FakeStore()), outage(None)
    assert 0 < shared <= apart / 3


@pytest.mark.parametrize("size", [50])
@pytest.mark.parametrize(("share", "seed"), [(0.02, 1), (0.1, 2), (0.2, 3)])
@pytest.mark.parametrize(("answers", "fails"), [(0.5, 0.05), (2.0, 0.01)], ids=["even", "fast failures"])
def test_usual_errors_open_nothing(size, share, seed, answers, fails):
    """A fleet of which some calls always fail stays closed, from a cold start on and for ten minutes."""
    rng = Random(seed)
    upstream = Scripted(
        lambda _: (fails, broken()) if rng.random() < share else (answers, *Upstream().script())
    )

    async def main():
        store = Watched()
        ends = await traffic(make_fleet(size, upstream, store), 600, 50, Random(seed + 10))
        assert ends["failed"] > 0.8 * share * 600 * 50
        assert not store.openings

    run(main(), 1000)


def test_instances_that_start_into_a_known_outage():
    """An instance that starts while it is open sends nothing."""

    async def main():
        store = FakeStore()
        upstream = Upstream(broken())
        await traffic(make_fleet(100, upstream, store), 10, 50, Random(1))
        known = len(upstream.lives)
        fresh = make_fleet(100, upstream, store)
        await traffic(fresh, 30, 50, Random(6))
        assert len(upstream.lives) == known
        assert len(upstream.probes) <= 6

    run(main())


async def counted(store) -> Counted:
    """What the first window of the first epoch has."""
    bucket = int(Instance(Upstream()).board.wall() / 10)
    return unpack(await store.add(f"firsttoken:outcomes:{NAME}:0:{bucket}", 0, 1))


async def asked(store, **settings):
    """An instance that has failed once, and is asked what follows."""
    one = Instance(Upstream(), store, **{"failures": 2, "consecutive": 100, **settings})
    one.circuit.failed(broken(), one.circuit.term)
    await quiet()
    return one


def test_what_follows_is_counted_once():
    """A success after a failure is counted, those after it are not, and a failure after a failure is bad."""

    async def main():
        store = FakeStore()
        one = await asked(store)
        for _ in range(100):
            one.circuit.succeeded(one.circuit.term)
        await quiet()
        assert await counted(store) == Counted(1, 1, 0)
        for _ in range(2):
            one.circuit.failed(broken(), one.circuit.term)
            await quiet()
        assert await counted(store) == Counted(3, 2, 1)

    run(main())


def test_well_fleet_writes_nothing():
    """Neither successes nor what follows the few failures of a fleet that is well are written."""

    async def main():
        store = FakeStore()
        one = await asked(store, failures=10)
        for _ in range(100):
            one.circuit.succeeded(one.circuit.term)
        await quiet()
        assert store.asked["add"] == 1

    run(main())


def test_what_follows_much_later_is_not_counted():
    """What ends more than a minute after a failure says nothing of that."""

    async def main():
        store = FakeStore()
        one = await asked(store)
        await asyncio.sleep(MEMORY + 1)
        one.circuit.succeeded(one.circuit.term)
        await quiet()
        assert store.asked["add"] == 1

    run(main())


def test_calls_that_fail_together_do_not_follow_each_other():
    """Failures at the same moment are one event: each counts as a failure, none as what follows one."""

    async def main():
        store = FakeStore()
        one = Instance(Upstream(), store, failures=2, consecutive=100)
        for _ in range(20):
            one.circuit.failed(broken(), one.circuit.term)
        await quiet()
        assert await counted(store) == Counted(20)
        assert one.state == "closed"

    run(main())


def test_answer_that_began_and_broke_off_is_bad():
    """A success that was counted and breaks off later makes the same follow-up bad."""

    async def main():
        store = FakeStore()
        one = await asked(store)
        began = one.circuit.succeeded(one.circuit.term)
        await quiet()
        one.circuit.failed(UpstreamClosedError("cut"), one.circuit.term, began)
        await quiet()
        assert await counted(store) == Counted(2, 1, 1)

    run(main())


def test_nothing_is_asked_after_a_start():
    """While all calls are young failures count as such only: what succeeds needs longer."""

    async def main():
        store = FakeStore()
        one = Instance(Upstream(broken()), store, failures=2, consecutive=100)
        for _ in range(10):
            await one.call()
            await quiet()
        assert await counted(store) == Counted(10)
        await asyncio.sleep(2)
        for _ in range(5):
            await one.call()
            await quiet()
        assert one.state == "open"

    run(main())


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (Counted(10), False),
        (Counted(9, 9, 9), False),
        (Counted(10, 3, 3), False),
        (Counted(10, 4, 4), True),
        (Counted(10, 10, 8), False),
        (Counted(10, 10, 9), True),
        (Counted(500, 400, 210), False),
        (Counted(500, 400, 221), True),
        (Counted(10, 0, 4), True),
    ],
)
def test_when_it_is_an_outage(known, expected):
    """Enough failures, enough of them followed, and more than half of those badly, not by chance."""
    assert known.outage(Settings()) is expected


def test_ratio_of_zero():
    """With a ratio of 0 the number of failures alone decides."""
    assert Counted(10).outage(Settings(ratio=0.0))


def test_counters_do_not_run_over():
    """A full window still fits into a signed 64-bit counter, each number in its place."""
    most = Counted(2 * FULL - 1, 2 * FULL - 1, 2 * FULL - 1)
    assert unpack(most.pack()) == most
    assert most.pack() < 2**63

    async def main():
        store = FakeStore()
        one = await asked(store)
        await store.add(f"firsttoken:outcomes:{NAME}:0:{int(one.board.wall() / 10)}", Counted(FULL).pack(), 9)
        for _ in range(3):
            one.circuit.failed(broken(), one.circuit.term)
            await quiet()
        assert (await counted(store)).failures == FULL + 2
        await asyncio.sleep(10)
        one.circuit.failed(broken(), one.circuit.term)
        await quiet()
        assert store.asked["add"] == 5

    run(main())


def test_copy_is_stale_soon_where_there_are_failures():
    """An instance whose failure is one of many asks for news with its next call, not seconds later."""

    async def main():
        store = FakeStore()
        one = Instance(Upstream(broken()), store, failures=2, consecutive=100)
        await one.call()
        await quiet()
        await asyncio.sleep(1.1)
        await one.call()
        await quiet()
        assert store.asked["get_many"] == 2

    run(main())
