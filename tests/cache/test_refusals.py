"""Refusals that are remembered, and failures that are not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cache.caches import Instance, Scripted, SharedStore, asked
from policies.models import HELLO
from virtual_time import run

from firsttoken.errors import (
    UnavailableError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from firsttoken.model import Call
from firsttoken.telemetry.record import Attempt

REFUSED = UpstreamRefusedError("Too long.", status=400, code="context_length_exceeded", param="messages")
REMEMBERED = [REFUSED, UpstreamRefusedError("No.", status=422), UpstreamRefusedError("Big.", status=413)]
FORGOTTEN = [
    UpstreamError("Down.", status=500),
    UpstreamRateLimitError("Wait."),
    UpstreamTimeoutError("Late."),
    UpstreamRefusedError("No such model.", status=404),
    UnavailableError("Open."),
]


@pytest.mark.parametrize("error", REMEMBERED, ids=repr)
def test_a_refusal_is_remembered(error: UpstreamRefusedError) -> None:
    """The same request is refused with the same words, for a while, by all instances."""

    async def work() -> None:
        model, store = Scripted((error,), HELLO), SharedStore()
        one, other = Instance(model, store, negative_ttl=60), Instance(model, store, negative_ttl=60)
        for instance, state in ((one, "miss"), (one, "refused"), (other, "refused")):
            call = asked()
            with pytest.raises(UpstreamRefusedError) as raised:
                await instance.ask(call)
            told = raised.value
            assert call.record.cache == state
            assert (str(told), told.status) == (str(error), error.status)
            assert (told.code, told.param, told.type) == (error.code, error.param, error.type)
        await asyncio.sleep(61)
        assert (await one.ask())[0] == "miss"
        assert len(model.calls) == 2

    run(work())


@pytest.mark.parametrize("error", FORGOTTEN, ids=repr)
def test_what_may_go_away_is_not_remembered(error: Exception) -> None:
    """Failures, limits and time-outs are asked again at once."""

    async def work() -> None:
        model = Scripted((error,), HELLO)
        one = Instance(model, SharedStore())
        with pytest.raises(type(error)):
            await one.ask()
        assert (await one.ask())[0] == "miss"
        assert len(model.calls) == 2

    run(work())


def test_a_refusal_beside_a_failure_is_not_remembered() -> None:
    """Where a target failed before a smaller one refused, the first might answer next time."""

    async def work() -> None:
        def refuse(call: Call) -> Any:
            call.record.attempts.append(Attempt(outcome="upstream_timeout"))
            return (REFUSED,)

        one = Instance(Scripted(refuse, HELLO))
        with pytest.raises(UpstreamRefusedError):
            await one.ask()
        assert (await one.ask())[0] == "miss"

    run(work())


def test_refusals_can_be_left_alone() -> None:
    """With ``negative_ttl = 0`` none is remembered."""

    async def work() -> None:
        one = Instance(Scripted((REFUSED,), HELLO), SharedStore(), negative_ttl=0)
        with pytest.raises(UpstreamRefusedError):
            await one.ask()
        assert (await one.ask())[0] == "miss"

    run(work())
