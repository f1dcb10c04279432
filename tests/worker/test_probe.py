"""Queued calls and probes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace
from support import make_app

from firsttoken.errors import FirstTokenError, RequestError, StoreError
from firsttoken.settings import Breaker, Route, SimulatedProvider, Timeouts
from firsttoken.worker import answer_message, probe_targets


def message(**request: Any) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **request}
    return json.dumps({"id": "job-1", "tenant": "acme", "request": body})


def answer(body: Any, profile: str = "ttft_ms=0,itl_ms=0", **sections: Any) -> dict[str, Any]:
    app = make_app(providers={"simulated": SimulatedProvider(profile=profile)}, **sections)
    return asyncio.run(answer_message(app.gateway, body))


@pytest.mark.parametrize("stream", [False, True])
def test_a_queued_call_is_answered(stream: bool) -> None:
    """The answer is whole, whatever the client asked for."""
    row = answer(message(stream=stream))
    assert (row["status"], row["id"], row["tenant"]) == ("done", "job-1", "acme")
    assert row["answer"]["choices"][0]["message"]["content"].startswith("You said: hi")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        b"\xff",
        "{}",
        '{"id": 1, "tenant": "t", "request": {}}',
        message(messages=[]),
        message(model="x"),
        message(n=3),
    ],
)
def test_what_can_never_be_answered_is_raised_too(body: Any) -> None:
    """The queue's dead-letter rule keeps it; the error says what is wrong."""
    with pytest.raises(RequestError) as caught:
        answer(body)
    assert not caught.value.retryable
    assert str(caught.value)


@pytest.mark.parametrize(
    "profile", ["fault=status,status=503", "fault=status,status=429", "fault=cut,after=1,itl_ms=0"]
)
def test_what_may_succeed_later_is_raised(profile: str) -> None:
    """The queue delivers it again."""
    with pytest.raises(FirstTokenError):
        answer(message(), f"ttft_ms=0,{profile}")


def test_a_silent_target_does_not_hold_a_message_for_ever() -> None:
    """The deadline ends the wait."""
    with pytest.raises(FirstTokenError) as caught:
        answer(message(), "fault=hang", timeouts=Timeouts(total=0.05))
    assert caught.value.code == "deadline_exceeded"


def probe_twice(models: dict[str, Route]) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Probe the targets of ``models``, mend the bad one, and probe again."""
    providers = {
        "good": SimulatedProvider(profile="ttft_ms=0,itl_ms=0"),
        "bad": SimulatedProvider(profile="fault=status,status=503,ttft_ms=0,itl_ms=0"),
    }
    breaker = Breaker(consecutive=1)
    gateway = make_app(providers=providers, models=models, breaker=breaker).gateway

    async def probe() -> tuple[dict[str, Any], dict[str, Any]]:
        first = await probe_targets(gateway)
        for model in gateway.providers.values():
            model.profile = replace(model.profile, fault="")
        return first, await probe_targets(gateway)

    return *asyncio.run(probe()), gateway


def test_probes_ask_every_target_but_the_wildcard() -> None:
    """One sick target makes the report unhealthy, whatever route it belongs to."""
    models = {"a": Route(targets=["good/a", "bad/b"]), "*": Route(target="good/*")}
    report, _, _ = probe_twice(models)
    assert not report["healthy"]
    assert [(row["target"], row["healthy"]) for row in report["targets"]] == [
        ("good/a", True),
        ("bad/b", False),
    ]
    assert report["targets"][1]["code"] == "upstream_error"


def test_probes_open_and_close_breakers() -> None:
    """What a probe finds out holds for calls: a sick target is left alone, a mended one is called again."""
    first, second, gateway = probe_twice({"a": Route(targets=["good/a", "bad/b"])})
    assert (first["healthy"], second["healthy"]) == (False, True)
    view = gateway.breakers["bad/b"].circuit.view()
    assert (view.state, view.error) == ("closed", "upstream_error")


@pytest.mark.parametrize("fault", [None, StoreError("down")])
def test_probes_ask_for_the_shared_state_first(fault: Exception | None) -> None:
    """An instance that has just started learns what is open; with the store down it probes all the same."""
    fast = SimulatedProvider(profile="ttft_ms=0,itl_ms=0")
    route = Route(targets=["good/a", "good/b"])
    gateway = make_app(providers={"good": fast}, models={"a": route}, breaker=Breaker()).gateway
    asked: list[int] = []

    async def read() -> None:
        asked.append(gateway.breakers["good/a"]._stats.calls)
        if fault is not None:
            raise fault

    gateway.board.read = read  # type: ignore[method-assign]
    report = asyncio.run(probe_targets(gateway))
    assert report["healthy"]
    assert asked == [0]
