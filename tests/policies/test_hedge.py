"""Hedging: a second call when the first is late, within a budget; the first content wins."""

import asyncio
from collections import Counter

import pytest

from firsttoken.errors import FirstTokenError, UnavailableError, UpstreamError
from firsttoken.model import Source
from firsttoken.policies.balance import Order
from firsttoken.policies.failover import Failover
from firsttoken.policies.hedge import Hedge
from firsttoken.settings import Breaker
from firsttoken.settings import Hedge as Limits
from tests.policies.models import Scripted, make_call, open_model, say, text_of
from tests.policies.targets import attempts, failing, learned, saying, targets
from tests.virtual_time import run

NEVER = 1000.0
LATE = 0.8
"""The P95 of a target that has `learned`."""
SLOW = 3.2
"""When its breaker calls it slow."""


def hedge(*, calm=True, tokens: float = 5.0, late: float | None = LATE, limits=None, **models) -> Hedge:
    """A hedge over targets named like the arguments."""
    listed = targets(**models)
    for target in listed:
        if late is not None:
            learned(target, late)
    by_name = {target.name: target for target in listed}
    made = Hedge(Failover(listed, Order()), limits or Limits(), by_name, Breaker(), calm=lambda: calm)
    made.budget.give(tokens)
    return made


async def _fails(model, call) -> FirstTokenError:
    with pytest.raises(FirstTokenError) as caught:
        await open_model(model, call)
    return caught.value


def _now() -> float:
    return asyncio.get_running_loop().time()


def _idle(*models: Scripted) -> bool:
    """Whether nothing is left running: no call to a model, and no task but the test's."""
    return not any(model.active for model in models) and len(asyncio.all_tasks()) == 1


def test_in_time() -> None:
    """A call that begins in time is not doubled, and runs in no task of its own."""

    async def work() -> None:
        tasks = []
        a = Scripted(lambda _call: tasks.append(asyncio.current_task()) or (LATE - 0.01, say("a")))
        b = Scripted()
        await open_model(hedge(a=a, b=b), make_call())
        assert tasks == [asyncio.current_task()]
        assert not b.calls

    run(work())


def test_second_wins() -> None:
    """A call later than its target's P95 is doubled; the loser is closed before the answer goes on."""

    async def work() -> None:
        a, b = saying("a", NEVER), saying("b", 0.1)
        model, call = hedge(a=a, b=b), make_call()
        opened = await open_model(model, call)
        assert _now() == pytest.approx(LATE + 0.1)
        assert (a.active, asyncio.current_task().cancelling()) == (0, 0)
        assert "".join([chunk.text async for chunk in opened.chunks()]) == "b"
        assert attempts(call) == ["first:a:left", "hedge:b:ok"]
        assert (call.record.target, call.tried) == ("b", {"a", "b"})
        assert _idle(a, b)

    run(work())


def test_first_wins() -> None:
    """The first call may still win; then the second is closed."""

    async def work() -> None:
        a, b = saying("a", 1.0), saying("b", NEVER)
        call = make_call()
        assert await text_of(hedge(a=a, b=b), call) == "a"
        assert _now() == pytest.approx(1.0)
        assert attempts(call) == ["first:a:ok", "hedge:b:left"]
        assert call.record.target == "a"
        assert _idle(a, b)

    run(work())


@pytest.mark.parametrize("after", [0.2, 0.2 - 1e-12, 0.2 + 1e-12])
def test_both(after: float) -> None:
    """Where both begin at the same moment one of them answers, and the other is closed."""

    async def work() -> None:
        a, b = saying("a", LATE + after), saying("b", 0.2)
        call = make_call()
        text = await text_of(hedge(a=a, b=b), call)
        assert call.record.target == text
        assert Counter(kind.split(":")[2] for kind in attempts(call)) == {"ok": 1, "left": 1}
        assert (asyncio.current_task().cancelling(), _idle(a, b)) == (0, True)

    run(work())


@pytest.mark.parametrize(
    ("learned_late", "begins"),
    [(0.2, 0.5), (0.8, 0.8), (1.9, 1.9), (9.0, 9.0), (20.0, 10.0), (None, 10.0)],
)
def test_delay(learned_late: float | None, begins: float) -> None:
    """Late is the learned quantile, at least the floor, at most what the breaker calls slow."""

    async def work() -> None:
        b = saying("b")
        await open_model(hedge(a=saying("a", NEVER), b=b, late=learned_late), make_call())
        assert b.times == pytest.approx([begins])

    run(work())


@pytest.mark.parametrize("why", ["calm", "budget"])
def test_held_back(why: str) -> None:
    """While a breaker is open, or without budget, only a call that is slow to its breaker is doubled."""

    async def work() -> None:
        b = saying("b")
        model = hedge(a=saying("a", NEVER), b=b, calm=why != "calm", tokens=0 if why == "budget" else 5)
        await open_model(model, make_call())
        assert b.times == pytest.approx([SLOW])
        assert model.budget.tokens == pytest.approx(0.05 if why == "budget" else 5.05)

    run(work())


def test_new_target() -> None:
    """After a failover the delay counts from the call to the new target, and is that target's."""

    async def work() -> None:
        a, b = Scripted((0.7, UpstreamError("x"))), saying("b", NEVER)
        c = saying("c")
        call = make_call()
        assert await text_of(hedge(a=a, b=b, c=c), call) == "c"
        assert c.times == pytest.approx([0.7 + LATE])
        assert attempts(call) == ["first:a:upstream_error", "failover:b:left", "hedge:c:ok"]

    run(work())


def test_waiting_in_a_gate() -> None:
    """A call that no target has got yet, as in a queue, is late like one to the preferred target."""

    async def work() -> None:
        b = saying("b")
        listed = targets(a=Scripted(), b=b)
        learned(listed[0], LATE)

        class Queue:
            async def stream(self, call):
                if call.kind == "first":
                    await asyncio.sleep(NEVER)
                async for chunk in listed[1].stream(call):
                    yield chunk

        model = Hedge(Queue(), Limits(), {t.name: t for t in listed}, Breaker(), calm=lambda: True)
        model.budget.give(1)
        assert await text_of(model, make_call()) == "b"
        assert b.times == pytest.approx([LATE])

    run(work())


@pytest.mark.parametrize("which", ["whole", "unknown", "single"])
def test_not_hedged(which: str) -> None:
    """No second call for one that is not streamed, has fields of one format only, or has no other target."""

    async def work() -> None:
        a, b = saying("a", 100.0), saying("b")
        call = make_call(stream=which != "whole", deadline=NEVER)
        if which == "unknown":
            call.source = Source("openai_chat", b"{}", unknown=("x",))
        model = hedge(a=a) if which == "single" else hedge(a=a, b=b)
        assert await text_of(model, call) == "a"
        assert not b.calls

    run(work())


def test_first_fails_alone() -> None:
    """What fails before it is late is not hedged: that is a failover's and a retry's work."""

    async def work() -> None:
        error = UpstreamError("x")
        a, b = failing(error), failing(UpstreamError("y"))
        assert await _fails(hedge(a=a, b=b), make_call()) is error
        assert (len(a.calls), len(b.calls), _idle(a, b)) == (1, 1, True)

    run(work())


@pytest.mark.parametrize(("first", "second", "text"), [(1.0, 5.0, "b"), (5.0, 0.1, "a")])
def test_one_fails(first: float, second: float, text: str) -> None:
    """When one of the two fails the other one is waited for."""

    async def work() -> None:
        error = UpstreamError("x")
        a = Scripted((first, error) if text == "b" else (first, say("a", finish="stop")))
        b = Scripted((second, error) if text == "a" else (second, say("b", finish="stop")))
        assert await text_of(hedge(a=a, b=b), make_call()) == text
        assert _now() == pytest.approx(first if text == "a" else LATE + second)
        assert _idle(a, b)

    run(work())


@pytest.mark.parametrize("second", [0.1, 5.0], ids=["hedge first", "hedge last"])
def test_both_fail(second: float) -> None:
    """When both fail the first call's error is raised, with the other as a note."""

    async def work() -> None:
        error = UpstreamError("first")
        a, b = Scripted((2.0, error)), Scripted((second, UpstreamError("second")))
        assert await _fails(hedge(a=a, b=b), make_call()) is error
        assert len(a.calls) == len(b.calls) == 1
        assert error.__notes__ == ["hedge: second"]
        assert _idle(a, b)

    run(work())


def test_cause() -> None:
    """Where the first call reached nobody and the second one did, that one's error tells more."""

    async def work() -> None:
        error = UpstreamError("down")
        a, b = Scripted((2.0, UnavailableError("full"))), Scripted((5.0, error))
        assert await _fails(hedge(a=a, b=b), make_call()) is error

    run(work())


def test_gates_refuse_the_second() -> None:
    """Where the second call is refused by a gate the first goes on, and the budget gets its token back."""

    async def work() -> None:
        listed = targets(a=saying("a", 2.0), b=failing(UnavailableError("open")))
        learned(listed[0], LATE)
        by_name = {t.name: t for t in listed}
        model = Hedge(Failover(listed, Order()), Limits(), by_name, Breaker(), calm=lambda: True)
        model.budget.give(2)
        assert await text_of(model, make_call()) == "a"
        assert model.budget.tokens == pytest.approx(2.05)

    run(work())


@pytest.mark.parametrize("after", [0.1, 0.9, 1.0, 1.1, 1.5])
@pytest.mark.parametrize("fails", [False, True], ids=["first waits", "first failed"])
def test_cancelled(after: float, fails: bool) -> None:
    """Cancelled from outside at any moment, both calls end, and so does the caller."""

    async def work() -> None:
        a = Scripted((1.0, UpstreamError("x")) if fails else (NEVER, say("a")))
        b = saying("b", NEVER)
        task = asyncio.create_task(open_model(hedge(a=a, b=b), make_call()))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert _idle(a, b)

    run(work())


class Lingering(Scripted):
    """A model that takes a second to be closed."""

    async def stream(self, call):
        try:
            async for chunk in super().stream(call):
                yield chunk
        finally:
            await asyncio.sleep(1.0)


@pytest.mark.parametrize("winner", ["a", "b"])
@pytest.mark.parametrize("ticks", [0, 1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("lingers", [False, True])
def test_cancelled_in_the_finish(winner: str, ticks: int, lingers: bool) -> None:
    """Cancelled just when one of them wins, or while the other one is closed, nothing is left open."""

    async def work() -> None:
        kind = Lingering if lingers else Scripted
        waits = {"a": NEVER, "b": NEVER} | ({"a": 1.0} if winner == "a" else {"b": 0.2})
        a, b = (kind((waits[name], say(name), NEVER)) for name in "ab")
        task = asyncio.create_task(open_model(hedge(a=a, b=b), make_call()))
        await asyncio.sleep(1.0)
        for _ in range(ticks):
            await asyncio.sleep(0)
        if task.done():
            await (await task).aclose()
        else:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        await asyncio.sleep(2.0)
        assert _idle(a, b)

    run(work())


def test_deadline_of_the_caller() -> None:
    """A limit around it ends both calls, and is told from the race's own cancellation."""

    async def work() -> None:
        a, b = saying("a", NEVER), saying("b", NEVER)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await open_model(hedge(a=a, b=b), make_call())
        assert (asyncio.current_task().cancelling(), _idle(a, b)) == (0, True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout_at(_now() + LATE + 0.2):
                await open_model(hedge(a=saying("a", NEVER), b=Lingering((0.2, say("b")))), make_call())
        assert asyncio.current_task().cancelling() == 0

    run(work())


def test_budget() -> None:
    """Each call earns its share of a hedge, from nothing, and a quiet time saves up no more than ten."""

    async def work() -> None:
        model = hedge(a=saying("a"), b=saying("b"), tokens=0)
        for expected in (0.05, 0.1, 0.15):
            await text_of(model, make_call())
            assert model.budget.tokens == pytest.approx(expected)
        for _ in range(300):
            await text_of(model, make_call())
        assert model.budget.tokens == 10

    run(work())
