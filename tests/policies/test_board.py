"""What the circuits of several instances tell each other, and what happens when they cannot."""

from __future__ import annotations

import asyncio
from random import Random

import msgspec
import pytest
from policies.fleet import NAME, FakeStore, Instance, Upstream, broken, limited, make_fleet, quiet, traffic
from policies.models import Scripted
from virtual_time import run

from firsttoken.errors import StoreError
from firsttoken.policies.board import Shared

KEY = f"firsttoken:circuit:{NAME}"


async def read_all(fleet):
    for instance in fleet:
        instance.board.refresh()
    await quiet()


def states(fleet):
    return {instance.state for instance in fleet}


def test_failures_of_a_fleet_open_it_for_all():
    """Ten failures over twenty instances open it on all of them within the age of a copy."""

    async def main():
        store = FakeStore()
        fleet = make_fleet(20, Upstream(), store, ratio=0.0)
        await read_all(fleet)
        for instance in fleet[:10]:
            assert states(fleet) == {"closed"}
            instance.circuit.failed(broken(), instance.circuit.term)
            await quiet()
        assert fleet[9].state == "open", "the one that counts the tenth opens at once"
        assert store.asked["add"] == 10
        opened = asyncio.get_running_loop().time()
        while "closed" in states(fleet):
            await asyncio.sleep(0.1)
            await read_all(fleet)
        assert asyncio.get_running_loop().time() - opened <= 5.0 * 1.2 + 0.2

    run(main())


async def opened(size=2, **more):
    """A fleet in which the first instance opened it for all."""
    store = FakeStore()
    fleet = make_fleet(size, Upstream(), store, failures=2, ratio=0.0, **{"open": 10.0, **more})
    for _ in range(2):
        fleet[0].circuit.failed(broken("overloaded"), fleet[0].circuit.term)
        await quiet()
    assert fleet[0].state == "open"
    return store, fleet


def test_others_learn_all_of_it():
    """Another instance knows until when it is open, which error it was, and counts on from there."""

    async def main():
        _, (first, second) = await opened()
        await read_all([second])
        view = second.circuit.view()
        assert view.state == "open"
        assert view.seconds_left == first.circuit.view().seconds_left
        assert view.error == "overloaded"
        assert view.since == first.circuit.view().since

    run(main())


def test_late_failures_change_nothing():
    """Failures that are counted after it opened neither prolong it nor open it again."""

    async def main():
        _, (first, second) = await opened()
        term = second.circuit.term
        for _ in range(2):
            second.circuit.failed(broken(), term)
        await quiet()
        assert second.circuit.view().seconds_left == first.circuit.view().seconds_left
        await asyncio.sleep(10)
        await first.circuit.probed(None, first.circuit.term)
        second.circuit.failed(broken(), term)
        await quiet()
        assert first.state == "closed"

    run(main())


def test_counters_do_not_outlive_a_recovery():
    """Failures from before a recovery do not open it again, though the same window goes on."""

    async def main():
        _, (first, second) = await opened(open=1.0, window=60.0)
        await asyncio.sleep(1)
        await first.circuit.probed(None, first.circuit.term)
        await asyncio.sleep(6)
        await read_all([first, second])
        first.circuit.failed(broken(), first.circuit.term)
        await quiet()
        assert states([first, second]) == {"closed"}
        second.circuit.failed(broken(), second.circuit.term)
        await quiet()
        assert second.state == "open"
        assert second.circuit.view().n == 1

    run(main())


def test_failing_fleet_opens():
    """The same fleet opens when most of its calls fail, although no instance sees a row of failures."""
    rng = Random(7)
    upstream = Scripted(lambda _: (broken(),) if rng.random() < 0.7 else Upstream().script())

    async def main():
        fleet = make_fleet(50, upstream, FakeStore(), consecutive=100)
        ends = await traffic(fleet, 10, 100, Random(3))
        assert ends["refused"] > 0

    run(main())


def test_cool_down_is_shared():
    """One instance is told to wait: none of the others calls before the time."""

    async def main():
        store = FakeStore()
        upstream = Upstream(limited(20.0))
        fleet = make_fleet(10, upstream, store)
        await read_all(fleet)
        await fleet[0].call()
        await asyncio.sleep(6.1)  # the age of a copy
        await read_all(fleet)
        assert states(fleet) == {"cooling"}
        ends = await traffic(fleet, 13.5, 20, Random(1))
        assert len(upstream.calls) == 1
        assert set(ends) == {"refused"}
        upstream.fault = None
        await asyncio.sleep(1)
        assert await fleet[5].call() is None

    run(main())


def test_cool_down_is_written_once():
    """Calls that are refused together write their common wish once."""

    async def main():
        store = FakeStore()
        one = Instance(Upstream(limited(20.0), takes=1.0), store)
        await asyncio.gather(*[one.call() for _ in range(200)])
        await quiet()
        assert store.asked["swap"] == 1

    run(main())


def test_one_read_for_all_targets():
    """Whatever many calls and targets there are, one read in flight and one per age of a copy."""

    async def main():
        store = FakeStore()
        store.delay = 0.1
        one = Instance(Upstream(), store)
        for index in range(20):
            one.board.watch(f"p/{index}", lambda _: None)
        for _ in range(600):
            one.board.refresh()
            await asyncio.sleep(0.1)
        assert 10 <= store.asked["get_many"] <= 15
        assert sum(store.asked.values()) == store.asked["get_many"]

    run(main())


def test_slow_read_brings_back_nothing_old():
    """A read that was under way while this instance wrote does not undo what it wrote."""

    async def main():
        store, (first, second) = await opened(open=1.0)
        await read_all([second])
        await asyncio.sleep(1)
        old = await store.get(KEY)
        await second.circuit.probed(None, second.circuit.term)
        second.circuit.apply(msgspec.json.decode(old, type=Shared))
        assert second.state == "closed"
        await asyncio.sleep(7)
        await read_all([first])
        assert first.state == "closed"

    run(main())


@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"[]", b'{"until":"x"}', b'{"n":null}'])
def test_foreign_state_is_no_state(value):
    """What another version wrote is ignored, and replaced when there is something to say."""

    async def main():
        store = FakeStore()
        await store.put(KEY, value, 1000)
        one = Instance(Upstream(), store, failures=1, ratio=0.0)
        await read_all([one])
        assert one.state == "closed"
        one.circuit.failed(broken(), one.circuit.term)
        await quiet()
        assert one.state == "open"
        assert msgspec.json.decode(await store.get(KEY), type=Shared).until

    run(main())


def test_absurd_state_is_clamped():
    """A clock that is far ahead opens it, and lets it cool down, no longer than the settings allow."""

    async def main():
        store = FakeStore()
        far = Shared(epoch=10**15, n=10**9, opened=9e9, until=9e9, cool=9e9)
        await store.put(KEY, msgspec.json.encode(far), 1000)
        one = Instance(Upstream(), store)
        await read_all([one])
        assert one.state == "open"
        assert one.circuit.view().seconds_left <= 300
        await asyncio.sleep(300)
        assert one.state == "half_open"
        one.circuit._open_here()
        assert one.circuit.view().seconds_left <= 20

    run(main())


@pytest.mark.parametrize("how", ["none", "down", "hangs"])
def test_without_a_store(how):
    """With no store, or one that is down or hangs, each instance goes by itself and no call waits."""

    async def main():
        store = None if how == "none" else FakeStore()
        if store:
            setattr(store, how, True)
        upstream = Upstream(broken())
        one, other = make_fleet(2, upstream, store)
        loop = asyncio.get_running_loop()
        await one.calls(5)
        assert loop.time() == 0
        assert len(upstream.calls) == 3
        assert states([one]) == {"open"}
        assert other.state == "closed"
        upstream.fault = None
        await asyncio.sleep(5)
        assert (await one.call()).code == "target_unavailable"
        await asyncio.sleep(2)
        assert one.state == "closed"
        assert await one.call() is None
        await asyncio.sleep(1)
        assert not one.shadow._tasks

    run(main())


def test_store_that_fails_in_between():
    """Where the count is known but cannot be told, this instance opens alone."""

    async def main():
        store = FakeStore()
        one = Instance(Upstream(), store, failures=1, ratio=0.0)

        async def get(_key):
            raise StoreError("down")

        store.get = get
        one.circuit.failed(broken(), one.circuit.term)
        await quiet()
        assert one.state == "open"

    run(main())


def test_crowd_of_writers():
    """However many open it at the same time, one opening comes of it, known to all who wrote."""

    async def main():
        store = FakeStore()
        fleet = make_fleet(30, Upstream(), store, ratio=0.0)
        for instance in fleet:
            instance.circuit.failed(broken(), instance.circuit.term)
        await quiet()
        writers = [instance for instance in fleet if instance.state == "open"]
        assert len(writers) == 21
        assert len({instance.circuit.view().seconds_left for instance in writers}) == 1
        assert {instance.circuit.view().n for instance in writers} == {0}

    run(main())
