"""A conversation goes on where its prompt is cached."""

from __future__ import annotations

import asyncio

import pytest
from policies.models import make_call
from virtual_time import run

from firsttoken.model import Call
from firsttoken.policies.balance import Order
from firsttoken.policies.stats import Stats
from firsttoken.policies.sticky import ENTRIES, Holders, Sticky
from firsttoken.policies.target import Target

TARGETS = [Target(name, None, Stats()) for name in ("p/a", "p/b", "p/c")]  # type: ignore[arg-type]


def order(holders: Holders, call: Call, *, broken: str = "") -> str:
    sticky = Sticky(Order(), holders, lambda name: name == broken)
    return "".join(target.name[-1] for target in sticky.order(call, TARGETS))


def test_the_holder_comes_first_and_the_rest_as_it_was() -> None:
    """Until the cache ends, and for this conversation of this tenant only."""

    async def scenario() -> None:
        holders = Holders()
        assert order(holders, make_call("Hi")) == "abc"
        holders.note(make_call("Hi"), "p/c", "5m")
        assert order(holders, make_call("Hi")) == "cab"
        assert order(holders, make_call("Other")) == "abc"
        assert order(holders, make_call("Hi", tenant="other")) == "abc"
        await asyncio.sleep(299)
        assert order(holders, make_call("Hi")) == "cab"
        await asyncio.sleep(1)
        assert order(holders, make_call("Hi")) == "abc"

    run(scenario())


def test_a_use_begins_the_time_anew() -> None:
    """Providers keep a prefix from its last use on; an hour where an hour was asked for."""

    async def scenario() -> None:
        holders = Holders()
        holders.note(make_call("Hi"), "p/b", "5m")
        await asyncio.sleep(200)
        holders.note(make_call("Hi"), "p/b", "1h")
        await asyncio.sleep(3_599)
        assert order(holders, make_call("Hi")) == "bac"

    run(scenario())


@pytest.mark.parametrize("name", ["p/gone", "p/b"])
def test_a_broken_or_unknown_holder_changes_nothing(name: str) -> None:
    """An open breaker, or a target of another route, leaves the balance's order."""

    async def scenario() -> None:
        holders = Holders()
        holders.note(make_call("Hi"), name, "5m")
        assert order(holders, make_call("Hi"), broken="p/b") == "abc"

    run(scenario())


def test_memory_is_bounded() -> None:
    """The conversations used least recently are forgotten; what says nothing is not kept."""

    async def scenario() -> None:
        holders = Holders()
        holders.note(make_call(""), "p/a", "5m")
        assert not holders._targets
        for number in range(ENTRIES + 10):
            holders.note(make_call(f"{number}"), "p/a", "5m")
        assert len(holders._targets) == ENTRIES
        assert holders.of(make_call("9")) == ""
        assert holders.of(make_call("10")) == "p/a"

    run(scenario())
