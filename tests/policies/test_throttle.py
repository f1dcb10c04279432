"""Adaptive throttling: the fewer calls a target accepts, the more are held back."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from random import Random

import pytest
from policies.fleet import Upstream, broken, limited
from policies.models import END, Scripted, collect, make_call, say
from virtual_time import run

from firsttoken.errors import (
    DeadlineError,
    FirstTokenError,
    RequestError,
    UnavailableError,
    UpstreamClosedError,
    UpstreamRefusedError,
)
from firsttoken.policies.throttle import BUCKETS, MAX_REJECTED, Throttled
from firsttoken.settings import Throttle as Settings


def make_throttle(model, seed=1, **settings):
    return Throttled(model, Settings(**settings), Random(seed))


async def send(throttled, count, every=0.0):
    """Make calls; return how many were held back."""
    held = 0
    for _ in range(count):
        try:
            await collect(throttled, make_call())
        except UnavailableError:
            held += 1
        except FirstTokenError:
            pass
        await asyncio.sleep(every)
    return held


def test_healthy_target_is_never_throttled():
    """Nothing is held back while a target accepts its calls."""

    async def main():
        throttled = make_throttle(Upstream())
        assert await send(throttled, 1000) == 0
        assert throttled.rejecting == 0.0

    run(main())


def test_half_is_accepted():
    """With a factor of two, a target may fail every second call before any is held back."""

    async def main():
        flaky = Scripted(*[(broken(),) if index % 2 else Upstream().script() for index in range(400)])
        assert await send(make_throttle(flaky), 400) <= 4

    run(main())


def test_outage_is_throttled():
    """In an outage one call in ten is sent, and the error of the others says so."""

    async def main():
        upstream = Upstream(broken())
        throttled = make_throttle(upstream)
        held = await send(throttled, 1000)
        assert len(upstream.calls) + held == 1000
        assert len(upstream.calls) < 150
        throttled._rng = Random(1)  # says 0.13
        with pytest.raises(UnavailableError, match="90% of them are held back"):
            await collect(throttled, make_call())

    run(main())


def test_probability():
    """The probability is (requests - factor * accepts) / (requests + 1)."""

    async def main():
        upstream = Upstream()
        throttled = make_throttle(upstream, minimum=0)
        await send(throttled, 10)
        upstream.fault = broken()
        held = await send(throttled, 30)
        assert held == 40 - len(upstream.calls)
        assert throttled.rejecting == pytest.approx((40 - 2 * 10) / 41)

    run(main())


def test_few_calls_say_nothing():
    """Under the minimum of calls in the window nothing is held back."""

    async def main():
        upstream = Upstream(broken())
        assert await send(make_throttle(upstream, minimum=50), 50) == 0
        assert len(upstream.calls) == 50

    run(main())


@pytest.mark.parametrize(
    "error",
    [limited(), UnavailableError(""), UpstreamRefusedError(""), RequestError(""), DeadlineError("")],
    ids=lambda error: type(error).__name__,
)
def test_accepted(error):
    """Client errors, cool-downs and refusals of a gate count as accepted."""

    async def main():
        upstream = Upstream(error)
        throttled = make_throttle(upstream)
        await send(throttled, 200)
        assert len(upstream.calls) == 200
        assert throttled.rejecting == 0.0

    run(main())


def test_burst_is_no_outage():
    """Calls under way count as accepted: a burst of slow answers is not held back."""

    async def main():
        upstream = Upstream(takes=20.0)
        throttled = make_throttle(upstream)
        await asyncio.gather(*[collect(throttled, make_call()) for _ in range(500)])
        assert len(upstream.calls) == 500

    run(main())


def test_client_that_leaves_is_neutral():
    """Calls whose clients leave, before or after the answer began, do not throttle."""

    async def main():
        throttled = make_throttle(Upstream(takes=5.0))
        tasks = [asyncio.create_task(collect(throttled, make_call())) for _ in range(100)]
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(100):
            async with aclosing(throttled.stream(make_call())) as chunks:
                await anext(chunks)
        assert throttled.rejecting == 0.0

    run(main())


def test_broken_answers_throttle():
    """An answer that breaks off later is taken back from the accepted ones."""

    async def main():
        throttled = make_throttle(Scripted((say("Hel"), UpstreamClosedError("cut"))))
        await send(throttled, 20)
        assert throttled.rejecting == MAX_REJECTED

    run(main())


@pytest.mark.parametrize("idle", [120.0, 121.0, 10_000.0])
def test_window_slides(idle):
    """What is older than the window is forgotten."""

    async def main():
        upstream = Upstream(broken())
        throttled = make_throttle(upstream)
        await send(throttled, 100)
        upstream.fault = None
        await asyncio.sleep(idle)
        assert await send(throttled, 100) == 0
        assert throttled._window.requests == throttled._window.accepts == 100

    run(main())


def test_window_slides_in_steps():
    """One slot after the other is forgotten, with what belongs to it."""

    async def main():
        upstream = Upstream()
        throttled = make_throttle(upstream)
        await send(throttled, 4 * BUCKETS, every=120 / BUCKETS / 4)
        assert throttled._window.requests == 4 * BUCKETS
        await send(throttled, 400, every=1.0)
        assert throttled._window.requests == pytest.approx(115, abs=5)
        assert len(throttled._window._requests) == BUCKETS

    run(main())


def test_late_failure_is_taken_back_from_its_own_slot():
    """A failure after minutes leaves no slot with fewer than no accepts."""

    async def main():
        throttled = make_throttle(Scripted((300.0, broken())))
        tasks = [asyncio.create_task(send(throttled, 1)) for _ in range(30)]
        await asyncio.sleep(299)
        await send(make_throttle(Upstream()), 1)
        await asyncio.gather(*tasks)
        throttled._window.turn(asyncio.get_running_loop().time())
        assert throttled._window.accepts == throttled._window.requests == 0
        assert min(throttled._window._accepts) == 0

    run(main())


def test_recovers():
    """After an outage the share that is sent grows until nothing is held back any more."""

    async def main():
        upstream = Upstream(broken())
        throttled = make_throttle(upstream)
        await send(throttled, 600, every=0.1)
        assert throttled.rejecting == MAX_REJECTED
        upstream.fault = None
        await send(throttled, 3000, every=0.1)
        assert throttled.rejecting == 0.0
        assert await send(throttled, 100) == 0

    run(main())


def test_several_loops():
    """A new event loop, whose clock may begin anew, does not confuse the window."""
    throttled = make_throttle(Scripted((say("Hi"), END)))
    for _ in range(5):
        assert run(send(throttled, 50, every=3.0)) == 0
    assert 0 < throttled._window.requests <= 250
