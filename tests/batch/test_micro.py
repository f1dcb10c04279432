"""Micro-batches: fewer calls of the model, each caller's own answer, and nobody waits for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from virtual_time import run

from firsttoken.batch.micro import MicroBatched
from firsttoken.embedding import EmbedCall, Embeddings, EmbedRequest, pack, unpack
from firsttoken.errors import FirstTokenError, UpstreamRefusedError, UpstreamTimeoutError
from firsttoken.settings import Embedding


class Slow:
    """An embedder that takes a second a call, and whose vector of a text is its number."""

    def __init__(self, error: Callable[[EmbedCall], FirstTokenError | None] = lambda _: None) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.cancelled = 0
        self._error = error

    async def embed(self, call: EmbedCall) -> Embeddings:
        """Return the vectors after a second."""
        self.calls.append(call.request.inputs)
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if (error := self._error(call)) is not None:
            raise error
        vectors = tuple(pack([float(text)]) for text in call.request.inputs)
        return Embeddings(vectors, tokens=10 * len(vectors), model="m")


def call(*texts: int, tenant: str = "acme", **request: Any) -> EmbedCall:
    wanted = EmbedRequest(model="m", inputs=tuple(map(str, texts)), **request)
    return EmbedCall(request=wanted, deadline=1e9, tenant=tenant)


def micro(inner: Slow, **settings: Any) -> MicroBatched:
    return MicroBatched(inner, Embedding(target="p/m", **{"window": 0.01, **settings}), headers=["x-region"])


def numbers(answer: Embeddings) -> list[float]:
    return [unpack(vector)[0] for vector in answer.vectors]


def test_callers_that_come_together_share_a_call_and_get_their_own_vectors() -> None:
    """Sixty-four callers are one call of the model."""
    inner = Slow()

    async def scenario() -> None:
        embedder = micro(inner)
        answers = await asyncio.gather(*[embedder.embed(call(n)) for n in range(64)])
        assert [numbers(answer) for answer in answers] == [[n] for n in range(64)]
        assert {answer.tokens for answer in answers} == {10}
        assert (embedder.calls, embedder.texts) == (1, 64)
        assert asyncio.get_running_loop().time() == pytest.approx(1)

    run(scenario())


def test_a_caller_that_is_alone_does_not_wait() -> None:
    """And the model's own answer is passed on as it is."""
    inner = Slow()

    async def scenario() -> None:
        answer = await micro(inner, window=60.0).embed(call(1, 2))
        assert not answer.estimated
        assert asyncio.get_running_loop().time() == pytest.approx(1)

    run(scenario())


def test_while_calls_are_on_their_way_others_wait_for_company_but_not_for_long() -> None:
    """Those that come within the window of the first of them go together."""
    inner = Slow()

    async def scenario() -> None:
        embedder, loop = micro(inner, window=0.1), asyncio.get_running_loop()

        async def later(delay: float, number: int) -> float:
            await asyncio.sleep(delay)
            started = loop.time()
            await embedder.embed(call(number))
            return loop.time() - started

        waits = await asyncio.gather(
            later(0, 0), later(0.2, 1), later(0.25, 2), later(0.29, 3), later(0.4, 4)
        )
        assert waits == pytest.approx([1, 1.1, 1.05, 1.01, 1.1])
        assert inner.calls == [("0",), ("1", "2", "3"), ("4",)]

    run(scenario())


def test_a_full_batch_goes_at_once() -> None:
    """It does not wait for the end of its window."""
    inner = Slow()

    async def scenario() -> None:
        embedder = micro(inner, window=60.0, batch=4)
        await asyncio.gather(*[embedder.embed(call(n)) for n in range(8)])
        assert asyncio.get_running_loop().time() == pytest.approx(1)

    run(scenario())
    assert inner.calls == [("0", "1", "2", "3"), ("4", "5", "6", "7")]


def test_no_more_calls_than_allowed_are_on_their_way() -> None:
    """The next starts as soon as one has ended."""
    inner = Slow()

    async def scenario() -> float:
        embedder = micro(inner, batch=2, concurrent=2)
        await asyncio.gather(*[embedder.embed(call(n)) for n in range(12)])
        return asyncio.get_running_loop().time()

    assert run(scenario()) == pytest.approx(3)


def test_tenants_take_turns() -> None:
    """One that came later with a few texts is not behind all of another one's."""
    inner = Slow()

    async def scenario() -> None:
        embedder = micro(inner, batch=4, concurrent=1)
        many = [embedder.embed(call(n, tenant="big")) for n in range(40)]
        few = [embedder.embed(call(n, tenant="small")) for n in (100, 101)]
        await asyncio.gather(*many, *few)

    run(scenario())
    assert sorted(inner.calls[1]) == ["100", "101", "4", "5"]


@pytest.mark.parametrize(
    "other",
    [
        lambda: call(2, dimensions=8),
        lambda: call(2, input_type="query"),
        lambda: EmbedCall(request=EmbedRequest(model="n", inputs=("2",)), deadline=1e9),
        lambda: EmbedCall(
            request=EmbedRequest(model="m", inputs=("2",)), deadline=1e9, headers={"x-region": "eu"}
        ),
    ],
    ids=["size", "purpose", "model", "header"],
)
def test_what_asks_for_something_else_is_not_sent_along(other: Callable[[], EmbedCall]) -> None:
    """Model, size, purpose, and every header that is passed on, must be the same."""
    inner = Slow()

    async def scenario() -> None:
        embedder = micro(inner)
        await asyncio.gather(embedder.embed(call(1)), embedder.embed(other()))

    run(scenario())
    assert len(inner.calls) == 2


@pytest.mark.parametrize("lone", [lambda: call(2, user="u"), lambda: call(*range(64))], ids=["user", "many"])
def test_what_is_large_or_someones_own_goes_alone(lone: Callable[[], EmbedCall]) -> None:
    """A batch of its own needs no company, and a user's name stands for one caller only."""
    inner = Slow()

    async def scenario() -> None:
        embedder = micro(inner)
        await asyncio.gather(embedder.embed(call(1)), embedder.embed(lone()))

    run(scenario())
    assert len(inner.calls) == 2


def test_nobody_fails_for_anothers_text() -> None:
    """A batch that is refused is asked again, caller by caller."""
    inner = Slow(lambda call: UpstreamRefusedError("bad") if "13" in call.request.inputs else None)

    async def scenario() -> list[Any]:
        embedder = micro(inner)
        calls = [embedder.embed(call(n)) for n in (12, 13, 14)]
        return await asyncio.gather(*calls, return_exceptions=True)

    first, second, third = run(scenario())
    assert (numbers(first), numbers(third)) == ([12], [14])
    assert isinstance(second, UpstreamRefusedError)


def test_a_failure_of_the_model_is_everybodys() -> None:
    """Each gets an error of its own, and nothing is asked again."""
    inner = Slow(lambda _: UpstreamTimeoutError("slow"))

    async def scenario() -> list[Any]:
        embedder = micro(inner)
        return await asyncio.gather(*[embedder.embed(call(n)) for n in range(3)], return_exceptions=True)

    errors = run(scenario())
    assert len({id(error) for error in errors}) == 3
    assert {str(error) for error in errors} == {"slow"}
    assert len(inner.calls) == 1


def test_who_leaves_while_waiting_is_not_sent() -> None:
    """The others of the group are."""
    inner = Slow()

    async def scenario() -> None:
        embedder = micro(inner, window=0.5)
        tasks = [asyncio.create_task(embedder.embed(call(0)))]
        await asyncio.sleep(0.1)
        tasks += [asyncio.create_task(embedder.embed(call(n))) for n in (1, 2)]
        await asyncio.sleep(0.1)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert embedder._groups == {}

    run(scenario())
    assert inner.calls == [("0",), ("2",)]


def test_a_call_that_nobody_waits_for_is_stopped() -> None:
    """It goes on as long as one of its callers is there."""
    inner = Slow()

    async def scenario() -> None:
        embedder = micro(inner)
        tasks = [asyncio.create_task(embedder.embed(call(n))) for n in (1, 2)]
        await asyncio.sleep(0.1)
        tasks[0].cancel()
        await asyncio.sleep(0.1)
        assert inner.cancelled == 0
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert inner.cancelled == 1

    run(scenario())


def test_tokens_are_shared_out_whole() -> None:
    """What the callers are billed adds up to what the model billed."""
    inner = Slow()

    async def scenario() -> None:
        embedder = micro(inner)
        answers = await asyncio.gather(*[embedder.embed(call(*range(n))) for n in (1, 2, 4, 7)])
        assert sum(answer.tokens for answer in answers) == 140
        assert all(answer.estimated for answer in answers)

    run(scenario())
