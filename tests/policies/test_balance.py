"""Balance: which target is asked first."""

from collections import Counter

import pytest
from msgspec.structs import replace

from firsttoken.chat import Image, Message, Text
from firsttoken.policies.balance import balance_of
from firsttoken.policies.target import Target
from tests.policies.models import Scripted, make_call
from tests.policies.targets import learned, seeded, target, targets
from tests.virtual_time import run

BALANCES = ["order", "weight", "least_busy", "latency", "cost", "quota"]
NAMES = ["a", "b", "c"]


def _names(listed) -> list[str]:
    return [item.name for item in listed]


def _three() -> list[Target]:
    return targets(a=Scripted(), b=Scripted(), c=Scripted())


def _firsts(balance, listed, calls) -> Counter[str]:
    return Counter(balance.order(call, listed)[0].name for call in calls)


async def _call(*messages: tuple[str, str], tenant: str = "local", **fields):
    """A call with these messages, roles and texts."""
    turns = tuple([Message(role, (Text(text),)) for role, text in messages])
    made = make_call(tenant=tenant)
    return replace(made, request=replace(made.request, messages=turns, **fields))


@pytest.mark.parametrize("name", BALANCES)
def test_all_of_them(name: str) -> None:
    """Every strategy returns all targets, each once, and leaves the configured list as it is."""

    async def work() -> None:
        listed = _three()
        balance = balance_of(name, {}, seeded())
        for number in range(50):
            assert sorted(_names(balance.order(make_call(str(number)), listed))) == NAMES
        assert _names(listed) == NAMES

    run(work())


@pytest.mark.parametrize("name", ["order", "least_busy", "cost", "quota"])
def test_ties(name: str) -> None:
    """Where nothing tells them apart the configured order stays."""

    async def work() -> None:
        assert _names(balance_of(name, {}, seeded()).order(make_call(), _three())) == NAMES

    run(work())


def test_order_costs_nothing() -> None:
    """The configured order is not even copied."""

    async def work() -> None:
        listed = _three()
        assert balance_of("order", {}, seeded()).order(make_call(), listed) is listed

    run(work())


@pytest.mark.parametrize("sticky", [True, False])
def test_weight(sticky: bool) -> None:
    """Each target gets its share of the conversations, whether they stick or not."""

    async def work() -> None:
        balance = balance_of("weight", {"a": 1, "b": 3}, seeded(), sticky=sticky)
        listed = targets(a=Scripted(), b=Scripted())
        calls = [await _call(("user", f"conversation {number}")) for number in range(2000)]
        assert _firsts(balance, listed, calls)["b"] / 2000 == pytest.approx(0.75, abs=0.03)

    run(work())


def test_sticky() -> None:
    """All calls of a conversation have the same order; without stickiness they are spread."""

    async def work() -> None:
        start = [("system", "Be brief."), ("user", "Hi")]
        calls = [await _call(*start, *[("assistant", "yes"), ("user", "go on")] * turn) for turn in range(50)]
        sticky = balance_of("weight", {}, seeded())
        assert len({tuple(_names(sticky.order(call, _three()))) for call in calls}) == 1
        assert len(_firsts(balance_of("weight", {}, seeded(), sticky=False), _three(), calls)) == 3

    run(work())


@pytest.mark.parametrize("field", ["cache_key", "user"])
def test_sticky_key(field: str) -> None:
    """What the client calls the conversation, or itself, decides before any text."""

    async def work() -> None:
        balance = balance_of("weight", {}, seeded())
        same = [await _call(("user", str(number)), **{field: "k"}) for number in range(50)]
        assert len(_firsts(balance, _three(), same)) == 1
        others = [await _call(("user", "Hi"), **{field: str(number)}) for number in range(50)]
        assert len(_firsts(balance, _three(), others)) == 3

    run(work())


@pytest.mark.parametrize("part", ["tenant", "system", "user"])
def test_sticky_parts(part: str) -> None:
    """Another tenant, system message or first user message is another conversation."""

    async def work() -> None:
        calls = []
        for number in range(50):
            text = {"tenant": "t", "system": "s", "user": "u"} | {part: str(number)}
            turns = ("system", text["system"]), ("user", text["user"])
            calls.append(await _call(*turns, tenant=text["tenant"]))
        assert len(_firsts(balance_of("weight", {}, seeded()), _three(), calls)) == 3

    run(work())


def test_sticky_without_text() -> None:
    """What cannot be told apart is drawn: pictures without words do not all go to one target."""

    async def work() -> None:
        made = make_call()
        turns = (Message("user", (Image(url="https://example.com/x.png"),)),)
        call = replace(made, request=replace(made.request, messages=turns))
        assert len(_firsts(balance_of("weight", {}, seeded()), _three(), [call] * 50)) == 3

    run(work())


def test_rendezvous() -> None:
    """Where a target is taken away only its own conversations move."""

    async def work() -> None:
        balance = balance_of("weight", {}, seeded())
        listed = _three()
        for number in range(200):
            call = await _call(("user", str(number)))
            before = _names(balance.order(call, listed))
            assert _names(balance.order(call, listed[:2])) == [name for name in before if name != "c"]

    run(work())


def test_least_busy() -> None:
    """The target with the fewest calls under way for its weight is asked first."""

    async def work() -> None:
        listed = _three()
        for item, busy in zip(listed, (2, 3, 1), strict=True):
            item.stats.in_flight = busy
        call = make_call()
        assert _names(balance_of("least_busy", {}, seeded()).order(call, listed)) == ["c", "a", "b"]
        assert _names(balance_of("least_busy", {"b": 4}, seeded()).order(call, listed)) == ["b", "c", "a"]

    run(work())


def test_latency() -> None:
    """The fastest first token leads; now and then another one does, first of all an unknown one."""

    async def work() -> None:
        listed = _three()
        balance = balance_of("latency", {}, seeded())
        learned(listed[0], 2.0)
        learned(listed[1], 1.0)
        firsts = _firsts(balance, listed, [make_call()] * 2000)
        assert set(firsts) == {"b", "c"}
        assert firsts["c"] / 2000 == pytest.approx(0.05, abs=0.015)
        learned(listed[2], 3.0)
        firsts = _firsts(balance, listed, [make_call()] * 2000)
        assert firsts["b"] / 2000 == pytest.approx(0.95, abs=0.015)
        assert set(firsts) == {"a", "b", "c"}

    run(work())


def test_cost() -> None:
    """The cheapest leads; a target of unknown price comes last."""

    async def work() -> None:
        prices = {"a": 0.0, "b": 2.0, "c": 1.0}
        listed = [target(name, Scripted(), price=price) for name, price in prices.items()]
        assert _names(balance_of("cost", {}, seeded()).order(make_call(), listed)) == ["c", "b", "a"]

    run(work())


def test_quota() -> None:
    """The target with the largest share of its rate limit left leads."""

    async def work() -> None:
        left = {"a": 0.2, "b": 1.0, "c": 0.5}
        listed = [target(name, Scripted(), headroom=lambda name=name: left[name]) for name in left]
        assert _names(balance_of("quota", {}, seeded()).order(make_call(), listed)) == ["b", "c", "a"]

    run(work())
