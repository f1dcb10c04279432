"""Opened answers: the head, the silence that breaks one, and the ending that everyone is told."""

import asyncio
from contextlib import aclosing
from math import inf

import pytest

from firsttoken.errors import UpstreamError, UpstreamProtocolError, UpstreamTimeoutError
from firsttoken.model import Chunk, ToolCall, Usage
from firsttoken.policies.opened import MAX_HEAD, Ending, Opened, Policy
from tests.policies.models import END, HELLO, Scripted, collect, make_call, open_model, say, text_of
from tests.virtual_time import run


class Telling(Policy):
    """A policy that keeps the ending, and may set the gap."""

    def __init__(self, model, gap: float = inf) -> None:
        self._model = model
        self._gap = gap
        self.endings: list[Ending] = []

    async def open(self, call):
        opened = await open_model(self._model, call)
        opened.gap = min(opened.gap, self._gap)
        opened.ends.append(self.endings.append)
        return opened


def _now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    "content",
    [
        say("x"),
        Chunk(reasoning="x"),
        Chunk(tool_calls=(ToolCall(),)),
        Chunk(refusal="x"),
        Chunk(redacted="x"),
        Chunk(signature="x"),
        Chunk(finish="stop"),
    ],
)
def test_head(content: Chunk) -> None:
    """An answer begins with its first content; a greeting and a count are not it. Nothing gets lost."""

    async def work() -> None:
        greeting = (Chunk(model="m"), Chunk(usage=Usage(input=3)))
        model = Scripted((*greeting, 1.0, content, 5.0, END))
        opened = await open_model(model, make_call())
        assert (_now(), opened.head) == (1.0, [*greeting, content])
        assert [chunk async for chunk in opened.chunks()] == [*greeting, content, END]

    run(work())


@pytest.mark.parametrize(("greetings", "fine"), [(0, False), (MAX_HEAD, True), (MAX_HEAD + 1, False)])
def test_no_answer(greetings: int, fine: bool) -> None:
    """An answer without content, or with too long a prelude, is a broken target's; it is closed."""

    async def work() -> None:
        content = () if greetings == 0 else (say("x"),)
        model = Scripted((*[Chunk(model="m")] * greetings, *content))
        if fine:
            assert await text_of(model, make_call()) == "x"
        else:
            with pytest.raises(UpstreamProtocolError):
                await open_model(model, make_call())
        assert model.active == 0

    run(work())


def test_cancelled_open() -> None:
    """Cancelled before the first content, the model is closed."""

    async def work() -> None:
        model = Scripted((Chunk(model="m"), 9.0))
        task = asyncio.create_task(open_model(Telling(model), make_call()))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.active == 0

    run(work())


def test_ending() -> None:
    """A whole answer ends without an error, with the last counts; the inner policy is told first."""

    async def work() -> None:
        order = []
        inner = Telling(Scripted(HELLO))
        outer = Telling(inner)
        inner.endings, outer.endings = order, order
        assert await text_of(outer, make_call()) == "Hello"
        assert order == [Ending(usage=END.usage, chunks=3)] * 2

    run(work())


def test_broken() -> None:
    """An answer that breaks raises its error, and says so at the end."""

    async def work() -> None:
        cut = UpstreamError("cut")
        told = Telling(Scripted((say("x"), cut)))
        with pytest.raises(UpstreamError):
            await collect(told, make_call())
        assert told.endings == [Ending(error=cut, chunks=1)]

    run(work())


@pytest.mark.parametrize("read", [1, 2])
def test_left(read: int) -> None:
    """A reader who leaves closes the model at once; that is nobody's failure."""

    async def work() -> None:
        model = Scripted(HELLO)
        told = Telling(model)
        async with aclosing(told.stream(make_call())) as chunks:
            for _ in range(read):
                await anext(chunks)
        assert (model.active, model.closed) == (0, 1)
        (ending,) = told.endings
        assert (ending.left, ending.error) == (True, None)

    run(work())


def test_thrown_away() -> None:
    """An answer that nobody reads is closed, told once, with the counts that its head had."""

    async def work() -> None:
        model = Scripted((Chunk(usage=Usage(input=9)), say("x"), END))
        told = Telling(model)
        opened = await open_model(told, make_call())
        await opened.aclose()
        await opened.aclose()
        assert told.endings == [Ending(left=True, usage=Usage(input=9), chunks=2)]
        assert model.active == 0

    run(work())


def test_gap() -> None:
    """Silence longer than the gap ends an answer with a typed error, exactly then."""

    async def work() -> None:
        model = Scripted((say("a"), 4.0, say("b"), 4.9, say("c"), 60.0, END))
        told = Telling(model, gap=5.0)
        with pytest.raises(UpstreamTimeoutError) as caught:
            await collect(told, make_call())
        assert _now() == pytest.approx(13.9)
        assert told.endings[0].error is caught.value
        assert (model.active, asyncio.current_task().cancelling()) == (0, 0)

    run(work())


def test_slow_reader() -> None:
    """A reader may take its time: only the wait for the target counts."""

    async def work() -> None:
        told = Telling(Scripted((say("a"), 1.0, say("b"), 1.0, END)), gap=2.0)
        async for _chunk in told.stream(make_call()):
            await asyncio.sleep(100)
        assert told.endings[0].error is None

    run(work())


def test_cancelled_reader() -> None:
    """Who is cancelled from outside is not told of a gap, not even at the moment of one."""

    async def work() -> None:
        for after in (1.0, 5.0):
            model = Scripted((say("a"), 60.0))
            told = Telling(model, gap=5.0)
            task = asyncio.create_task(collect(told, make_call()))
            await asyncio.sleep(after)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert told.endings == [Ending(left=True, chunks=1)]
            assert model.active == 0

    run(work())


def test_gap_after_an_old_cancellation() -> None:
    """A reader that went on after a cancellation is still told of a gap: the old one is not this one."""

    async def work() -> None:
        async def read() -> None:
            try:
                await asyncio.sleep(9)
            except asyncio.CancelledError:
                with pytest.raises(UpstreamTimeoutError):
                    await collect(Telling(Scripted((say("a"), 60.0)), gap=5.0), make_call())

        task = asyncio.create_task(read())
        await asyncio.sleep(1)
        task.cancel()
        await task
        assert task.cancelling() == 1

    run(work())


def test_gap_and_an_error_at_once() -> None:
    """A model that turns the end of its wait into an error of its own leaves no cancellation behind."""

    class Stubborn:
        async def stream(self, _call):
            yield say("a")
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise UpstreamError("closed") from None

    async def work() -> None:
        with pytest.raises(UpstreamError, match="closed"):
            await collect(Telling(Stubborn(), gap=5.0), make_call())
        assert asyncio.current_task().cancelling() == 0

    run(work())


def test_no_timer() -> None:
    """An answer without a gap may be silent for as long as it likes."""

    async def work() -> None:
        assert await text_of(Telling(Scripted((say("a"), 9999.0, END))), make_call()) == "a"

    run(work())


def test_failing_close() -> None:
    """Everyone is told of the end even where closing the model fails."""

    class Unclosable:
        async def stream(self, _call):
            try:
                yield say("a")
                yield say("b")
            finally:
                raise UpstreamError("cannot close")

    async def work() -> None:
        told = Telling(Unclosable())
        opened: Opened = await open_model(told, make_call())
        with pytest.raises(UpstreamError):
            await opened.aclose()
        assert told.endings == [Ending(left=True, chunks=1)]

    run(work())
