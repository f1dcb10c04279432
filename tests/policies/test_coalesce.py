"""Identical calls in flight: who shares, what each one gets, and what is left when they leave."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from policies.models import END, HELLO, Scripted, collect, make_call, say, text_of
from virtual_time import run

from firsttoken.chat import ReasoningWish, Tool
from firsttoken.errors import DeadlineError, UpstreamError, UpstreamTimeoutError
from firsttoken.model import Call, Chunk, Source
from firsttoken.policies.coalesce import Coalesced
from firsttoken.settings import Coalesce
from firsttoken.telemetry.record import Attempt

SLOW = (*[step for number in range(8) for step in (1.0, say(f"{number} "))], END)
WHOLE = "0 1 2 3 4 5 6 7 "


def shared(model: Any, mode: str = "on", **settings: Any) -> Coalesced:
    return Coalesced(model, Coalesce(mode=mode, **settings))


def change(call: Call, **fields: Any) -> Call:
    for name, value in fields.items():
        setattr(call, name, value)
    return call


async def started(*works: Any, turns: int = 3) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.ensure_future(work) for work in works]
    for _ in range(turns):
        await asyncio.sleep(0)
    return tasks


def test_a_thousand_identical_calls_are_one_upstream() -> None:
    """However many ask the same at a time, the target is asked once, and each gets the whole answer."""

    async def work() -> None:
        model = Scripted(SLOW)
        policy = shared(model)
        texts = await asyncio.gather(*[text_of(policy, make_call()) for _ in range(1000)])
        assert texts == [WHOLE] * 1000
        assert len(model.calls) == 1
        assert not policy._answers

    run(work())


def test_a_later_listener_gets_all_from_the_first_chunk_on() -> None:
    """Who comes in the middle is told what was said, at once, and follows from there."""

    async def work() -> None:
        model = Scripted(SLOW)
        policy = shared(model)
        (first,) = await started(text_of(policy, make_call()))
        await asyncio.sleep(4.5)
        now = asyncio.get_running_loop().time
        arrived = [now() async for _ in policy.stream(make_call())]
        assert arrived == [4.5] * 4 + [5.0, 6.0, 7.0, 8.0, 8.0]
        assert await first == WHOLE
        assert len(model.calls) == 1

    run(work())


def test_the_first_client_leaving_harms_nobody() -> None:
    """The upstream call belongs to no client: the first one is cancelled at chunk 3, and all others go on."""

    async def work() -> None:
        model = Scripted(SLOW)
        policy = shared(model)
        first, *others = await started(*[text_of(policy, make_call()) for _ in range(50)])
        await asyncio.sleep(3.5)
        first.cancel()
        assert await asyncio.gather(*others) == [WHOLE] * 49
        assert first.cancelled()
        assert (len(model.calls), model.closed) == (1, 0)

    run(work())


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_the_upstream_stops_when_the_last_one_leaves(how: str) -> None:
    """With nobody left the work stops before the last listener's stream is closed, and nothing remains."""

    async def work() -> None:
        model = Scripted(SLOW)
        policy = shared(model)
        if how == "closed":
            streams = [policy.stream(make_call()) for _ in range(3)]
            for stream in streams:
                assert (await anext(stream)).text == "0 "
            for stream in streams:
                assert model.closed == 0
                await stream.aclose()
        else:
            tasks = await started(*[text_of(policy, make_call()) for _ in range(3)])
            await asyncio.sleep(2.5)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        assert (len(model.calls), model.closed, model.active) == (1, 1, 0)
        assert not policy._answers
        assert await text_of(policy, make_call()) == WHOLE
        assert len(model.calls) == 2

    run(work())


ANSWERED_APART: list[dict[str, Any]] = [
    {"tenant": "other"},
    {"source": Source("anthropic", b"{}")},
    {"source": Source("openai_chat", b'{"n":2}', ("n",))},
    {"headers": {"x-firsttoken-simulate": "seed=2"}},
    {"headers": {"x-forwarded": "1"}},
]
ASKED_APART: list[dict[str, Any]] = [
    {"text": "Ho"},
    {"stream": False},
    {"include_usage": True},
    {"temperature": 0.5},
    {"seed": 2},
    {"max_tokens": 5},
    {"tools": (Tool("f"),)},
    {"reasoning": ReasoningWish("low")},
]


@pytest.mark.parametrize("other", [*ANSWERED_APART, *ASKED_APART], ids=range(13))
def test_what_differs_in_anything_never_shares(other: dict[str, Any]) -> None:
    """Another tenant, format, parameter, way of delivery or forwarded header is another call."""

    async def work() -> None:
        model = Scripted(SLOW)
        policy = Coalesced(model, Coalesce(mode="on"), headers=("x-forwarded",))
        call = make_call(**other) if other in ASKED_APART else change(make_call(), **other)
        await asyncio.gather(collect(policy, make_call()), collect(policy, call))
        assert len(model.calls) == 2

    run(work())


@pytest.mark.parametrize(
    ("mode", "fields", "calls"),
    [
        ("auto", {}, 2),
        ("auto", {"temperature": 0.7}, 2),
        ("auto", {"temperature": 0.0}, 1),
        ("auto", {"temperature": -0.0}, 1),
        ("auto", {"seed": 7}, 1),
        ("auto", {"seed": 0}, 1),
        ("on", {"temperature": 0.7}, 1),
        ("off", {"temperature": 0.0}, 2),
    ],
)
def test_who_may_share(mode: str, fields: dict[str, Any], calls: int) -> None:
    """Unless told otherwise only calls that ask for the same words each time share an answer."""

    async def work() -> None:
        model = Scripted(SLOW)
        policy = shared(model, mode)
        await asyncio.gather(*[collect(policy, make_call(**fields)) for _ in range(2)])
        assert len(model.calls) == calls

    run(work())


def test_what_cannot_be_read_is_not_shared() -> None:
    """A field that the codec names and that is not found in the body keeps a call to itself."""

    async def work() -> None:
        model = Scripted(SLOW)
        policy = shared(model)
        source = Source("gemini", b'{"contents":[]}', ("functionResponse.parts",))
        calls = [change(make_call(), source=source) for _ in range(2)]
        await asyncio.gather(*[collect(policy, call) for call in calls])
        assert len(model.calls) == 2

    run(work())


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("error", [UpstreamTimeoutError("Too slow."), ZeroDivisionError("a defect")])
def test_an_error_goes_to_all_and_is_not_kept(error: Exception, at: int) -> None:
    """All who listen get what was said and then the error; the next call is a new one."""

    async def hear(policy: Coalesced, said: list[str]) -> None:
        async for chunk in policy.stream(make_call()):
            said.append(chunk.text)  # noqa: PERF401 - what came before the error counts

    async def listen(policy: Coalesced) -> str:
        said: list[str] = []
        with pytest.raises(type(error)) as caught:
            await hear(policy, said)
        assert len(caught.traceback) < 20
        return "".join(said)

    async def work() -> None:
        model = Scripted((*SLOW[: 2 * at], 1.0, error), SLOW)
        policy = shared(model)
        said = await asyncio.gather(*[listen(policy) for _ in range(100)])
        assert said == [WHOLE[: 2 * at]] * 100
        assert len(model.calls) == 1
        assert await text_of(policy, make_call()) == WHOLE

    run(work())


def test_no_error_is_left_unretrieved() -> None:
    """An upstream call that fails after everybody left, or while they leave, makes no noise."""

    class Stubborn:
        async def stream(self, _: Call) -> AsyncGenerator[Chunk]:
            yield say("one")
            try:
                await asyncio.sleep(60)
            finally:
                raise UpstreamError("It broke while it was stopped.")

    async def work() -> None:
        noise: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
        policy = shared(Stubborn())
        stream = policy.stream(make_call())
        await anext(stream)
        await stream.aclose()
        del stream
        gc.collect()
        await asyncio.sleep(1)
        assert not noise
        assert not policy._answers

    run(work())


def test_the_entry_is_gone_when_the_answer_is_complete() -> None:
    """Sharing is for calls in flight: one that comes in the very turn of the end is a new call."""

    async def work() -> None:
        model = Scripted(HELLO)
        policy = shared(model)
        for number in range(1, 4):
            assert await text_of(policy, make_call()) == "Hello"
            assert len(model.calls) == number

    run(work())


def test_a_slow_listener_holds_nobody_up() -> None:
    """Each listener reads at its own pace, the upstream at that of the fastest, while memory lasts."""

    async def slowly(policy: Coalesced) -> tuple[str, float]:
        said = ""
        async for chunk in policy.stream(make_call()):
            said += chunk.text
            await asyncio.sleep(10)
        return said, asyncio.get_running_loop().time()

    async def work() -> None:
        model = Scripted(SLOW)
        policy = shared(model)
        slow, fast = await started(slowly(policy), text_of(policy, make_call()))
        assert await fast == WHOLE
        assert asyncio.get_running_loop().time() == 8
        assert model.active == 0
        said, finished = await slow
        assert (said, finished) == (WHOLE, 91)

    run(work())


def test_memory_is_bounded() -> None:
    """Over the limit nobody joins, what all have read is dropped, the upstream waits for the slowest."""

    async def read(policy: Coalesced, pause: float, seen: list[int]) -> int:
        count = 0
        async for chunk in policy.stream(make_call()):
            count += len(chunk.text)
            seen.append(max([answer.chunks._held for answer in policy._answers.values()], default=0))
            await asyncio.sleep(pause)
        return count

    async def work() -> None:
        model = Scripted([*[say("x" * 100)] * 100, END])
        policy = shared(model, max_bytes=1024)
        seen: list[int] = []
        readers = await started(read(policy, 0.1, seen), read(policy, 1.0, seen))
        await asyncio.sleep(20)
        assert model.active == 1
        (late,) = await started(read(policy, 0, seen))
        assert len(model.calls) == 2
        assert await asyncio.gather(*readers, late) == [10_000] * 3
        assert max(seen) <= 1024 + 100

    run(work())


def test_a_reader_that_leaves_makes_room() -> None:
    """A producer that waits for the slowest goes on when that one leaves."""

    async def work() -> None:
        model = Scripted([say("x" * 600), 0.5, *[say("x" * 600)] * 4, END])
        policy = shared(model, max_bytes=1024)
        stuck = policy.stream(make_call())
        await anext(stuck)
        (other,) = await started(text_of(policy, make_call()))
        await asyncio.sleep(1)
        assert not other.done()
        await stuck.aclose()
        assert len(await other) == 3000
        assert len(model.calls) == 1

    run(work())


def test_records_say_whose_answer_it_was() -> None:
    """The first record holds what the policies wrote; the others a copy, marked as shared."""

    async def work() -> None:
        def script(call: Call) -> Any:
            call.record.attempts.append(Attempt(target="a/m"))
            call.record.target = "a/m"
            call.record.notes["region"] = "north"
            return SLOW

        policy = shared(Scripted(script))
        first, joined = make_call(), make_call()
        await started(text_of(policy, first))
        stream = policy.stream(joined)
        await anext(stream)
        assert (joined.record.target, joined.record.coalesced, first.record.coalesced) == ("a/m", True, False)
        first.record.attempts.append(Attempt(target="b/m", kind="resume"))
        first.record.resumed, first.record.rung = 1, "small"
        async for _ in stream:
            pass
        assert [attempt.target for attempt in joined.record.attempts] == ["a/m", "b/m"]
        assert (joined.record.resumed, joined.record.rung) == (1, "small")
        assert joined.record.notes == {"region": "north"}
        assert joined.record.attempts is not first.record.attempts

    run(work())


@pytest.mark.parametrize(("first", "second", "calls"), [(60, 60, 1), (60, 5, 1), (40, 60, 1), (2, 60, 2)])
def test_nobody_is_cut_off_by_the_deadline_of_another(first: float, second: float, calls: int) -> None:
    """A call with far more time than the one under way makes its own; else the later deadline counts."""

    async def work() -> None:
        model = Scripted(SLOW)
        policy = shared(model)
        await started(collect(policy, make_call(deadline=first)))
        await text_of(policy, make_call(deadline=second))
        assert len(model.calls) == calls
        assert model.calls[-1].deadline == max(first, second)

    run(work())


def test_the_deadline_of_a_client_stays_its_own() -> None:
    """What the shared call is given is a copy: the first client's own deadline is not moved."""

    async def work() -> None:
        model = Scripted((1.0, DeadlineError("No time.")))
        policy = shared(model)
        first = make_call(deadline=40)
        results = await asyncio.gather(
            collect(policy, first), collect(policy, make_call(deadline=60)), return_exceptions=True
        )
        assert [type(result) for result in results] == [DeadlineError] * 2
        assert first.deadline == 40

    run(work())


def test_an_answer_does_not_outlive_its_event_loop() -> None:
    """A loop that ends before or after the upstream call began leaves nothing for the next."""
    model = Scripted(SLOW)
    policy = shared(model)

    async def leave(turns: int) -> None:
        await started(text_of(policy, make_call()), turns=turns)

    async def ask() -> str:
        return await text_of(policy, make_call())

    for turns in range(4):
        run(leave(turns))
        assert not policy._answers
    assert run(ask()) == WHOLE
