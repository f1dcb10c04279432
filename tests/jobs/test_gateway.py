"""Jobs of a whole gateway: what it defers, when it waits, and what it builds only where it is used."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace
from policies.models import make_call, text_of
from support import make_app
from virtual_time import run

from firsttoken.errors import DeferredError, UpstreamError
from firsttoken.model import Call, Later, Source
from firsttoken.policies.line import rank_of
from firsttoken.settings import Breaker, Jobs, MemoryQueue, Route, SimulatedProvider
from firsttoken.worker import answer_message

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
GOOD = SimulatedProvider(profile="ttft_ms=0,itl_ms=0")
BAD = SimulatedProvider(profile="ttft_ms=0,itl_ms=0,fault=status,status=503")


def gateway_of(**sections: Any) -> Any:
    return make_app(
        **{"queue": MemoryQueue(), "providers": {"p": GOOD}, "models": {"m": Route(target="p/m")}, **sections}
    ).gateway


def call_of(later: Later | None) -> Call:
    return replace(make_call(), later=later, source=Source("openai-chat", json.dumps(BODY).encode()))


def test_a_call_becomes_a_job_and_is_answered() -> None:
    """By a worker, with the very request, behind all policies."""

    async def test() -> None:
        gateway = gateway_of()
        with pytest.raises(DeferredError) as caught:
            await text_of(gateway, call_of(Later(asked=True)))
        [delivery] = await gateway.queue.receive(1, 30.0, 0.0)
        row = await answer_message(gateway, delivery.body)
        job = await gateway.jobs.get("local", caught.value.id)
        chunks = await gateway.jobs.answer(job)
        assert (row["status"], job.state, job.target) == ("done", "done", "p/m")
        assert "".join([chunk.text for chunk in chunks]).startswith("You said: hi")
        await gateway.aclose()

    run(test())


@pytest.mark.parametrize(
    ("route", "jobs", "deferred"),
    [("", "asked", False), ("", "outage", True), ("off", "outage", False), ("outage", "asked", True)],
)
def test_an_outage_makes_jobs_where_that_is_set(route: Any, jobs: Any, deferred: bool) -> None:
    """For all routes or for one; without a queue nowhere."""

    async def test(queue: Any) -> type[Exception]:
        sections = {"models": {"m": Route(target="p/m", defer=route)}, "jobs": Jobs(defer=jobs)}
        gateway = gateway_of(queue=queue, providers={"p": BAD}, **sections)
        with pytest.raises((DeferredError, UpstreamError)) as caught:
            await text_of(gateway, call_of(Later()))
        await gateway.aclose()
        return caught.type

    assert (run(test(MemoryQueue())) is DeferredError) == deferred
    assert run(test(None)) is not DeferredError


def test_nothing_is_built_that_is_not_used() -> None:
    """A gateway without a queue has no jobs; one with a queue connects nothing for an ordinary call."""

    async def test() -> None:
        without, gateway = gateway_of(queue=None), gateway_of()
        await text_of(gateway, call_of(Later()))
        assert (without.queue, without.jobs) == (None, None)
        assert not {"queue", "jobs", "objects", "pace"} & set(vars(gateway))
        await gateway.aclose()
        await without.aclose()

    run(test())


def test_it_is_known_how_long_all_targets_are_unavailable() -> None:
    """Until the first of them may be called again."""

    async def test() -> None:
        gateway = gateway_of(
            providers={"a": BAD, "b": GOOD},
            models={"m": Route(targets=["a/m", "b/m"]), "bad": Route(target="a/m"), "*": Route(target="a/*")},
            breaker=Breaker(consecutive=1, open=10.0, jitter=0.0),
        )
        assert gateway.wait_for("bad") is None
        await gateway.breakers["a/m"].probe("m")
        assert 9.0 < gateway.wait_for("bad") <= 10.0
        assert [gateway.wait_for(name) for name in ("m", "other")] == [None, None]
        await gateway.aclose()

    asyncio.run(test())


def test_who_waits_comes_before_jobs() -> None:
    """Whatever the priority of the tenant."""

    async def test() -> None:
        call = make_call(tenant="first")
        ranks = {"first": "high", "last": "low"}
        job = replace(call, background=True)
        assert rank_of(call, ranks) < rank_of(replace(call, tenant="last"), ranks) < rank_of(job, ranks)

    run(test())
