"""Calls through a breaker: what is refused, what is abandoned, and what is left behind."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

import pytest
from policies.fleet import (
    FakeStore,
    Instance,
    Upstream,
    broken,
    leftovers,
    limited,
    quiet,
)
from policies.models import END, Scripted, collect, make_call, open_model, say, text_of
from virtual_time import run

from firsttoken.errors import UpstreamClosedError, UpstreamTimeoutError


def test_healthy_target_is_called():
    """A breaker changes nothing about the answers of a target that works."""

    async def main():
        one = Instance(Upstream(), FakeStore())
        for stream in (True, False):
            assert await text_of(one.breaker, make_call(stream=stream)) == "Hello"
        assert one.state == "closed"
        assert not leftovers()

    run(main())


@pytest.mark.parametrize("stream", [True, False])
def test_open_circuit_refuses(stream):
    """While it is open calls are refused without being sent, in no time and with the time to wait."""

    async def main():
        upstream = Upstream(broken())
        one = Instance(upstream)
        ends = [await one.call(stream=stream) for _ in range(10)]
        assert [error.code for error in ends] == ["upstream_error"] * 3 + ["target_unavailable"] * 7
        assert ends[-1].retry_after == 5.0
        assert ends[-1].failover
        assert len(upstream.calls) == 3

    run(main())


def test_rate_limit_never_opens():
    """However often a target asks to wait, it cools down, nobody calls it meanwhile, and it never opens."""

    async def main():
        upstream = Upstream(limited(2.0))
        one = Instance(upstream)
        for _ in range(1000):
            await one.call()
            assert one.state == "cooling"
            await asyncio.sleep(0.1)
        gaps = [after - before for before, after in zip(upstream.times, upstream.times[1:], strict=False)]
        assert min(gaps) > 1.999
        assert len(upstream.calls) == pytest.approx(50, abs=3)

    run(main())


@pytest.mark.parametrize("silence", [100.0, 12.0])
def test_late_first_token_counts_once_and_at_once(silence):
    """A late first token is one failure when the limit passes, whatever becomes of the call later."""

    async def main():
        one = Instance(Upstream(silence), consecutive=3)
        call = asyncio.create_task(one.call())
        await asyncio.sleep(9.9)
        assert one.circuit.view().failures == 0
        await asyncio.sleep(0.2)
        assert one.circuit.view().failures == 1
        assert one.circuit.view().error == "upstream_timeout"
        error = await call
        assert (error is None) == (silence == 12.0)
        assert one.circuit._streak == 1
        assert not one.circuit.late

    run(main())


def test_answers_that_are_not_streamed_are_not_late():
    """The limit of the first token is none of an answer that comes in one piece."""

    async def main():
        one = Instance(Upstream(60.0))
        assert await one.call(stream=False) is None
        assert one.circuit._streak == 0
        assert one.state == "closed"

    run(main())


def test_whole_answers_are_given_up_when_it_opens():
    """A call for a whole answer waits on while its target is well, and goes elsewhere once it is not."""

    async def main():
        upstream = Upstream(100.0)
        one = Instance(upstream)
        whole = asyncio.create_task(one.call(stream=False))
        await asyncio.sleep(10.5)
        assert (one.state, one.circuit._streak, whole.done()) == ("closed", 0, False)
        upstream.fault = broken()
        await one.calls(3)
        await quiet()
        assert one.state == "open"
        assert whole.done()
        assert whole.result().code == "upstream_timeout"
        assert not one.circuit.late

    run(main())


def test_slow_limit_is_learned():
    """Where the target's usual time is known, late is a multiple of it."""

    async def main():
        upstream = Upstream(takes=0.6)
        one = Instance(upstream)
        await one.calls(60)
        upstream.fault = 100.0
        start = asyncio.get_running_loop().time()
        await asyncio.gather(*[one.call() for _ in range(3)])
        assert asyncio.get_running_loop().time() - start == pytest.approx(2.4)

    run(main())


def test_late_calls_are_abandoned_when_it_opens():
    """Calls that wait too long already are given up the moment it opens; younger ones keep their time."""

    async def main():
        upstream = Upstream(100.0)
        one = Instance(upstream)
        old = [asyncio.create_task(one.call()) for _ in range(2)]
        await asyncio.sleep(10.5)
        assert one.state == "closed"
        young = [asyncio.create_task(one.call()) for _ in range(2)]
        await asyncio.sleep(1)
        upstream.fault = broken()
        await one.call()
        await quiet()
        assert one.state == "open"
        assert all(task.done() for task in old)
        assert [type(task.result()) for task in old] == [UpstreamTimeoutError] * 2
        assert old[0].cancelling() == 0
        assert upstream.active == 2
        await asyncio.sleep(9.5)
        assert upstream.active == 0
        assert all(task.result().code == "upstream_timeout" for task in young)
        assert not one.circuit.late
        assert not leftovers()

    run(main())


def test_late_calls_are_abandoned_when_others_open_it():
    """It is the same when the news comes from another instance."""

    async def main():
        store = FakeStore()
        hanging, failing = Upstream(100.0), Upstream(broken())
        one = Instance(hanging, store)
        task = asyncio.create_task(one.call())
        await asyncio.sleep(15)
        await Instance(failing, store, seed=2, failures=3, ratio=0.0).calls(3)
        await quiet()
        assert not task.done()
        one.board.refresh()
        await quiet()
        assert task.result().code == "upstream_timeout"
        assert hanging.active == 0

    run(main())


def test_late_call_that_gets_its_answer_is_whole():
    """A late answer that begins after all is passed on, and its later end is not counted."""

    async def main():
        model = Scripted((12.0, say("Hel"), 1.0, say("lo"), UpstreamClosedError("cut")))
        one = Instance(model)
        error = await one.call()
        assert error.code == "upstream_closed"
        assert one.circuit._streak == 1

    run(main())


@pytest.mark.parametrize("end", ["break", "gap", "whole", "left"])
def test_how_an_answer_ends(end):
    """An answer that breaks off or falls silent is a failure; a whole one, or one that is left, is not."""

    async def main():
        tail = {"break": UpstreamClosedError("cut"), "gap": 16.0}.get(end, END)
        one = Instance(Scripted((say("Hel"), tail, END)), consecutive=1)
        if end == "left":
            async with aclosing(one.breaker.stream(make_call())) as chunks:
                await anext(chunks)
        else:
            await one.call()
        assert one.state == ("open" if end in ("break", "gap") else "closed")
        assert not leftovers()

    run(main())


@pytest.mark.parametrize("after", [0.0, 5.0, 11.0])
def test_client_that_leaves_is_neutral(after):
    """A client that leaves before the answer begins is no failure, and leaves nothing behind."""

    async def main():
        upstream = Upstream(100.0)
        one = Instance(upstream, consecutive=100)
        tasks = [asyncio.create_task(one.call()) for _ in range(20)]
        await asyncio.sleep(after)
        counted = one.circuit.view().failures
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        await quiet()
        assert one.circuit.view().failures == counted
        assert upstream.active == 0
        assert not one.circuit.late
        assert not leftovers()

    run(main())


def test_client_leaves_as_the_call_is_abandoned():
    """Where both happen at once the client's cancellation wins."""

    async def main():
        one = Instance(Upstream(100.0), consecutive=1)
        task = asyncio.create_task(one.call())
        asyncio.get_running_loop().call_later(10.0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not leftovers()

    run(main())


def test_abandoned_inside_other_limits():
    """A call is abandoned as such inside timeouts of others, and those stay as they were."""

    async def main():
        one = Instance(Upstream(100.0), consecutive=1)
        async with asyncio.timeout(50) as outer:
            with pytest.raises(UpstreamTimeoutError):
                await open_model(one.breaker, make_call())
            await asyncio.sleep(1)
        assert not outer.expired()
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_timeout_of_an_outer_policy_is_not_ours():
    """A limit around the breaker that expires is seen there, and counts nothing here."""

    async def main():
        one = Instance(Upstream(100.0), consecutive=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await open_model(one.breaker, make_call())
        assert one.state == "closed"

    run(main())


def test_several_loops_one_after_another():
    """A circuit outlives the event loop that it was first used in."""
    upstream = Upstream(broken())
    one = Instance(upstream, FakeStore(), consecutive=5)
    for _ in range(5):
        error = run(one.call())
        assert error.code == "upstream_error"
    assert run(one.call()).code == "target_unavailable"


def test_several_loops_at_once():
    """A call that is late in one loop is abandoned when the circuit opens in another."""
    one = Instance(Scripted((3600.0, END)), slow=0.01, consecutive=2)
    one.board.wall = lambda: 1e9
    ends: list[object] = []
    late = threading.Event()

    async def wait_late():
        task = asyncio.create_task(one.call())
        while not one.circuit.late:
            await asyncio.sleep(0.001)
        late.set()
        ends.append(await task)

    thread = threading.Thread(target=lambda: asyncio.run(wait_late()))
    thread.start()
    late.wait()
    asyncio.run(one.call())
    thread.join()
    assert [end.code for end in ends] == ["upstream_timeout"]
    assert not one.circuit.late


def test_every_read_is_beside_the_calls():
    """A store that takes half a second delays no call, healthy or refused."""

    async def main():
        store = FakeStore()
        store.delay = 0.2
        upstream = Upstream(takes=0.1)
        one = Instance(upstream, store)
        loop = asyncio.get_running_loop()
        for fault, lasts in ((None, 0.1), (broken(), 0.1), (broken(), 0.1), (broken(), 0.1), (broken(), 0.0)):
            upstream.fault = fault
            start = loop.time()
            await one.call()
            assert loop.time() - start == pytest.approx(lasts)
        await collect(Upstream(), make_call())

    run(main())
