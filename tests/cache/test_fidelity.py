"""A replayed answer is the one that was given: in every wire format, from every provider, over our app.

The provider is the simulator on a socket; what the client sees is read by hand-written readers (`wire.pairs`)
and compared with what the simulated model itself says.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import msgspec
import pytest
from policies.models import END, Scripted, say
from support import Answer, ask, chat, make_app
from wire.pairs import CASES, FORMATS, INBOUND, Case
from wire.test_pairs import REFUSED, providers, said
from wire.test_pairs import simulator as simulator  # noqa: PLC0414 - a fixture

from firsttoken.app import App
from firsttoken.cache.answers import Answers, place_of
from firsttoken.cache.exact import Cached
from firsttoken.cache.tiers import Tiers
from firsttoken.errors import UpstreamRefusedError
from firsttoken.settings import Cache, Route
from firsttoken.telemetry.record import Record


def cached_app(records: list[Record], route: Route, model: Any = None, **sections: Any) -> App:
    """An application whose model ``m`` keeps its answers."""
    app = make_app(records, models={"m": route}, **sections)
    gateway = app.gateway
    settings = Cache(mode="on", sampled=True, tools=True, time_relative=True)
    tiers = Tiers(settings, gateway.store, gateway.shadow)
    answers = Answers(tiers, place_of("m", route))
    gateway.routes["m"] = Cached(model or gateway.routes["m"], answers, rng=Random(1))
    return app


def twice(url: str, inbound: str, upstream: str, case: Case, first: bool) -> tuple[list[Answer], list[str]]:
    """Ask for a stream or a whole answer, then again for both; return the answers and the records' words."""
    client = INBOUND[inbound]

    async def work() -> tuple[list[Answer], list[str]]:
        records: list[Record] = []
        target = "up/claude-m" if upstream == "vertex claude" else "up/m"
        app = cached_app(records, Route(target=target), providers={"up": providers(url)[upstream]})
        try:
            answers = [
                await ask(app, client.body(case, stream=stream), path=client.path(stream=stream))
                for stream in (first, True, False)
            ]
        finally:
            await app.gateway.aclose()
        return answers, [record.cache for record in records]

    return asyncio.run(work())


PAIRS = [
    pytest.param(inbound, upstream, case, id=f"{inbound}-{upstream}-{case.name}")
    for inbound in INBOUND
    for upstream in FORMATS
    for case in CASES
    if not (inbound == "openai_responses" and case.stop) and (upstream, case.name) not in REFUSED
]


@pytest.mark.parametrize("first", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("inbound", "upstream", "case"), PAIRS)
def test_every_format_says_the_same_again(
    simulator: str, inbound: str, upstream: str, case: Case, first: bool
) -> None:
    """Text, reasoning, tool calls, finish and usage of a replay are the original's, streamed and whole."""
    answers, states = twice(simulator, inbound, upstream, case, first)
    assert [answer.status for answer in answers] == [200] * 3
    client, expected = INBOUND[inbound], said(inbound, case)
    read = {True: client.stream, False: client.whole}
    seen = [read[stream](answer.body) for stream, answer in zip((first, True, False), answers, strict=True)]
    if seen[0].finish == "stop":  # formats without a word for a stop sequence say that the answer ended
        expected.finish = expected.finish.replace("stop_sequence", "stop")
    assert [msgspec.to_builtins(one) for one in seen] == [msgspec.to_builtins(expected)] * 3
    assert states == ["miss", "hit", "hit"]


CROSSING = [case for case in CASES if case.name in ("text", "length", "reasoning")]


@pytest.mark.parametrize("case", CROSSING, ids=lambda case: case.name)
def test_an_answer_crosses_formats(simulator: str, case: Case) -> None:
    """What was asked in one format is given again to a client of another that asks for the same."""
    expected = said("openai_chat", case)

    async def work() -> list[str]:
        records: list[Record] = []
        app = cached_app(records, Route(target="up/m"), providers={"up": providers(simulator)["openai_chat"]})
        try:
            for client in (*INBOUND.values(), *INBOUND.values()):
                body = client.body(case, stream=True)
                answer = await ask(app, body, path=client.path(stream=True))
                seen = client.stream(answer.body)
                assert (seen.text, seen.usage) == (expected.text, expected.usage)
        finally:
            await app.gateway.aclose()
        return [record.cache for record in records]

    states = asyncio.run(work())
    assert set(states[len(INBOUND) :]) == {"hit"}
    if case.name == "text":  # Gemini's clients say more about how to generate
        assert states[: len(INBOUND)] == ["miss", "hit", "hit", "miss", "hit", "hit"]


def test_a_stream_of_a_client_that_wants_no_usage() -> None:
    """Token counts are replayed only to those who ask for them, as the format says."""

    async def work() -> None:
        records: list[Record] = []
        app = cached_app(records, Route(target="simulated/m"))
        first = await ask(app, chat(stream=True))
        again = await ask(app, chat(stream=True))
        counted = await ask(app, chat(stream=True, stream_options={"include_usage": True}))
        assert first.text() == again.text() == counted.text()
        assert not [event for event in again.events() if "usage" in event]
        usage = counted.events()[-2]["usage"]
        assert usage["completion_tokens"] == records[0].output_tokens == records[2].output_tokens
        assert [record.cache for record in records] == ["miss", "hit", "hit"]
        assert records[2].summary()["cache"] == "hit"
        assert len(again.pieces) < len(first.pieces)

    asyncio.run(work())


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("inbound", INBOUND)
def test_a_refusal_is_said_again(inbound: str, stream: bool) -> None:
    """A remembered refusal reads like the first one, in every format."""
    client = INBOUND[inbound]
    error = UpstreamRefusedError("Too long.", code="context_length_exceeded", param="messages")

    async def work() -> None:
        records: list[Record] = []
        model = Scripted((error,), (say("x"), END))
        app = cached_app(records, Route(target="simulated/m"), model)
        body = client.body(CASES[0], stream=stream)
        first, again = [await ask(app, body, path=client.path(stream=stream)) for _ in range(2)]
        assert (again.status, len(again.body)) == (first.status, len(first.body))
        assert [record.cache for record in records] == ["miss", "refused"]
        assert len(model.calls) == 1

    asyncio.run(work())
