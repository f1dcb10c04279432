"""How targets are found well again: probes of our own, one at a time over all instances."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from policies.fleet import (
    FakeStore,
    Instance,
    Upstream,
    broken,
    leftovers,
    limited,
    make_fleet,
    quiet,
    traffic,
)
from virtual_time import run

from firsttoken.errors import UpstreamRefusedError
from firsttoken.model import Call
from firsttoken.wire import anthropic, gemini, openai_chat, openai_responses


async def break_down(fleet):
    """Let every instance see the failures that open it."""
    for instance in fleet:
        await instance.calls(3)
    await quiet()
    assert {instance.state for instance in fleet} == {"open"}


def test_no_client_is_the_test():
    """When the open time is over a probe of one token decides; clients are refused until it has."""

    async def main():
        upstream = Upstream(broken())
        one = Instance(upstream)
        await break_down([one])
        upstream.fault = None
        upstream.takes = 0.5
        await asyncio.sleep(5)
        assert one.state == "half_open"
        for _ in range(5):
            refused = await one.call(max_tokens=500)
            assert refused.code == "target_unavailable"
            assert refused.retry_after == 1.0
        await asyncio.sleep(0.6)
        assert one.state == "closed"
        assert len(upstream.probes) == 1
        assert len(upstream.lives) == 3
        (probe,) = upstream.probes
        assert probe.request.max_tokens == 1
        assert not probe.request.stream
        assert probe.request.model == "m"
        assert probe.record.attempts[0].kind == "probe"
        assert probe.record.attempts[0].outcome == "ok"
        assert await one.call() is None

    run(main())


@pytest.mark.parametrize("codec", [openai_chat, anthropic, gemini, openai_responses])
def test_probe_in_every_format(codec):
    """A probe carries no bytes of any client's: each format writes its own request."""

    async def main():
        upstream = Upstream()
        await Instance(upstream).breaker.probe("any-name")
        body = codec.write_request(upstream.calls[0], "its-name")
        assert b"ping" in body
        assert b"any-name" not in body

    run(main())


@pytest.mark.parametrize("code", ["upstream_error", "slow"])
def test_failed_probe_opens_it_for_longer(code):
    """Each probe that fails or takes too long keeps it open for longer, and no client is sent."""

    async def main():
        upstream = Upstream(broken())
        one = Instance(upstream, probe_timeout=2.0)
        await break_down([one])
        if code == "slow":
            upstream.fault = 1000.0
        lefts = []
        for _ in range(6):
            await asyncio.sleep(one.circuit.view().seconds_left)
            await one.call()
            await asyncio.sleep(2.0)
            await quiet()
            lefts.append(one.circuit.view().seconds_left + (0 if code == "slow" else 2.0))
        assert lefts == pytest.approx([7.5, 11.25, 16.875, 20, 20, 20])
        assert len(upstream.lives) == 3
        assert len(upstream.probes) == 6

    run(main())


@pytest.mark.parametrize("answer", [UpstreamRefusedError("max_tokens is too small"), limited(4.0)])
def test_target_that_refuses_a_probe_is_there(answer):
    """A 4xx shows that the target works again; a 429 lets it cool down besides."""

    async def main():
        upstream = Upstream(broken())
        one = Instance(upstream)
        await break_down([one])
        upstream.fault = answer
        await asyncio.sleep(5)
        await one.call()
        await quiet()
        assert one.state == ("cooling" if answer.retry_after else "closed")
        await asyncio.sleep(4)
        assert one.state == "closed"

    run(main())


def test_one_probe_at_a_time_over_a_fleet():
    """Of forty instances one probes, by lease; all are closed soon after it has succeeded."""

    async def main():
        store = FakeStore()
        upstream = Upstream(broken())
        fleet = make_fleet(40, upstream, store, failures=1000)
        await break_down(fleet)
        upstream.fault = None
        upstream.takes = 3.0
        await asyncio.sleep(5)
        for _ in range(29):
            await asyncio.gather(*[instance.call() for instance in fleet])
            await asyncio.sleep(0.1)
        assert len(upstream.probes) == 1
        upstream.takes = 0.0
        await traffic(fleet, 8, 50, Random(1))
        assert {instance.state for instance in fleet} == {"closed"}
        assert len(upstream.probes) == 1

    run(main())


def test_failed_probe_counts_for_the_fleet():
    """While the target is down the fleet probes once per open time, not once per instance."""

    async def main():
        upstream = Upstream(broken())
        fleet = make_fleet(40, upstream, FakeStore(), failures=1000, growth=1.0)
        await break_down(fleet)
        await traffic(fleet, 60, 100, Random(1))
        assert 5 <= len(upstream.probes) <= 13
        assert len(upstream.lives) == 40 * 3

    run(main())


def test_instance_with_a_broken_network():
    """An instance that alone sees failures keeps the others from nothing."""

    async def main():
        store = FakeStore()
        sick = Instance(Upstream(broken()), store)
        fleet = make_fleet(10, Upstream(), store)
        both = await asyncio.gather(traffic([sick], 60, 5, Random(1)), traffic(fleet, 60, 50, Random(2)))
        assert set(both[1]) == {"ok"}
        assert both[0]["failed"] == 3

    run(main())


def test_recovery_closes_everywhere():
    """Once the probe of one instance has succeeded, all others close at their next read."""

    async def main():
        upstream = Upstream(broken())
        fleet = make_fleet(20, upstream, FakeStore(), failures=10)
        await traffic(fleet, 10, 100, Random(1))
        assert "closed" not in {instance.state for instance in fleet}
        upstream.fault = None
        await asyncio.sleep(20)
        sent = len(upstream.lives)
        await fleet[0].call()
        await quiet()
        assert fleet[0].state == "closed"
        await traffic(fleet, 7, 100, Random(1))
        assert {instance.state for instance in fleet} == {"closed"}
        assert len(upstream.lives) > sent

    run(main())


def test_scheduled_probe_closes_early():
    """A probe from outside closes an open circuit before its time, and the others hear of it."""

    async def main():
        store = FakeStore()
        upstream = Upstream(broken())
        fleet = make_fleet(2, upstream, store, failures=2, ratio=0.0, open=20.0)
        await fleet[0].calls(2)
        await quiet()
        assert fleet[0].state == "open"
        cold = Instance(upstream, store, seed=9)
        assert (await cold.breaker.probe("m")).failed
        await cold.board.read()
        assert cold.circuit.view().seconds_left == 20, "a probe that fails early changes nothing"
        upstream.fault = None
        result = await cold.breaker.probe("m")
        assert (result.healthy, result.failed, result.target) == (True, False, "p/m")
        await fleet[0].board.read()
        assert fleet[0].state == "closed"

    run(main())


def test_scheduled_probe_of_a_closed_circuit():
    """A probe is a sample like any other where the circuit is closed, and writes nothing when all is well."""

    async def main():
        store = FakeStore()
        upstream = Upstream()
        one = Instance(upstream, store)
        assert (await one.breaker.probe("m")).healthy
        assert not store.asked["swap"]
        upstream.fault = broken("overloaded")
        for _ in range(3):
            result = await one.breaker.probe("m")
            assert (result.failed, result.code) == (True, "overloaded")
        assert one.state == "open"

    run(main())


def test_cooling_target_is_not_probed():
    """A target that asked to be left alone is left alone by probes too."""

    async def main():
        upstream = Upstream(limited(30.0))
        one = Instance(upstream)
        await one.call()
        result = await one.breaker.probe("m")
        assert (result.healthy, result.failed, result.code) == (False, False, "rate_limit_exceeded")
        assert len(upstream.calls) == 1

    run(main())


@pytest.mark.parametrize("moment", ["lease", "get", "probe", "swap"])
def test_cancelled_probe_leaves_nothing(moment):
    """A probe that is cancelled, wherever it is, leaves no task, no lease and no mark behind."""

    async def main():
        store = FakeStore()
        upstream = Upstream(broken())
        one, other = make_fleet(2, upstream, store)
        await break_down([one, other])
        upstream.fault = None
        await asyncio.sleep(5)
        if moment == "probe":
            upstream.takes = 5.0
        else:
            gate = store._gate

            async def slow(name):
                await gate(name)
                if name == moment and not other.circuit.probing:
                    await asyncio.sleep(0.2)

            store._gate = slow
        await one.call()
        await asyncio.sleep(0.1)
        assert one.circuit.probing
        await one.shadow.aclose()
        await quiet()
        assert not leftovers()
        assert not one.circuit.probing
        upstream.takes = 0.0
        await other.call()
        await quiet()
        assert other.state == "closed"
        assert upstream.active == 0

    run(main())


def test_lost_lease_runs_out():
    """An instance that dies while it probes is replaced after the time a probe may take."""

    async def main():
        store = FakeStore()
        upstream = Upstream(broken())
        fleet = make_fleet(5, upstream, store)
        await break_down(fleet)
        upstream.fault = None
        await asyncio.sleep(5)
        await fleet[0].board.elect("p/m", 11.0)
        await traffic(fleet[1:], 10.9, 20, Random(1))
        assert not upstream.probes
        await traffic(fleet[1:], 7, 20, Random(1))
        assert fleet[1].state == "closed"
        assert len(upstream.probes) == 1

    run(main())


def test_full_shadow():
    """A probe that could not be started is started by a later call."""

    async def main():
        upstream = Upstream(broken())
        one = Instance(upstream)
        await break_down([one])
        upstream.fault = None
        await asyncio.sleep(5)
        for _ in range(64):
            one.shadow.run(asyncio.sleep(1))
        await one.call()
        assert one.shadow.dropped == 1
        await asyncio.sleep(6)
        await one.call()
        await quiet()
        assert one.state == "closed"

    run(main())


def test_probe_call_is_whole():
    """A probe's call has all that a provider may look at."""

    async def main():
        upstream = Upstream()
        await Instance(upstream).breaker.probe("m")
        call = upstream.calls[0]
        assert isinstance(call, Call)
        assert call.deadline == 10.0
        assert not call.source.unknown
        assert not call.headers

    run(main())
