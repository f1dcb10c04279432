"""Timeouts: until the first content, for a whole answer, and the gap that is handed on."""

import asyncio

import pytest

from firsttoken.errors import UpstreamTimeoutError
from firsttoken.model import Chunk
from firsttoken.policies.timeouts import Timeouts
from firsttoken.settings import Timeouts as Limits
from tests.policies.models import END, Scripted, collect, make_call, open_model, say, text_of
from tests.virtual_time import run

LIMITS = Limits(first_chunk=3, whole=20)


def _now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(("stream", "limit", "what"), [(True, 3, "first chunk"), (False, 20, "whole answer")])
def test_too_late(stream: bool, limit: float, what: str) -> None:
    """A streamed answer must begin, and another one be there, within its limit; a greeting does not count."""

    async def work() -> None:
        model = Scripted((Chunk(model="m"), limit + 0.1, say("x"), END))
        with pytest.raises(UpstreamTimeoutError, match=what):
            await open_model(Timeouts(model, LIMITS, 5), make_call(stream=stream))
        assert (_now(), model.active, asyncio.current_task().cancelling()) == (limit, 0, 0)

    run(work())


@pytest.mark.parametrize(("stream", "limit"), [(True, 3), (False, 20)])
def test_in_time(stream: bool, limit: float) -> None:
    """What comes in time is not touched, and the limit is over then."""

    async def work() -> None:
        model = Scripted((limit - 0.1, say("x"), 4.0, say("y"), 4.0, END))
        assert await text_of(Timeouts(model, LIMITS, 5), make_call(stream=stream)) == "xy"

    run(work())


def test_gap() -> None:
    """Once an answer has begun, silence ends it."""

    async def work() -> None:
        model = Scripted((say("x"), 5.1, END))
        with pytest.raises(UpstreamTimeoutError, match="silent"):
            await collect(Timeouts(model, LIMITS, 5), make_call())

    run(work())


@pytest.mark.parametrize("after", [1.0, 3.0])
def test_cancelled(after: float) -> None:
    """Who is cancelled is not told of a limit, not even at its moment."""

    async def work() -> None:
        model = Scripted((60.0,))
        task = asyncio.create_task(open_model(Timeouts(model, LIMITS, 5), make_call()))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.active == 0

    run(work())
