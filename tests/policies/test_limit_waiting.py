"""Waiting for quota: order, fairness, bounds, and what happens to those who cannot be served."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firsttoken.errors import UnavailableError
from firsttoken.model import Call
from firsttoken.policies.limit import Limited, Limiter
from firsttoken.policies.stats import Stats
from tests.policies.limits import answer, ask, crowd, left, limited, make_limiter
from tests.policies.models import Scripted, make_call, say
from tests.virtual_time import run

PRIORITIES = {"gold": "high", "batch": "low"}


async def used_up(rpm: int = 60, **settings: Any) -> tuple[Limiter, Limited, Scripted]:
    """A limiter of which nothing is left, one call a second from now on, and its model."""
    limiter = make_limiter(rpm=rpm, **{"max_wait": 30.0, "priorities": PRIORITIES, **settings})
    model = Scripted(answer())
    outer = Limited(model, limiter)
    await crowd(outer, rpm)
    model.calls.clear()
    model.times.clear()
    return limiter, outer, model


def waiting(model: Any, *tenants: str, **fields: Any) -> list[asyncio.Task[str]]:
    """Start calls, one after the other."""
    return [asyncio.create_task(ask(model, tenant=tenant, **fields)) for tenant in tenants]


async def order(model: Scripted, tasks: list[asyncio.Task[str]]) -> str:
    """Wait for all and tell whose calls were sent, by initials."""
    await asyncio.gather(*tasks)
    return "".join([call.tenant[0] for call in model.calls])


def test_calls_wait_for_their_turn() -> None:
    """Each call is sent the moment it fits, the oldest first; none is woken in vain."""

    async def work() -> None:
        limiter, outer, model = await used_up()
        tasks = waiting(outer, "a", "a", "a")
        await asyncio.sleep(0)
        assert limiter.view().waiting == 3
        assert await order(model, tasks) == "aaa"
        assert model.times == [pytest.approx(second, abs=0.01) for second in (1, 2, 3)]
        assert limiter.view().waiting == 0

    run(work())


def test_priorities_come_first() -> None:
    """A tenant's higher priority is served before a lower one, whoever came first."""

    async def work() -> None:
        _, outer, model = await used_up()
        tasks = waiting(outer, "batch", "normal", "gold", "normal", "gold")
        assert await order(model, tasks) == "ggnnb"

    run(work())


@pytest.mark.parametrize(
    ("tenant", "header", "rank"),
    [
        ("gold", "low", 2),
        ("gold", "normal", 1),
        ("gold", "high", 0),
        ("normal", "high", 1),
        ("batch", "high", 2),
        ("gold", "urgent", 0),
        ("batch", "", 2),
    ],
)
def test_a_client_may_only_lower_its_priority(tenant: str, header: str, rank: int) -> None:
    """The header never raises what the configuration gave; nonsense is ignored."""

    async def work() -> None:
        _, outer, model = await used_up()
        tasks = [
            asyncio.create_task(prioritised(outer, tenant, header)),
            *waiting(outer, "first", "second", "batch", "gold"),
        ]
        await asyncio.gather(*tasks)
        sent = [(call.tenant, call.headers.get("x-firsttoken-priority")) for call in model.calls]
        # It came first, so it stands first among its equals.
        assert sent.index((tenant, header)) == {0: 0, 1: 1, 2: 3}[rank]

    run(work())


async def prioritised(model: Any, tenant: str, header: str) -> None:
    call = make_call(tenant=tenant)
    call.headers = {"x-firsttoken-priority": header}
    assert [chunk async for chunk in model.stream(call)]


def test_one_tenant_s_burst_does_not_starve_others() -> None:
    """Within a priority tenants take turns."""

    async def work() -> None:
        _, outer, model = await used_up()
        tasks = waiting(outer, *"aaaaaaaa", "b", "b", "c")
        assert await order(model, tasks) == "abcabaaaaaa"

    run(work())


def test_a_newcomer_does_not_overtake() -> None:
    """What fits at once still waits behind those who came first, unless it comes first by priority."""

    async def work() -> None:
        limiter, model = make_limiter(tpm=600, max_wait=60.0, priorities=PRIORITIES), Scripted(answer())
        outer = Limited(model, limiter)
        opened = await outer.open(make_call(max_tokens=590))
        tasks = waiting(outer, "large", max_tokens=300)
        await asyncio.sleep(10)
        assert left(limiter)[1] == 105
        tasks += waiting(outer, "small", "gold", max_tokens=20)
        await asyncio.sleep(0)
        assert [call.tenant for call in model.calls] == ["local", "gold"]
        assert (await order(model, tasks))[1:] == "gls"
        await opened.aclose()

    run(work())


def test_a_long_wait_is_refused_at_once() -> None:
    """Who would wait longer than allowed is told at once how long that would be."""

    async def work() -> None:
        limiter, outer, _ = await used_up(max_wait=2.5)
        tasks = waiting(outer, "a", "a", "a")
        await asyncio.sleep(0)
        assert tasks[2].done() or await asyncio.wait_for(tasks[2], 0.001)
        assert tasks[2].result() == "The target's rate limit is used up for 3.0 s. [3.0]"
        assert limiter.view().waiting == 2
        assert [await task for task in tasks[:2]] == ["Hi", "Hi"]

    run(work())


@pytest.mark.parametrize(("deadline", "fits"), [(0.9, False), (1.1, True)])
def test_nobody_waits_beyond_the_deadline(deadline: float, fits: bool) -> None:
    """The wait, and the target's usual first token after it, must fit before the deadline."""

    async def work() -> None:
        stats = Stats()
        for _ in range(50):
            stats.began(0.5)
        _, outer, _ = await used_up(stats=stats)
        assert (await ask(outer, deadline=deadline + 0.5) == "Hi") is fits

    run(work())


def test_who_was_overtaken_too_often_gives_up_in_time() -> None:
    """Higher priorities may push a call back beyond its longest wait: then it fails, not later."""

    async def work() -> None:
        limiter, outer, _ = await used_up(max_wait=2.0)
        low = waiting(outer, "batch")
        await asyncio.sleep(0.5)
        high = waiting(outer, "gold", "gold")
        assert await low[0] == "The target's rate limit left no room in time. [1.0]"
        assert asyncio.get_running_loop().time() == pytest.approx(2.0, abs=0.01)
        assert [await task for task in high] == ["Hi", "Hi"]
        assert limiter.view().shed == 1

    run(work())


def test_the_queue_is_bounded() -> None:
    """With all places taken by equals a call is refused at once."""

    async def work() -> None:
        limiter, outer, _ = await used_up(queue=2)
        tasks = waiting(outer, "a", "b", "c")
        assert await tasks[2] == "Too many calls wait for the target. [3.0]"
        assert limiter.view().waiting == 2
        assert [await task for task in tasks[:2]] == ["Hi", "Hi"]
        _, outer, _ = await used_up(queue=0)
        assert (await ask(outer)).startswith("Too many calls wait")

    run(work())


def test_low_priorities_are_shed_first() -> None:
    """In a full queue the latest call of the lowest priority makes room for a higher one."""

    async def work() -> None:
        _, outer, model = await used_up(queue=3)
        tasks = waiting(outer, "batch", "batch", "normal", "gold")
        refused = await tasks[1]
        assert refused.startswith("A call that comes first took the place in the queue.")
        assert await order(model, tasks) == "gnb"

    run(work())


def test_a_full_queue_has_room_for_another_tenant() -> None:
    """Where one tenant holds all places, its latest call makes room for one that has none."""

    async def work() -> None:
        _, outer, model = await used_up(queue=3)
        tasks = waiting(outer, "a", "a", "a", "b", "b", "a")
        assert await order(model, tasks) == "aba"
        assert [task.result()[:5] for task in tasks] == ["Hi", "Hi", "A cal", "Hi", "Too m", "Too m"]

    run(work())


def test_cancelling_frees_the_place_at_once() -> None:
    """A waiting call that is cancelled holds nobody up, and takes nothing."""

    async def work() -> None:
        limiter, outer, model = await used_up(queue=2)
        tasks = waiting(outer, "a", "b")
        await asyncio.sleep(0.5)
        tasks[0].cancel()
        await asyncio.sleep(0)
        assert limiter.view().waiting == 1
        assert await tasks[1] == "Hi"
        assert model.times == [pytest.approx(1.0, abs=0.01)]
        assert left(limiter)[0] == 0

    run(work())


def test_cancelling_just_as_it_is_served_gives_back() -> None:
    """A call that is cancelled in the moment it is granted returns its reservation to the next."""

    async def work() -> None:
        limiter, outer, model = await used_up()
        first, second = waiting(outer, "a", "b")
        await asyncio.sleep(1.0)
        limiter.room.serve()
        first.cancel()
        assert await second == "Hi"
        assert [call.tenant for call in model.calls] == ["b"]
        assert model.times == [pytest.approx(1.0, abs=0.01)]

    run(work())


def test_what_is_given_back_wakes_the_next() -> None:
    """An answer shorter than expected lets the next call go before the refill does."""

    async def work() -> None:
        limiter = make_limiter(tpm=600, max_wait=60.0)
        outer = limited(limiter, (say("Hi"), 3.0, *answer(5)))
        tasks = waiting(outer, "a", "b", max_tokens=590)
        await tasks[0]
        assert limiter.view().waiting == 0
        assert await tasks[1] == "HiHi"
        assert asyncio.get_running_loop().time() == pytest.approx(6.0, abs=0.01)

    run(work())


def test_refusals_are_those_of_a_gate() -> None:
    """A refusal lets another target answer, and says how long this one needs."""

    async def work() -> Call:
        _, outer, _ = await used_up(max_wait=0.0)
        call = make_call()
        with pytest.raises(UnavailableError) as caught:
            await outer.open(call)
        assert (caught.value.failover, caught.value.retry_after) == (True, pytest.approx(1.0))
        assert call.record.attempts == []
        return call

    run(work())
