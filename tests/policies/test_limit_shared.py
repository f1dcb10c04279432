"""Limits that several instances share through a store, without waiting for it."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from firsttoken.policies.limit import Limited, Limiter
from firsttoken.settings import Target
from tests.policies.limits import Counters, answer, ask, left, limited, make_limiter
from tests.policies.models import Scripted, make_call
from tests.virtual_time import run


async def drive(model: Any, rate: float, seconds: float, rng: Random, **fields: Any) -> None:
    """Send calls at random times, so many a second on average, without waiting for their answers."""
    loop, tasks = asyncio.get_running_loop(), set()
    end = loop.time() + seconds
    while (pause := rng.expovariate(rate)) + loop.time() < end:
        await asyncio.sleep(pause)
        tasks.add(task := asyncio.create_task(ask(model, **fields)))
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


async def load(count: int, store: Counters | None, rate: float, minutes: int, **limits: Any) -> list[int]:
    """Overload instances that share a store; return how many calls were let through in each minute."""
    model = Scripted(answer(40, 5))
    dice = [Random(seed) for seed in range(count)]
    limiters = [make_limiter(store=store, seed=seed, **limits) for seed in range(count)]
    fields = {"max_tokens": 50}
    work = [
        drive(Limited(model, limiter), rate / count, minutes * 60.0, rng, **fields)
        for limiter, rng in zip(limiters, dice, strict=True)
    ]
    start = asyncio.get_running_loop().time()
    await asyncio.gather(*work)
    return [sum(60 * at <= time - start < 60 * at + 60 for time in model.times) for at in range(minutes)]


@pytest.mark.parametrize("limits", [{"rpm": 600}, {"tpm": 600 * 45}])
def test_twenty_instances_stay_within_the_limit(limits: dict[str, int]) -> None:
    """Overloaded threefold, all together pass the limit by less than a tenth once the first burst is over."""

    async def work() -> None:
        minutes = await load(20, Counters(), 30.0, 6, **limits)
        assert 600 <= minutes[0] <= 1.1 * 2 * 600
        assert all(0.9 * 600 <= calls <= 1.1 * 600 for calls in minutes[1:]), minutes

    run(work())


def test_without_a_store_each_counts_for_itself() -> None:
    """While the store is down, or where there is none, every instance keeps the limit on its own."""

    async def work() -> None:
        down = Counters()
        down.down = True
        for store in (down, None):
            minutes = await load(2, store, 60.0, 3, rpm=600)
            assert all(1.8 * 600 <= calls <= 2.1 * 600 for calls in minutes[1:]), minutes

    run(work())


def pair(store: Counters, **limits: Any) -> list[tuple[Limiter, Limited]]:
    made = [make_limiter(store=store, **limits) for _ in range(2)]
    return [(limiter, limited(limiter, answer(10, 5))) for limiter in made]


async def calls(model: Any, count: int, pause: float = 0.0) -> list[str]:
    seen = []
    for _ in range(count):
        seen.append(await ask(model, max_tokens=10))
        await asyncio.sleep(pause)
    return seen


def test_the_others_spending_is_debited() -> None:
    """Requests and tokens of one instance are missing in the other one's buckets."""

    async def work() -> None:
        (_, one), (other, two) = pair(Counters(), rpm=60, tpm=6000)
        await calls(one, 20)
        await asyncio.sleep(1.1)
        await calls(one, 1)
        await asyncio.sleep(0.1)
        await calls(two, 1)
        await asyncio.sleep(0.1)
        assert left(other)[:2] == (60 - 21 - 1, 6000 - 22 * 15 + 10)

    run(work())


def test_what_is_given_back_is_told_too() -> None:
    """An answer that was shorter than expected is no loss for the others; its tokens become negative."""

    async def work() -> None:
        store = Counters()
        (_, one), (other, two) = pair(store, tpm=6000)
        await asyncio.sleep(40)
        opened = await one.open(make_call(max_tokens=4000))
        await asyncio.sleep(0.1)
        await calls(two, 1)
        await asyncio.sleep(0.1)
        assert left(other)[1] == pytest.approx(6000 - 4005 - 15, abs=20)
        await asyncio.sleep(21)
        assert left(other)[1] < 4200
        await opened.aclose()
        for model in (one, two):
            await calls(model, 2, 1.2)
        assert left(other)[1] > 5900
        assert any(value & 1 << 39 for value in store.values.values())  # the sign of its tokens

    run(work())


def test_one_that_joins_begins_with_what_is_left() -> None:
    """A new instance learns with its first exchange what the last sixty seconds have used."""

    async def work() -> None:
        store = Counters()
        _, one = pair(store, rpm=600)[0]
        await asyncio.sleep(30)
        assert set(await calls(one, 600, 0.05)) == {"Hi"}  # from second 30 to second 60
        await asyncio.sleep(6)
        late, two = pair(store, rpm=600)[0]
        await calls(two, 1)
        await asyncio.sleep(0.1)
        assert left(late)[0] == pytest.approx(600 * (1 - 0.9) - 1, abs=25)

    run(work())


def test_the_store_is_asked_once_an_interval_and_only_for_calls() -> None:
    """An instance without calls is silent; one with many tells its spending once a second."""

    async def work() -> None:
        store = Counters()
        _, one = pair(store, rpm=6000)[0]
        await asyncio.sleep(100)
        assert store.calls == 0
        await calls(one, 200, 0.05)
        assert 9 <= store.calls <= 13
        assert len(store.values) == 2

    run(work())


def test_answers_that_are_counted_apart_have_a_counter_of_their_own() -> None:
    """The tokens of answers are shared like the others where they have a limit."""

    async def work() -> None:
        target = Target(tpm=6000, output_tpm=600)
        store = Counters()
        made = [make_limiter("anthropic", store=store, target=target) for _ in range(2)]
        one, two = [limited(limiter, answer(100, 5)) for limiter in made]
        await calls(one, 3)
        await asyncio.sleep(1.1)
        await calls(one, 1)
        await asyncio.sleep(0.1)
        await calls(two, 1)
        await asyncio.sleep(0.1)
        assert left(made[1])[2] == 600 - 400 - 100 + 1
        assert any(key.endswith("/output") for key in store.values)

    run(work())


def test_after_an_outage_the_past_is_forgotten() -> None:
    """What was spent while the store was down is not held against anybody minutes later."""

    async def work() -> None:
        store = Counters()
        (_, one), (other, two) = pair(store, rpm=60)
        await calls(one, 1)
        await asyncio.sleep(0.1)
        store.down = True
        await calls(one, 200, 1.0)
        await calls(two, 1)
        store.down = False
        await asyncio.sleep(1.1)
        await calls(one, 1)
        await asyncio.sleep(0.1)
        await calls(two, 1)
        await asyncio.sleep(0.1)
        assert left(other)[0] >= 55

    run(work())


def test_a_store_that_nobody_shares_is_not_asked() -> None:
    """A store in this process only has nothing to tell."""

    async def work() -> None:
        store = Counters()
        store.shared = False
        await calls(pair(store, rpm=60)[0][1], 3, 2.0)
        assert store.calls == 0

    run(work())
