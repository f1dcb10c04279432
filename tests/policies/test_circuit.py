"""When a target's circuit opens, cools down and closes, in one process."""

from __future__ import annotations

import asyncio
from math import inf, nan

import pytest
from policies.fleet import Instance, Upstream, broken, limited
from virtual_time import EPOCH, run

from firsttoken.errors import (
    DeadlineError,
    RequestError,
    UnavailableError,
    UpstreamAuthError,
    UpstreamClosedError,
    UpstreamConnectError,
    UpstreamProtocolError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from firsttoken.policies.board import MEMORY
from firsttoken.policies.circuit import MAX_COOL, is_failure

FAILURES = [
    broken(),
    UpstreamConnectError(""),
    UpstreamTimeoutError(""),
    UpstreamProtocolError(""),
    UpstreamClosedError(""),
    UpstreamAuthError(""),
]
NEUTRAL = [
    UpstreamRefusedError(""),
    UnavailableError(""),
    RequestError(""),
    DeadlineError(""),
    UpstreamRateLimitError(""),
]


def make_circuit(**settings):
    return Instance(Upstream(), **settings).circuit


@pytest.mark.parametrize("error", [*FAILURES, *NEUTRAL], ids=lambda error: type(error).__name__)
def test_what_counts(error):
    """A failure is what the target did wrong: not the client's mistake, not a gate's, not a 429."""
    assert is_failure(error) == (error in FAILURES)

    async def main():
        circuit = make_circuit()
        for _ in range(50):
            circuit.note(error, circuit.term)
        return circuit.is_open

    assert run(main()) == (error in FAILURES)


def test_opens_after_failures_in_a_row():
    """Three failures in a row open it, and the refusal says for how long and why."""

    async def main():
        circuit = make_circuit()
        for expected in ("closed", "closed", "open"):
            circuit.failed(broken("bad_gateway"), circuit.term)
            assert circuit.state == expected
        await asyncio.sleep(2)
        refusal = circuit.refusal()
        assert refusal.retry_after == 3.0
        assert "bad_gateway" in str(refusal)
        assert "p/m" in str(refusal)

    run(main())


def test_success_breaks_the_row():
    """A success between failures begins the row anew."""

    async def main():
        circuit = make_circuit()
        for _ in range(20):
            circuit.failed(broken(), circuit.term)
            circuit.failed(broken(), circuit.term)
            circuit.succeeded(circuit.term)
        assert not circuit.is_open

    run(main())


def test_old_failures_are_no_row():
    """Failures a minute apart are not in a row."""

    async def main():
        circuit = make_circuit()
        for _ in range(10):
            circuit.failed(broken(), circuit.term)
            await asyncio.sleep(MEMORY + 1)
        assert not circuit.is_open

    run(main())


def test_outcomes_of_an_earlier_term_are_no_news():
    """Calls that were sent before it opened say nothing of the target after it closed."""

    async def main():
        circuit = make_circuit()
        term = circuit.term
        for _ in range(3):
            circuit.failed(broken(), term)
        await asyncio.sleep(5)
        await circuit.probed(None, circuit.term)
        for _ in range(50):
            circuit.failed(broken(), term)
        assert circuit.state == "closed"

    run(main())


def test_broken_answers_are_in_a_row():
    """An answer that begins and breaks off is one failure, not also a success."""

    async def main():
        circuit = make_circuit()
        for _ in range(3):
            assert not circuit.is_open
            began = circuit.succeeded(circuit.term)
            circuit.failed(UpstreamClosedError("cut"), circuit.term, began)
        assert circuit.is_open

    run(main())


def test_broken_answer_between_good_ones():
    """An answer that breaks off after others began well does not revive the row before them."""

    async def main():
        circuit = make_circuit()
        for _ in range(2):
            circuit.failed(broken(), circuit.term)
        began = circuit.succeeded(circuit.term)
        circuit.succeeded(circuit.term)
        circuit.failed(UpstreamClosedError("cut"), circuit.term, began)
        circuit.failed(broken(), circuit.term)
        assert not circuit.is_open

    run(main())


@pytest.mark.parametrize("growth", [1.0, 1.5, 3.0, 1e300])
def test_open_time_grows_to_its_cap(growth):
    """Each opening in a row is longer than the one before, up to the cap."""

    async def main():
        circuit = make_circuit(growth=growth)
        expected = 5.0
        for n in range(40):
            circuit._open_here()
            assert circuit.view().seconds_left == pytest.approx(min(expected, 20.0))
            assert circuit.view().n == n
            await asyncio.sleep(circuit.view().seconds_left)
            expected = min(expected * growth, 20.0)

    run(main())


def test_jitter():
    """Open times vary by the configured share around the rule, and no more."""

    async def main():
        times = []
        for seed in range(200):
            circuit = make_circuit(seed=seed, jitter=0.2)
            circuit._open_here()
            times.append(circuit.view().seconds_left)
        assert 4.0 <= min(times) < 4.3
        assert 5.7 < max(times) <= 6.0

    run(main())


@pytest.mark.parametrize(("healthy", "n"), [(MEMORY - 1, 1), (MEMORY + 1, 0)])
def test_growth_is_forgotten(healthy, n):
    """Openings are in a row unless it stayed closed for a minute."""

    async def main():
        circuit = make_circuit()
        circuit._open_here()
        await asyncio.sleep(5)
        await circuit.probed(None, circuit.term)
        await asyncio.sleep(healthy)
        circuit._open_here()
        assert circuit.view().n == n

    run(main())


def test_open_state_that_nobody_needed_is_forgotten():
    """A circuit that was open long ago, without a call since, is closed."""

    async def main():
        circuit = make_circuit()
        circuit._open_here()
        await asyncio.sleep(5 + MEMORY - 1)
        assert circuit.refusal() is not None
        await asyncio.sleep(2)
        assert circuit.refusal() is None
        assert circuit.state == "closed"

    run(main())


def test_cool_down_lasts_as_long_as_asked():
    """A 429 keeps calls away until the time it named, and the refusal says how long that is."""

    async def main():
        circuit = make_circuit()
        circuit.note(limited(7.0), circuit.term)
        await asyncio.sleep(3)
        assert circuit.refusal().retry_after == pytest.approx(4.0)
        assert circuit.refusal().status == 429
        assert circuit.state == "cooling"
        circuit.note(limited(1.0), circuit.term)
        assert circuit.refusal().retry_after == pytest.approx(4.0), "a shorter wish does not shorten it"
        await asyncio.sleep(4)
        assert circuit.refusal() is None
        assert circuit.state == "closed"

    run(main())


@pytest.mark.parametrize("asked", [None, 0.0, -5.0, nan])
def test_cool_down_without_a_time(asked):
    """Where no time is named the wait doubles up to 30 s, and a success begins anew."""

    async def main():
        circuit = make_circuit()
        waits = []
        for _ in range(8):
            for _ in range(10):  # sent together, refused together
                circuit.note(limited(asked), circuit.term)
            waits.append(circuit.refusal().retry_after)
            await asyncio.sleep(waits[-1])
            assert circuit.refusal() is None
        assert waits == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])
        circuit.succeeded(circuit.term)
        circuit.note(limited(asked), circuit.term)
        assert circuit.refusal().retry_after == pytest.approx(1)

    run(main())


@pytest.mark.parametrize("asked", [86_400.0, 1e18, inf])
def test_absurd_cool_down_is_clamped(asked):
    """No target is left alone for more than five minutes, and the refusal says what it asked for."""

    async def main():
        circuit = make_circuit()
        circuit.note(limited(asked), circuit.term)
        refusal = circuit.refusal()
        assert refusal.retry_after == pytest.approx(MAX_COOL)
        assert f"asked for {asked:g} s" in str(refusal)

    run(main())


def test_failure_that_names_a_time():
    """A 503 with a time to wait is a failure and a cool-down."""

    async def main():
        circuit = make_circuit()
        circuit.note(broken(status=503, retry_after=8.0), circuit.term)
        assert circuit.state == "cooling"
        assert circuit.view().failures == 1
        for _ in range(2):
            circuit.note(broken(), circuit.term)
        assert circuit.state == "open"
        await asyncio.sleep(5)
        assert not circuit.due(), "it is not probed while it wants to be left alone"
        await asyncio.sleep(3)
        assert circuit.state == "half_open"
        assert circuit.due()

    run(main())


def test_view():
    """The view tells the state, the seconds left, the last error and the failures of the present window."""

    async def main():
        circuit = make_circuit()
        assert circuit.view().state == "closed"
        assert circuit.view().since == 0
        await asyncio.sleep(1)
        for _ in range(3):
            circuit.failed(broken("overloaded"), circuit.term)
        await asyncio.sleep(1)
        view = circuit.view()
        assert (view.state, view.seconds_left, view.error, view.failures) == ("open", 4.0, "overloaded", 3)
        assert view.since == EPOCH + 1
        await asyncio.sleep(10)
        assert circuit.view().state == "half_open"
        assert circuit.view().failures == 0
        assert circuit.view().seconds_left == 0

    run(main())
