"""A call becomes a job where it asks to, or where no target can answer it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace
from policies.models import END, HELLO, Scripted, collect, make_call, say
from virtual_time import run

from firsttoken.errors import (
    AuthenticationError,
    DeadlineError,
    DeferredError,
    FirstTokenError,
    NotFoundError,
    QueueError,
    RequestError,
    StoreError,
    UnavailableError,
    UpstreamAuthError,
    UpstreamClosedError,
    UpstreamConnectError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
)
from firsttoken.model import Call, Later
from firsttoken.policies.defer import RESERVE, Deferred

ASKED = Later(asked=True)
WAITS = Later(asked=True, wait=2.0)
NOT_ASKED = Later()


class Queue:
    """Takes calls."""

    def __init__(self, error: FirstTokenError | None = None) -> None:
        self.error = error
        self.calls: list[tuple[Call, Later]] = []

    async def submit(self, call: Call, later: Later) -> str:
        if self.error is not None:
            raise self.error
        self.calls.append((call, later))
        return "job_1"


def ask(
    script: Any, later: Later | None, *, outage: bool = False, error: Any = None, deadline: float = 60.0
) -> tuple[Any, Queue, Scripted, float, Call]:
    """Ask a deferred model; return the text or the error, what was queued, the model, the time, the call."""
    queue, model = Queue(error), Scripted(script)

    async def test() -> tuple[Any, float, Call]:
        call = replace(make_call(deadline=deadline), later=later)
        now = asyncio.get_running_loop().time
        try:
            chunks = await collect(Deferred(model, queue.submit, outage=outage), call)
        except FirstTokenError as caught:
            return caught, now(), call
        return "".join([chunk.text for chunk in chunks]), now(), call

    said, at, call = run(test())
    assert model.active == 0
    return said, queue, model, at, call


@pytest.mark.parametrize("later", [None, NOT_ASKED, WAITS])
@pytest.mark.parametrize("outage", [True, False])
def test_an_answer_is_an_answer(later: Later | None, outage: bool) -> None:
    """Who gets one gets no job."""
    said, queue, _, _, call = ask(HELLO, later, outage=outage)
    assert (said, queue.calls, call.record.job) == ("Hello", [], "")


@pytest.mark.parametrize("wait", [None, 0.0])
def test_who_asks_for_a_job_gets_one_at_once(wait: float | None) -> None:
    """No target is called."""
    later = Later(asked=True, wait=wait)
    said, queue, model, _, call = ask(HELLO, later)
    assert isinstance(said, DeferredError)
    assert (said.id, call.record.job) == ("job_1", "job_1")
    assert queue.calls == [(call, later)]
    assert model.calls == []


def test_who_waits_gets_a_job_after_that_time() -> None:
    """The call to the target is ended first."""
    said, queue, model, at, _ = ask([10.0, *HELLO], WAITS)
    assert isinstance(said, DeferredError)
    assert (at, model.closed, len(queue.calls)) == (2.0, 1, 1)


def test_what_has_begun_never_becomes_a_job() -> None:
    """An answer that takes long, or breaks off, after its first content."""
    assert ask([1.0, say("a"), 10.0, say("b"), END], WAITS)[0] == "ab"
    said, queue, *_ = ask([say("a"), UpstreamClosedError("cut")], WAITS, outage=True)
    assert isinstance(said, UpstreamClosedError)
    assert queue.calls == []


OUTAGES = [
    UpstreamConnectError("x"),
    UpstreamRateLimitError("x"),
    UnavailableError("x"),
    DeadlineError("x"),
]
OTHERS = [
    RequestError("x"),
    NotFoundError("x"),
    AuthenticationError("x"),
    UpstreamRefusedError("x"),
    UpstreamAuthError("x"),
    FirstTokenError("x"),
]


@pytest.mark.parametrize("error", OUTAGES, ids=repr)
@pytest.mark.parametrize(("later", "outage"), [(WAITS, False), (WAITS, True), (NOT_ASKED, True)])
def test_what_a_later_try_may_mend_becomes_a_job(error: Any, later: Later, outage: bool) -> None:
    """For those who ask, and for all where the configuration says so."""
    said, queue, *_ = ask([error], later, outage=outage)
    assert isinstance(said, DeferredError)
    assert said.__cause__ is error
    assert len(queue.calls) == 1


@pytest.mark.parametrize(
    ("errors", "later", "outage"),
    [(OTHERS, WAITS, True), (OTHERS, NOT_ASKED, True), (OUTAGES, NOT_ASKED, False), (OUTAGES, None, True)],
)
def test_what_is_no_outage_is_raised(errors: list[Any], later: Later | None, outage: bool) -> None:
    """So is every error of a call that may not become a job."""
    for error in errors:
        said, queue, *_ = ask([error], later, outage=outage)
        assert said is error
        assert queue.calls == []


@pytest.mark.parametrize("lost", [StoreError("down"), QueueError("down")])
@pytest.mark.parametrize(("later", "outage"), [(ASKED, False), (WAITS, False), (NOT_ASKED, True)])
def test_a_call_that_cannot_be_queued_fails(lost: Any, later: Later, outage: bool) -> None:
    """Who asked hears why there is no job, the others why there is no answer."""
    error = UpstreamConnectError("no")
    said, *_ = ask([error], later, outage=outage, error=lost)
    assert said is (lost if later.asked else error)


@pytest.mark.parametrize(("deadline", "kept"), [(60.0, RESERVE), (4.0, 1.0)])
def test_time_is_kept_to_make_a_job_of_it(deadline: float, kept: float) -> None:
    """Before the call's own deadline ends everything."""
    said, queue, _, at, _ = ask([100.0], NOT_ASKED, outage=True, deadline=deadline)
    assert isinstance(said, DeferredError)
    assert (at, len(queue.calls)) == (deadline - kept, 1)


def test_who_leaves_gets_no_job() -> None:
    """A client that goes away ends the call, and nothing is queued."""

    async def test() -> None:
        queue, model = Queue(), Scripted([10.0, *HELLO])
        call = replace(make_call(), later=WAITS)
        task = asyncio.create_task(collect(Deferred(model, queue.submit, outage=True), call))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (queue.calls, model.closed) == ([], 1)

    run(test())


def test_a_call_that_may_not_become_a_job_is_not_touched() -> None:
    """It gets the very stream of the model behind: no chunk passes through anything more."""

    class Bare:
        def stream(self, call: Call) -> Any:
            return call

    deferred = Deferred(Bare(), Queue().submit, outage=False)  # type: ignore[arg-type]

    async def test() -> None:
        for later in (None, NOT_ASKED):
            call = replace(make_call(), later=later)
            assert deferred.stream(call) is call

    run(test())
