"""Failover: the next target at once, each at most once a round, and the error that tells the cause."""

import asyncio

import pytest

from firsttoken.errors import (
    FirstTokenError,
    RequestError,
    UnavailableError,
    UnsupportedFieldError,
    UpstreamAuthError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from firsttoken.model import Chunk
from firsttoken.policies.balance import Order
from firsttoken.policies.failover import Failover
from tests.policies.models import Scripted, make_call, open_model, say, text_of
from tests.policies.targets import attempts, failing, failover, saying, target, targets
from tests.virtual_time import run

TOO_LONG = UpstreamRefusedError("too long", code="context_length_exceeded")
FILTERED = UpstreamRefusedError("filtered", code="content_filter")
BLOCKED = (Chunk(model="a"), Chunk(finish="content_filter"))


class Backwards:
    """A balance that turns the order round."""

    def order(self, _call, listed):
        return listed[::-1]


async def _fails(model, call) -> FirstTokenError:
    with pytest.raises(FirstTokenError) as caught:
        await open_model(model, call)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        UpstreamError("x"),
        UpstreamConnectError("x"),
        UpstreamTimeoutError("x"),
        UpstreamRateLimitError("x", retry_after=60),
        UpstreamAuthError("x"),
        UnavailableError("x"),
        UnsupportedFieldError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_next_at_once(error: FirstTokenError) -> None:
    """A target's failure leads to the next target without any wait, and the record tells why."""

    async def work() -> None:
        route = failover(a=failing(error), b=saying("hi"))
        call = make_call()
        assert await text_of(route, call) == "hi"
        assert asyncio.get_running_loop().time() == 0
        assert attempts(call) == [f"first:a:{error.code}", "failover:b:ok"]
        assert call.record.target == "b"

    run(work())


def test_healthy_first() -> None:
    """While the first target answers no other is called."""

    async def work() -> None:
        b = Scripted()
        call = make_call()
        assert await text_of(failover(a=saying("hi"), b=b), call) == "hi"
        assert not b.calls
        assert call.tried == {"a"}

    run(work())


@pytest.mark.parametrize("kind", ["hedge", "retry", "resume", "rung"])
def test_kind(kind: str) -> None:
    """The first attempt is of the call's kind, those after a failure are failovers."""

    async def work() -> None:
        call = make_call()
        call.kind = kind
        await text_of(failover(a=failing(UpstreamError("x")), b=saying("hi")), call)
        assert attempts(call) == [f"{kind}:a:upstream_error", "failover:b:ok"]

    run(work())


def test_balance() -> None:
    """Targets are asked in the order of the balance."""

    async def work() -> None:
        assert await text_of(failover(balance=Backwards(), a=saying("a"), b=saying("b")), make_call()) == "b"

    run(work())


def test_tried() -> None:
    """What this round was sent to already is left out; a target is entered before it is opened."""

    async def work() -> None:
        seen = []
        b = Scripted(lambda call: seen.append(set(call.tried)) or (say("b"), say("", finish="stop")))
        call = make_call()
        call.tried = {"a"}
        assert await text_of(failover(a=saying("a"), b=b), call) == "b"
        assert seen == [{"a", "b"}]
        error = await _fails(failover(a=saying("a"), b=saying("b")), call)
        assert isinstance(error, UnavailableError)

    run(work())


@pytest.mark.parametrize(
    "error", [UpstreamRefusedError("no"), RequestError("no")], ids=["refused", "request"]
)
def test_refused(error: FirstTokenError) -> None:
    """What is the client's fault is said at once: no other target is called."""

    async def work() -> None:
        b = Scripted()
        assert await _fails(failover(a=failing(error), b=b), make_call()) is error
        assert not b.calls

    run(work())


def test_cause() -> None:
    """When all fail the first error of a target that was called is raised; the others are its notes."""

    async def work() -> None:
        cause = UpstreamTimeoutError("slow")
        gate, other = UnavailableError("open"), UpstreamRefusedError("b knows no such model")
        call = make_call()
        error = await _fails(failover(z=failing(gate), a=failing(cause), b=failing(other)), call)
        assert error is cause
        assert error.__notes__ == ["z: open", "b: b knows no such model"]

    run(work())


@pytest.mark.parametrize(("waits", "least"), [((7, 3), 3), ((None, 4), 4), ((None, None), None)])
def test_gates(waits: tuple[float | None, ...], least: float | None) -> None:
    """Where no target was called the shortest wait is told."""

    async def work() -> None:
        a, b = (failing(UnavailableError("open", retry_after=wait)) for wait in waits)
        error = await _fails(failover(a=a, b=b), make_call())
        assert type(error) is UnavailableError
        assert str(error) == "No target of this model can answer now."
        assert error.retry_after == least

    run(work())


def test_unsupported() -> None:
    """A field that no target can honour is a 400; one that a busy target could is not."""

    async def work() -> None:
        field = UnsupportedFieldError("no seed", param="seed")
        assert (
            await _fails(failover(a=failing(field), b=failing(UnsupportedFieldError("no"))), make_call())
            is field
        )
        error = await _fails(failover(a=failing(field), b=failing(UnavailableError("busy"))), make_call())
        assert isinstance(error, UnavailableError)

    run(work())


@pytest.mark.parametrize(
    ("field", "error"), [("context_overflow", TOO_LONG), ("content_filter", FILTERED)], ids=["long", "filter"]
)
def test_instead(field: str, error: FirstTokenError) -> None:
    """Too long a prompt, and a filtered one, go to the targets configured for that, until one answers."""

    async def work() -> None:
        b = Scripted()
        special = targets(c=failing(UpstreamRefusedError("no")), d=saying("d"))
        route = Failover(targets(a=failing(error), b=b), Order(), **{field: special})
        call = make_call()
        assert await text_of(route, call) == "d"
        assert not b.calls
        assert [kind.split(":")[:2] for kind in attempts(call)] == [
            ["first", "a"],
            ["failover", "c"],
            ["failover", "d"],
        ]

    run(work())


@pytest.mark.parametrize("error", [TOO_LONG, FILTERED], ids=["long", "filter"])
def test_instead_fails(error: FirstTokenError) -> None:
    """Without such targets, and when they fail, the first target's own words are passed on."""

    async def work() -> None:
        plain = failover(a=failing(error))
        assert await _fails(plain, make_call()) is error
        special = targets(c=failing(UpstreamError("down")))
        route = Failover(targets(a=failing(error)), Order(), context_overflow=special, content_filter=special)
        assert await _fails(route, make_call()) is error

    run(work())


def test_blocked_answer() -> None:
    """An answer that is nothing but blocked is replaced; its upstream is closed."""

    async def work() -> None:
        a = Scripted(BLOCKED)
        route = Failover(targets(a=a), Order(), content_filter=targets(b=saying("b")))
        call = make_call()
        assert await text_of(route, call) == "b"
        assert attempts(call) == ["first:a:left", "failover:b:ok"]
        assert (a.active, call.record.target) == (0, "b")

    run(work())


@pytest.mark.parametrize("special", [[], [("b", UpstreamError("down"))]], ids=["none", "fails"])
def test_blocked_stays(special: list[tuple[str, FirstTokenError]]) -> None:
    """Where nobody gives a better one the blocked answer is passed on as it is."""

    async def work() -> None:
        others = [target(name, failing(error)) for name, error in special]
        route = Failover(targets(a=Scripted(BLOCKED)), Order(), content_filter=others)
        call = make_call()
        assert [chunk.finish async for chunk in route.stream(call)] == [None, "content_filter"]
        assert call.record.target == "a"

    run(work())


def test_blocked_after_text() -> None:
    """An answer that was blocked after its first words has begun, and stays."""

    async def work() -> None:
        said = (say("Well", finish="content_filter"),)
        route = Failover(targets(a=Scripted(said)), Order(), content_filter=targets(b=saying("b")))
        assert await text_of(route, make_call()) == "Well"

    run(work())


def test_middle() -> None:
    """An answer that breaks after its first content goes to no other target."""

    async def work() -> None:
        b = Scripted()
        call = make_call()
        with pytest.raises(UpstreamError):
            await text_of(failover(a=Scripted((say("x"), UpstreamError("cut"))), b=b), call)
        assert not b.calls
        assert attempts(call) == ["first:a:upstream_error"]

    run(work())


@pytest.mark.parametrize("after", [0.5, 1.5, 2.5])
def test_cancelled(after: float) -> None:
    """Cancelled while any target is awaited, it leaves nothing running."""

    async def work() -> None:
        a = Scripted((1.0, UpstreamError("x")))
        b = Scripted((1.0, *BLOCKED, 1.0))
        c = Scripted((1.0, say("c")))
        route = Failover(targets(a=a, b=b), Order(), content_filter=targets(c=c))
        task = asyncio.create_task(open_model(route, make_call()))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (a.active, b.active, c.active) == (0, 0, 0)

    run(work())
