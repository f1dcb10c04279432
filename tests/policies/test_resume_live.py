"""Resuming over real connections: wherever a provider's stream breaks, the client gets one whole answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from policies.live import converse, endpoint, serve
from support import ask, simulate
from wire.pairs import FORMATS, INBOUND, Case

from firsttoken.runtimes.simulator import SimulatorApp
from firsttoken.telemetry.record import Record

TEXT = Case("text", 'Say hello: naïve façade 東京 🙂 "quoted" \\ and\nnew  lines')
TOOL = Case("tools", "Please call lookup and search for Zürich", tools=("lookup", "search"))
STRUCTURED = Case("structured", "Is it good or is it bad?", schema=True)
THINKING = Case("thinking", "Think about it", think=True)
FAULTS = ("cut", "reset", "malformed", "error_event")
OTHERS = dict(zip(FORMATS, [*list(FORMATS)[2:], *list(FORMATS)[:2]], strict=True))
"""For each format the one of the target that goes on."""


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[str, SimulatorApp]]:
    """One simulated provider for all tests of this module."""
    with serve() as served:
        yield served


@pytest.fixture(scope="module")
def url(live: tuple[str, SimulatorApp]) -> str:
    """Its address."""
    return live[0]


def whole(url: str, inbound: str, case: Case) -> Any:
    """What the client sees when nothing breaks; token counts of a resumed answer are estimates."""
    seen = INBOUND[inbound].stream(converse(endpoint(url, [inbound.partition(".")[0]]), inbound, case).body)
    seen.usage = (0, 0)
    return seen


def heard(body: bytes, inbound: str) -> Any:
    seen = INBOUND[inbound].stream(body)
    seen.usage = (0, 0)
    return seen


@pytest.mark.parametrize("continues", ["auto", "prefill"])
@pytest.mark.parametrize("upstream", list(FORMATS))
def test_cut_anywhere_it_is_the_same_answer(url: str, upstream: str, continues: str) -> None:
    """For each provider's format ten places and all faults, for clients of the same and of another format."""
    rng = random.Random(f"{upstream}/{continues}")
    for inbound in (upstream, OTHERS[upstream]):
        expected = whole(url, inbound, TEXT)
        for after in rng.sample(range(1, 36), 5):
            records: list[Record] = []
            app = endpoint(url, [upstream, OTHERS[upstream]], records, continues=continues)
            answer = converse(app, inbound, TEXT, f"fault={rng.choice(FAULTS)},after={after}")
            assert heard(answer.body, inbound) == expected, (inbound, after)
            assert (records[0].resumed, records[0].error, records[0].target) == (1, None, "p1/m")


@pytest.mark.parametrize("inbound", list(INBOUND))
@pytest.mark.parametrize("case", [TOOL, STRUCTURED, THINKING], ids=lambda case: case.name)
def test_other_answers_are_whole_too(url: str, inbound: str, case: Case) -> None:
    """Calls and objects are made again where that gives the same; thoughts are said once."""
    wire = inbound.partition(".")[0]
    expected = whole(url, inbound, case)
    deterministic = {"generationConfig": {"temperature": 0}} if wire == "gemini" else {"temperature": 0}
    if wire == "bedrock":
        deterministic = {"inferenceConfig": {"temperature": 0}}
    if case is STRUCTURED and wire == "gemini":
        config = INBOUND[inbound].body(case, stream=True)["generationConfig"]
        deterministic = {"generationConfig": {**config, "temperature": 0}}
    for after in (1, 2, 4):
        records: list[Record] = []
        app = endpoint(url, [wire, OTHERS[wire]], records)
        changes = {} if case is THINKING else deterministic
        answer = converse(app, inbound, case, f"fault=cut,after={after}", **changes)
        seen = heard(answer.body, inbound)
        if case is THINKING:  # what was thought before the break is said, what the next one thinks is not
            assert expected.reasoning.startswith(seen.reasoning)
            seen.reasoning = expected.reasoning
        assert seen == expected
        assert records[0].error is None


def test_two_breaks_in_one_answer(url: str) -> None:
    """The third target says the rest."""
    records: list[Record] = []
    wires = ["openai_chat", "anthropic", "bedrock"]
    answer = converse(endpoint(url, wires, records, broken=2), "openai_chat", TEXT, "fault=cut,after=7")
    assert heard(answer.body, "openai_chat") == whole(url, "openai_chat", TEXT)
    assert records[0].resumed == 2
    assert [attempt.kind for attempt in records[0].attempts] == ["first", "resume", "resume"]


def test_a_target_that_falls_silent(url: str) -> None:
    """A gap is a break."""
    app = endpoint(url, ["anthropic", "openai_chat"], gap=0.1)
    answer = converse(app, "anthropic", TEXT, "fault=stall,after=9")
    assert heard(answer.body, "anthropic") == whole(url, "anthropic", TEXT)


def test_the_same_target_goes_on_when_it_is_the_only_one(url: str) -> None:
    """It broke once; the second time, in this simulation too, it breaks after as many tokens more."""
    records: list[Record] = []
    answer = converse(endpoint(url, ["openai_chat"], records), "openai_chat", TEXT, "fault=cut,after=15")
    assert heard(answer.body, "openai_chat") == whole(url, "openai_chat", TEXT)
    assert records[0].resumed == 2


@pytest.mark.parametrize("inbound", list(FORMATS))
def test_what_cannot_be_resumed_ends_with_its_error(url: str, inbound: str) -> None:
    """A call whose repetition may differ is not made again: the answer is never whole, and says so."""
    records: list[Record] = []
    app = endpoint(url, ["openai_chat", "openai_chat"], records)
    answer = converse(app, inbound, TOOL, "fault=cut,after=4")
    assert records[0].error == "upstream_closed"
    assert records[0].resumed == 0
    assert b"[DONE]" not in answer.body
    with pytest.raises((AssertionError, KeyError, TypeError, ValueError, IndexError)):
        INBOUND[inbound].stream(answer.body)


def test_a_client_that_leaves_during_the_resume(live: tuple[str, SimulatorApp]) -> None:
    """Nothing is left running upstream."""
    url, app = live

    async def run() -> None:
        leave = asyncio.Event()
        ours = endpoint(url, ["openai_chat", "anthropic"], broken=2)
        body = INBOUND["openai_chat"].body(TEXT, stream=True)
        headers = simulate("fault=cut,after=5,ttft_ms=150")
        before = app.state["requests"]
        work = asyncio.ensure_future(ask(ours, body, headers=headers, leave=leave))
        while app.state["requests"] < before + 2:
            await asyncio.sleep(0.005)
        leave.set()
        await work
        await ours.gateway.aclose()

    asyncio.run(run())
    until = time.monotonic() + 10
    while app.state["active"] and time.monotonic() < until:
        time.sleep(0.005)
    assert app.state["active"] == 0
