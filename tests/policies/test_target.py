"""Targets: each call is an attempt of its own, and what one process learns from them."""

import asyncio
from contextlib import aclosing

import pytest

from firsttoken.errors import (
    FirstTokenError,
    RequestError,
    UnsupportedFieldError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from firsttoken.model import Chunk, Usage
from firsttoken.policies.stats import LEARNED, WINDOW, Stats, is_failure, slow_after
from firsttoken.policies.target import Measured, Target
from firsttoken.policies.timeouts import Timeouts
from firsttoken.settings import Breaker
from firsttoken.settings import Timeouts as Limits
from tests.policies.models import END, Scripted, collect, make_call, open_model, say
from tests.policies.targets import attempts, failing, learned, target
from tests.virtual_time import run


def test_attempt() -> None:
    """A call leaves an attempt with its times, counts and outcome; a target's own copy of it."""

    async def work() -> None:
        model = Scripted((1.0, Chunk(model="m"), 1.0, say("x"), 1.0, END))
        one, call = target("p/m", model), make_call()
        call.kind = "retry"
        await collect(one, call)
        (attempt,) = call.record.attempts
        assert (attempt.started, attempt.first_chunk, attempt.finished) == (0, 2, 3)
        assert (attempt.kind, attempt.target, attempt.outcome) == ("retry", "p/m", "ok")
        assert (attempt.input_tokens, attempt.output_tokens) == (3, 2)
        assert model.calls[0].attempt is attempt
        assert call.attempt is not attempt
        assert call.record.target == "p/m"

    run(work())


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (UpstreamError("x"), True),
        (UpstreamTimeoutError("x"), True),
        (UpstreamRateLimitError("x"), False),
        (UpstreamRefusedError("x"), False),
        (UnsupportedFieldError("x"), False),
        (RequestError("x"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_failures(error: FirstTokenError, failure: bool) -> None:
    """Only what speaks against the target counts as its failure, before the answer and within it."""

    async def work() -> None:
        assert is_failure(error) is failure
        for script in ((error,), (say("x"), error)):
            one, call = target("p/m", Scripted(script)), make_call()
            with pytest.raises(type(error)):
                await collect(one, call)
            assert (one.stats.calls, one.stats.failures, one.stats.in_flight) == (1, failure, 0)
            assert one.stats.error_rate == failure
            assert attempts(call) == [f"first:p/m:{error.code or error.type}"]

    run(work())


def test_left() -> None:
    """A call that was left, before or after it began, says nothing of its target; its counts stay."""

    async def work() -> None:
        one = target("p/m", Scripted((1.0, Chunk(usage=Usage(input=7)), say("x"), 1.0, END)))
        calls = [make_call() for _ in range(3)]
        task = asyncio.create_task(open_model(one, calls[0]))
        await asyncio.sleep(0.5)
        assert one.stats.in_flight == 1
        task.cancel()
        await asyncio.wait([task])
        await (await open_model(one, calls[1])).aclose()
        async with aclosing(one.stream(calls[2])) as chunks:
            await anext(chunks)
        assert [attempts(call) for call in calls] == [["first:p/m:left"]] * 3
        assert [call.record.attempts[0].input_tokens for call in calls] == [0, 7, 7]
        assert (one.stats.in_flight, one.stats.failures, one.stats.error_rate) == (0, 0, 0)
        await collect(one, make_call())
        with pytest.raises(UpstreamError):
            await collect(
                Target("p/m", Measured(failing(UpstreamError("x")), one.stats), one.stats), make_call()
            )
        assert one.stats.error_rate == 0.5

    run(work())


def test_timed_out() -> None:
    """A target that is given up because it is too slow has failed."""

    async def work() -> None:
        stats = Stats()
        timed = Timeouts(Scripted((60.0,)), Limits(first_chunk=3), 5)
        call = make_call()
        with pytest.raises(UpstreamTimeoutError):
            await open_model(Target("p/m", Measured(timed, stats), stats), call)
        assert attempts(call) == ["first:p/m:upstream_timeout"]
        assert stats.failures == 1

    run(work())


def test_first_tokens() -> None:
    """Times to first token are learned from streamed answers only."""

    async def work() -> None:
        one = target("p/m", Scripted((2.0, say("x"), END)))
        await collect(one, make_call(stream=False))
        assert (one.stats.samples, one.stats.quantile(0.5)) == (0, None)
        await collect(one, make_call())
        assert (one.stats.samples, one.stats.quantile(0.5)) == (1, 2.0)

    run(work())


@pytest.mark.parametrize(("after", "samples"), [(0.5, 60), (1.5, 61)])
def test_gave_up(after: float, samples: int) -> None:
    """A wait that was given up is a sample where it was longer than usual; else it says nothing."""

    async def work() -> None:
        one = target("p/m", Scripted((60.0,)))
        learned(one, 1.0)
        task = asyncio.create_task(open_model(one, make_call()))
        await asyncio.sleep(after)
        task.cancel()
        await asyncio.wait([task])
        assert one.stats.samples == samples

    run(work())


def test_quantiles() -> None:
    """A quantile is of the last samples, and at most sixteen of them behind."""
    stats = Stats()
    for number in range(100):
        stats.began(float(number))
    assert stats.quantile(0.5) == 50
    assert stats.quantile(0.95) == 95
    for _ in range(WINDOW):
        stats.began(500.0)
    assert (stats.samples, stats.quantile(0.01)) == (WINDOW, 500)
    for _ in range(16):
        stats.began(1.0)
    assert stats.quantile(0.01) == 1


@pytest.mark.parametrize(
    ("usual", "samples", "settings", "slow"),
    [
        (1.0, LEARNED, Breaker(), 4.0),
        (1.0, LEARNED - 1, Breaker(), 10.0),
        (0.1, LEARNED, Breaker(), 2.0),
        (9.0, LEARNED, Breaker(), 10.0),
        (1.0, LEARNED, Breaker(slow_factor=0), 10.0),
        (0.1, LEARNED, Breaker(slow=1), 1.0),
    ],
)
def test_slow_after(usual: float, samples: int, settings: Breaker, slow: float) -> None:
    """Slow is so many times the P95, within bounds, once that is known."""
    stats = Stats()
    for _ in range(samples):
        stats.began(usual)
    assert slow_after(stats, settings) == slow
