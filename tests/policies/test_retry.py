"""Retry: rounds with full jitter, within the deadline, the target's wishes and a budget."""

import asyncio
from random import Random

import pytest
from msgspec.structs import replace

from firsttoken.errors import (
    DeadlineError,
    FirstTokenError,
    RequestError,
    UnavailableError,
    UpstreamAuthError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
)
from firsttoken.policies.budget import Bucket, Budgets
from firsttoken.policies.retry import Retry
from firsttoken.settings import Retry as Limits
from tests.policies.models import Scripted, make_call, open_model, say, text_of
from tests.policies.targets import attempts, broken, failing, failover, saying, seeded
from tests.virtual_time import run

LIMITS = Limits()
DOWN = UpstreamError("down")


class Highest(Random):
    """Draws the upper end, always."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002
        return b


class Lowest(Random):
    """Draws the lower end, always."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002
        return a


def retry(
    model, limits: Limits = LIMITS, *, rng: Random | None = None, budgets: Budgets | None = None
) -> Retry:
    return Retry(model, limits, budgets or Budgets(limits), rng=rng or Highest())


async def _fails(model, **fields) -> FirstTokenError:
    with pytest.raises(FirstTokenError) as caught:
        await open_model(model, make_call(**fields))
    return caught.value


def _now() -> float:
    return asyncio.get_running_loop().time()


def test_rounds() -> None:
    """Every target is asked in each round, and the attempts say so."""

    async def work() -> None:
        b = Scripted((UpstreamError("x"),), (say("hi"), say("", finish="stop")))
        call = make_call()
        assert await text_of(retry(failover(a=failing(DOWN), b=b)), call) == "hi"
        assert attempts(call) == [
            "first:a:upstream_error",
            "failover:b:upstream_error",
            "retry:a:upstream_error",
            "failover:b:ok",
        ]

    run(work())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_attempts(count: int) -> None:
    """There are at most ``attempts`` rounds; then the error is raised."""

    async def work() -> None:
        model = failing(DOWN)
        assert await _fails(retry(failover(a=model), Limits(attempts=count))) is DOWN
        assert len(model.calls) == count

    run(work())


@pytest.mark.parametrize(
    ("error", "waits"),
    [(DOWN, [0.1, 0.2, 0.4]), (UpstreamRateLimitError("busy"), [2, 4, 5])],
    ids=["transient", "throttled"],
)
def test_backoff(error: FirstTokenError, waits: list[float]) -> None:
    """The longest wait doubles up to the cap; a 429 without a time has a longer base."""

    async def work() -> None:
        model = failing(error)
        await _fails(retry(failover(a=model), Limits(attempts=4)))
        assert [b - a for a, b in zip(model.times, model.times[1:], strict=False)] == pytest.approx(waits)

    run(work())


def test_full_jitter() -> None:
    """A wait is anything from nothing to its longest."""

    async def work() -> None:
        model = failing(DOWN)
        await _fails(retry(failover(a=model), rng=Lowest()))
        assert model.times == [0, 0, 0]
        waits = []
        for seed in range(200):
            limits = Limits(attempts=2)
            start = _now()
            await _fails(retry(failover(a=failing(DOWN)), limits, rng=Random(seed)))
            waits.append(_now() - start)
        assert min(waits) < 0.01
        assert max(waits) > 0.09

    run(work())


@pytest.mark.parametrize("kind", [UpstreamRateLimitError, UpstreamError, UnavailableError])
@pytest.mark.parametrize("rng", [Lowest(), Highest()], ids=["lowest", "highest"])
def test_retry_after(kind: type[UpstreamError], rng: Random) -> None:
    """A time that the target (or a gate) named is waited out: never less, and little more."""

    async def work() -> None:
        model = Scripted((kind("busy", retry_after=3.0),), (say("hi"), say("", finish="stop")))
        assert await text_of(retry(failover(a=model), rng=rng), make_call()) == "hi"
        assert 3.0 <= _now() <= 3.3

    run(work())


@pytest.mark.parametrize(("asked", "deadline"), [(5.1, 60), (3600, 7200), (4, 4.05), (4, 3)])
def test_retry_after_too_long(asked: float, deadline: float) -> None:
    """What asks for more than the cap, or than the call has left, is not waited for."""

    async def work() -> None:
        error = UpstreamRateLimitError("busy", retry_after=asked)
        model = failing(error)
        assert await _fails(retry(failover(a=model)), deadline=deadline) is error
        assert (len(model.calls), _now()) == (1, 0)

    run(work())


def test_deadline() -> None:
    """No wait goes on so long that nothing useful is left of the call."""

    async def work() -> None:
        model = failing(DOWN)
        await _fails(retry(failover(a=model)), deadline=0.35)
        assert model.times == pytest.approx([0, 0.1])

    run(work())


@pytest.mark.parametrize(
    "error",
    [
        RequestError("x"),
        UpstreamRefusedError("x"),
        UpstreamAuthError("x"),
        DeadlineError("x"),
        UnavailableError("full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_not_retried(error: FirstTokenError) -> None:
    """What would fail again, what is too late, and a gate that names no time are raised at once."""

    async def work() -> None:
        model = failing(error)
        raised = await _fails(retry(model))
        assert type(raised) is type(error)
        assert len(model.calls) == 1

    run(work())


def test_cause_is_kept() -> None:
    """What a target said is not hidden by the gate that closed because of it."""

    async def work() -> None:
        model = failing(DOWN, UnavailableError("open", retry_after=60))
        assert await _fails(retry(failover(a=model))) is DOWN
        assert len(model.calls) == 2

    run(work())


def test_middle() -> None:
    """What has begun is not tried again."""

    async def work() -> None:
        model = Scripted((say("x"), UpstreamError("cut")))
        with pytest.raises(UpstreamError):
            await text_of(retry(failover(a=model)), make_call())
        assert len(model.calls) == 1

    run(work())


def test_tried_is_new() -> None:
    """A new round may call every target again; the caller's own set stays as it was."""

    async def work() -> None:
        call = make_call()
        with pytest.raises(UpstreamError):
            await open_model(retry(failover(a=failing(DOWN))), call)
        assert len(call.record.attempts) == 3
        assert (call.tried, call.kind) == ({"a"}, "first")

    run(work())


@pytest.mark.parametrize("after", [0.5, 1.05])
def test_cancelled(after: float) -> None:
    """Cancelled in a call or in a wait, it ends there."""

    async def work() -> None:
        model = Scripted((1.0, UpstreamError("x")))
        task = asyncio.create_task(open_model(retry(failover(a=model)), make_call()))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (model.active, len(model.calls)) == (0, 1)

    run(work())


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c")])
def test_amplification(names: tuple[str, ...]) -> None:
    """In a steady outage a target gets at most 1.1 calls for each of the clients'."""

    async def work() -> None:
        models = {name: broken() for name in names}
        route = retry(failover(**models), rng=seeded())
        for _ in range(1000):
            await _fails(route)
        assert max(len(model.calls) for model in models.values()) <= 1100

    run(work())


def test_amplification_of_partial_outage() -> None:
    """While half of the calls fail, retries stay within what the successes pay for."""

    async def work() -> None:
        rng = seeded()
        fine = (say("hi", finish="stop"),)
        model = Scripted(lambda _call: fine if rng.random() < 0.5 else (UpstreamError("x"),))
        route = retry(failover(a=model), rng=rng)
        for _ in range(1000):
            try:
                await text_of(route, make_call())
            except UpstreamError:
                continue
        assert len(model.calls) <= 1000 * 1.1

    run(work())


def test_budgets() -> None:
    """A budget is a target's own: capacity, one a retry, a tenth back for a success, never above full."""
    budgets = Budgets(Limits(budget=2, refill=0.1))
    assert [budgets.take("a") for _ in range(3)] == [True, True, False]
    assert budgets.take("b")
    for _ in range(10):
        assert not budgets.take("a")
        budgets.give("a")
    assert [budgets.take("a") for _ in range(2)] == [True, False]
    for _ in range(100):
        budgets.give("a")
    assert [budgets.take("a") for _ in range(3)] == [True, True, False]


def test_bucket() -> None:
    """Tenths add up to a whole token, and what does not fit is lost."""
    bucket = Bucket(1, 0)
    for _ in range(10):
        bucket.give(0.1)
    assert [bucket.take(), bucket.take()] == [True, False]
    bucket.give(99)
    assert bucket.tokens == 1


def test_success_refills() -> None:
    """The target that answered gets its share back, not the one that failed."""

    async def work() -> None:
        limits = Limits(budget=1, refill=0.5)
        budgets = Budgets(limits)
        assert budgets.take("a")
        assert budgets.take("b")
        route = retry(failover(a=failing(DOWN), b=saying("hi")), limits, budgets=budgets)
        for _ in range(2):
            await text_of(route, make_call())
        assert (budgets.take("a"), budgets.take("b")) == (False, True)

    run(work())


def test_gates_are_free() -> None:
    """A round in which nobody was called needs no token."""

    async def work() -> None:
        gate = UnavailableError("open", retry_after=1)
        limits = replace(LIMITS, budget=0)
        # Not measured, so that no attempt is recorded: a gate stands before what is.
        model = failing(gate)
        await _fails(retry(model, limits))
        assert len(model.calls) == 3

    run(work())
