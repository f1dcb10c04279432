"""The load engine: when requests leave, what is measured, and what counts as an answer."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from firsttoken.bench import load
from tests.bench.server import DONE, answer, event, serving

TARGET = (("x-firsttoken-target", "near/m"), ("x-request-id", "req_1"))
WHOLE = event("Hel") + event("lo") + event(finish="stop", usage={"completion_tokens": 2})
ERROR = b'data: {"error": {"type": "upstream_error", "code": "upstream_closed"}}\n\n'


def one(response: bytes, *, stream: bool = True, leave_after: float | None = None, **run) -> load.Sample:
    arrival = load.Arrival(0.0, "Hi", load.body("m", "Hi", stream=stream), stream, leave_after)

    async def ask() -> load.Sample:
        async with serving(response, run.pop("wait", 0.0)) as url:
            return (await load.run(url, [arrival], **{"deadline": 10.0, **run}))[0]

    return asyncio.run(ask())


def test_a_whole_stream_is_an_answer() -> None:
    """Text, finish, usage, model, target and request id of an answer are noted."""
    sample = one(answer(b": alive\n\n" + WHOLE + DONE, headers=TARGET))
    assert sample.complete
    assert sample.typed
    assert (sample.text, sample.finish, sample.model, sample.usage) == ("Hello", "stop", "m", True)
    assert (sample.target, sample.request_id) == ("near/m", "req_1")
    assert sample.at <= sample.sent <= sample.first <= sample.done


def test_an_answer_that_is_not_streamed() -> None:
    """Its latency is the time until all of it is there."""
    said = {"model": "m", "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    sample = one(answer(json.dumps(said).encode()), stream=False)
    assert sample.complete
    assert sample.text == "Hello"
    assert sample.latency == sample.first - sample.at


@pytest.mark.parametrize(
    ("response", "error", "typed"),
    [
        (answer(WHOLE), "incomplete", False),
        (answer(event("Hel") + DONE), "incomplete", False),
        (answer(WHOLE, whole=False), "cut", False),
        (answer(event("Hel") + ERROR), "event upstream_closed", True),
        (answer(event("Hel") + ERROR + DONE), "event upstream_closed", False),
        (answer(b'{"error": {"type": "x", "code": "late"}}', status=503), "503 late", True),
        (answer(b'{"error": {"type": "x"}}', status=500), "500 x", True),
        (answer(b"{}", status=500), "500 untyped", False),
        (answer(b"<html>", status=502), "unreadable", False),
        (answer(b"data: {nonsense\n\n"), "unreadable", False),
    ],
)
def test_what_is_no_answer(response: bytes, error: str, typed: bool) -> None:
    """Only a finish with its end marker is an answer; an error object is a proper end, unless both came."""
    sample = one(response)
    assert not sample.complete
    assert (sample.error, sample.typed) == (error, typed)


def test_an_answer_after_the_deadline_is_none() -> None:
    """The deadline counts from when the request was due."""
    sample = one(answer(WHOLE + DONE), wait=30.0, deadline=0.1)
    assert (sample.error, sample.complete) == ("deadline", False)


def test_a_client_that_leaves_has_no_error() -> None:
    """Who leaves on purpose is counted apart."""
    sample = one(answer(WHOLE + DONE), wait=30.0, leave_after=0.05)
    assert sample.left
    assert not sample.error


def test_nobody_there() -> None:
    """A refused connection is an error, not a crash."""
    arrival = load.Arrival(0.0, "Hi", load.body("m", "Hi", stream=True), stream=True)

    async def ask() -> load.Sample:
        async with serving(b"") as url:
            pass
        return (await load.run(url, [arrival], deadline=5.0))[0]

    assert asyncio.run(ask()).error == "upstream_unreachable"


def test_requests_do_not_wait_for_answers() -> None:
    """With an open loop a slow server gets the next request all the same; times count from the plan."""
    arrivals = [
        load.Arrival(0.02 * number, "Hi", load.body("m", "Hi", stream=True), stream=True)
        for number in range(5)
    ]
    ended: list[load.Sample] = []

    async def ask() -> list[load.Sample]:
        async with serving(answer(WHOLE + DONE), wait=0.5) as url:
            return await load.run(url, arrivals, deadline=10.0, ended=ended.append)

    samples = asyncio.run(ask())
    assert max(sample.sent for sample in samples) < min(sample.first for sample in samples)
    assert all(sample.latency == sample.first - sample.at for sample in samples)
    assert [sample.at for sample in samples] == [arrival.at for arrival in arrivals]
    assert len(ended) == 5


def test_arrivals_follow_the_seed() -> None:
    """The same seed gives the same times, at the wanted rate on average."""
    times = load.poisson(50.0, 100.0, random.Random(1))
    assert times == load.poisson(50.0, 100.0, random.Random(1))
    assert times == sorted(times)
    assert 4500 < len(times) < 5500


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [([], 0.5, None), ([3.0], 0.99, 3.0), ([1, 2, 3, 4], 0.5, 2), (range(1, 101), 0.99, 99), ([2, 1], 0, 1)],
)
def test_quantile(values, q: float, expected: float | None) -> None:
    """Nearest rank: the smallest value that so large a share does not exceed."""
    assert load.quantile(values, q) == expected
