"""Rate limits kept on our side: reserve, settle, learn, shed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from firsttoken.errors import (
    UnavailableError,
    UpstreamAuthError,
    UpstreamClosedError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
)
from firsttoken.model import Call, Chunk, Usage
from firsttoken.policies.limit import BucketView, Limited, LimitView
from firsttoken.policies.stats import Stats
from firsttoken.settings import Target
from firsttoken.telemetry.record import Quota
from firsttoken.wire.rate_limits import TokenQuota
from tests.policies.limits import answer, ask, crowd, left, limited, make_limiter
from tests.policies.models import Scripted, make_call, open_model, say
from tests.virtual_time import run

PROMPT = 5
"""Estimated tokens of the prompt of `make_call`."""


def test_without_limits_nothing_is_held_back() -> None:
    """A target without known limits is called at once, however often."""

    async def work() -> None:
        limiter = make_limiter()
        assert set(await crowd(limited(limiter), 300)) == {"Hi"}
        assert (limiter.headroom(), limiter.view()) == (1.0, LimitView())

    run(work())


def test_switched_off_it_knows_nothing() -> None:
    """``enabled = false`` neither reserves nor learns."""

    async def work() -> None:
        limiter = make_limiter(rpm=1, enabled=False)
        assert set(await crowd(limited(limiter), 5)) == {"Hi"}
        limiter.learn(make_call().attempt)
        assert left(limiter) == (1, None, None)

    run(work())


def test_a_crowd_never_overshoots_the_tokens() -> None:
    """Of a hundred calls at once only those are sent whose tokens fit together."""

    async def work() -> None:
        limiter = make_limiter(tpm=1000, max_wait=0)
        model = Scripted((1.0, *answer()))
        seen = await crowd(Limited(model, limiter), 100, max_tokens=95)
        assert (seen.count("Hi"), len(model.calls), limiter.view().shed) == (10, 10, 90)

    run(work())


@pytest.mark.parametrize(("said", "used"), [(10, 15), (400, 405)])
def test_real_usage_settles_what_was_reserved(said: int, used: int) -> None:
    """What an answer did not use is given back, and what it used beyond its reservation is taken."""

    async def work() -> None:
        limiter = make_limiter(tpm=10_000)
        opened = await limited(limiter, answer(said, PROMPT)).open(make_call(max_tokens=100))
        assert left(limiter)[1] == 10_000 - PROMPT - 100
        assert [chunk async for chunk in opened.chunks()]
        assert left(limiter)[1] == 10_000 - used

    run(work())


@pytest.mark.parametrize(("fields", "rest"), [({"max_tokens": 100}, 900), ({}, 1000 - PROMPT - 7)])
def test_what_the_target_does_not_give_back_stays_taken(fields: dict[str, int], rest: int) -> None:
    """Azure counts a named limit whatever the answer had; without one the answer counts."""

    async def work() -> None:
        limiter = make_limiter("azure", tpm=1000)
        assert await ask(limited(limiter, answer(7, PROMPT)), **fields) == "Hi"
        assert left(limiter)[1] == rest - (PROMPT if fields else 0)

    run(work())


def test_the_average_of_answers_is_learned() -> None:
    """Without a limit in the request an answer is taken to be as long as this target's usually are."""

    async def work() -> None:
        limiter = make_limiter(tpm=1_000_000)
        model = limited(limiter, answer(tokens=12))
        opened = await model.open(make_call())
        assert left(limiter)[1] == 1_000_000 - PROMPT - 512
        await opened.aclose()
        for _ in range(80):
            await ask(model)
        await asyncio.sleep(60)
        await model.open(make_call())
        assert left(limiter)[1] == pytest.approx(1_000_000 - PROMPT - 12, abs=2)

    run(work())


FAILURES = [
    (UnavailableError("open"), (100, 1000)),
    (UpstreamConnectError("down"), (100, 1000)),
    (UpstreamRateLimitError("slow"), (99, 1000)),
    (UpstreamRefusedError("no"), (99, 1000)),
    (UpstreamAuthError("key"), (99, 1000)),
    (UpstreamError("oops"), (99, 995)),
    (RuntimeError("bug"), (99, 995)),
]


@pytest.mark.parametrize(("error", "rest"), FAILURES, ids=[type(row[0]).__name__ for row in FAILURES])
def test_a_failure_gives_back_what_is_not_charged(error: Exception, rest: tuple[int, int]) -> None:
    """Never sent: nothing counts. Refused: a request. Failed: its prompt too. Never the answer."""

    async def work() -> None:
        limiter = make_limiter(rpm=100, tpm=1000)
        with pytest.raises(type(error)):
            await limited(limiter, (error,)).open(make_call(max_tokens=200))
        assert left(limiter)[:2] == rest

    run(work())


def test_a_call_that_is_cancelled_keeps_its_prompt() -> None:
    """A client that leaves before the first token has cost the prompt."""

    async def work() -> None:
        limiter = make_limiter(tpm=1000)
        task = asyncio.create_task(limited(limiter, (50.0,)).open(make_call(max_tokens=200)))
        await asyncio.sleep(0)
        assert left(limiter)[1] == 1000 - PROMPT - 200
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert left(limiter)[1] == 1000 - PROMPT

    run(work())


@pytest.mark.parametrize("breaks", [False, True])
def test_an_answer_without_usage_counts_its_chunks(breaks: bool) -> None:
    """A client that left, or an answer that broke off, has cost the prompt and the chunks so far."""

    async def work() -> None:
        limiter = make_limiter(tpm=1000)
        rest = (UpstreamClosedError("cut"),) if breaks else (say("d"), say("e"))
        model = limited(limiter, (say("a"), say("b"), say("c"), *rest))
        async with aclosing(model.stream(make_call(max_tokens=200))) as chunks:
            try:
                for _ in range(4):
                    await anext(chunks)
            except UpstreamClosedError:
                assert breaks
        assert left(limiter)[1] == 1000 - PROMPT - (3 if breaks else 4)

    run(work())


def heard(quotas: tuple[Quota | None, Quota | None]) -> Any:
    """A script whose headers say this."""

    def script(call: Call) -> tuple[Chunk, ...]:
        call.attempt.requests_quota, call.attempt.tokens_quota = quotas
        return say("Hi"), Chunk(finish="stop", usage=Usage(PROMPT, 1))

    return script


def test_limits_are_learned_from_headers() -> None:
    """What the first answer tells limits the second call; what other clients used is believed at once."""

    async def work() -> None:
        limiter = make_limiter(max_wait=0)
        model = limited(limiter, heard((Quota(60, 1, 59.0), Quota(6000, 5000, 10.0))))
        assert await ask(model) == "Hi"
        assert (left(limiter), limiter.headroom()) == ((1, 5000, None), pytest.approx(1 / 60))
        assert await ask(model) == "Hi"
        assert await ask(model) == "The target's rate limit is used up for 1.0 s. [1.0]"
        await asyncio.sleep(1)
        assert await ask(model) == "Hi"

    run(work())


def test_a_refusal_teaches_too() -> None:
    """The headers of a 429 are believed, after what the call had reserved was given back."""

    async def work() -> None:
        limiter = make_limiter(tpm=1000)

        def refused(call: Call) -> tuple[Exception]:
            call.attempt.tokens_quota = Quota(1000, 7, 59.0)
            return (UpstreamRateLimitError("slow"),)

        with pytest.raises(UpstreamRateLimitError):
            await limited(limiter, refused).open(make_call(max_tokens=50))
        assert left(limiter)[1] == 7

    run(work())


def test_a_target_of_many_models_learns_nothing() -> None:
    """The headers of one model say nothing of another one behind the same target."""

    async def work() -> None:
        limiter = make_limiter(name="up/*")
        assert await ask(limited(limiter, heard((Quota(60, 0, 60.0), None)))) == "Hi"
        assert limiter.headroom() == 1.0

    run(work())


def test_prompt_and_answer_apart() -> None:
    """Anthropic's limits: until the one of answers is known both count against the one that is."""

    async def work() -> None:
        limiter = make_limiter("anthropic", tpm=1000)
        model = limited(limiter, answer(100, PROMPT))
        await ask(model)
        assert left(limiter) == (None, 1000 - PROMPT - 100, None)
        quotas = None, TokenQuota(5000, 600, 1.0, Quota(400, 300, 15.0))
        for _ in range(2):
            await ask(limited(limiter, heard(quotas)), max_tokens=50)
        assert left(limiter) == (None, 600, 298)
        opened = await limited(limiter, answer(40, PROMPT + 600, cached=600)).open(make_call(max_tokens=50))
        assert left(limiter) == (None, 600 - PROMPT, 248)
        assert [chunk async for chunk in opened.chunks()]
        assert left(limiter) == (None, 600 - PROMPT, 258)

    run(work())


def test_answers_that_come_too_late_are_not_asked_for() -> None:
    """A call whose deadline is nearer than this target's usual first token is refused at once."""

    async def work() -> None:
        stats = Stats()
        for _ in range(49):
            stats.began(3.0)
        limiter = make_limiter(stats=stats)
        model = limited(limiter)
        assert await ask(model, deadline=2.9) == "Hi"
        stats.began(3.0)
        assert await ask(model, deadline=2.9) == "The answer would come too late. [None]"
        assert await ask(model, deadline=3.1) == "Hi"
        assert limiter.view().shed == 1

    run(work())


def test_a_hedge_that_lost_is_settled() -> None:
    """An answer that is thrown away has cost its prompt and its first chunk."""

    async def work() -> None:
        limiter = make_limiter(tpm=1000)
        opened = await open_model(limited(limiter), make_call(max_tokens=100))
        await opened.aclose()
        assert left(limiter)[1] == 1000 - PROMPT - 1

    run(work())


def test_the_view_tells_limits_and_what_is_left() -> None:
    """A status page shows each known limit, who waits, and how many were not let through."""

    async def work() -> None:
        limiter = make_limiter(target=Target(rpm=60, output_tpm=100))
        await limited(limiter).open(make_call())
        assert limiter.view() == LimitView(BucketView(60, 59), None, BucketView(100, 100), 0, 0)

    run(work())
