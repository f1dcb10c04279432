"""Probes of all targets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace
from support import make_app

from firsttoken.errors import StoreError
from firsttoken.settings import Breaker, Route, SimulatedProvider
from firsttoken.worker import probe_targets


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
