"""The providers' prompt caches, through the policy that stands around a provider."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from policies.models import Scripted, say
from virtual_time import run

from benchmarks.caching_workloads import MarkedOnly
from firsttoken.cache.break_even import Ledger
from firsttoken.cache.prefix import Prefixed, PrefixSavings
from firsttoken.cache.prefix_marks import has_markers
from firsttoken.cache.prefix_rules import Rules, rules_of
from firsttoken.chat import ChatRequest, Message, Text, Tool
from firsttoken.errors import UpstreamError
from firsttoken.model import Call, Chunk, Source, Usage
from firsttoken.settings import (
    AnthropicProvider,
    AzureProvider,
    BedrockProvider,
    GeminiProvider,
    OpenAIProvider,
    Prefix,
    SimulatedProvider,
    VertexProvider,
)
from firsttoken.telemetry.record import Record

CLAUDE = "claude-sonnet-5-5"
INSTRUCTIONS = " ".join(f"Rule {number}: be exact, brief and kind." for number in range(400))
SETTINGS = Prefix(reorder=False)
BILL = Usage(input=5_000, output=5, cached=4_000, cache_write=100)


def call_of(*messages: Message, wire: str = "openai-chat", tenant: str = "a", **fields: Any) -> Call:
    request = ChatRequest(model="m", messages=messages, stream=True, **fields)
    source = Source(wire, b'{"model": "m"}')
    return Call(request=request, source=source, id="1", deadline=1e9, tenant=tenant, record=Record())


def system(text: str = INSTRUCTIONS) -> Message:
    return Message("system", (Text(text),))


def user(text: str) -> Message:
    return Message("user", (Text(text),))


def assistant(text: str) -> Message:
    return Message("assistant", (Text(text),))


def prefixed(model: Any, rules: Any = None, **options: Any) -> Prefixed:
    """A target with enough in its ledger: what has none is the business of test_prefix_ledger."""
    options.setdefault("ledger", lambda _name: Ledger(1e6))
    rules = rules or partial(rules_of, AnthropicProvider())
    name = options.pop("name", f"p/{CLAUDE}")
    savings = options.pop("savings", PrefixSavings())
    return Prefixed(model, options.pop("settings", SETTINGS), rules, name=name, savings=savings, **options)


async def ask(model: Any, call: Call) -> tuple[str, Usage]:
    text, usage = "", Usage()
    async for chunk in model.stream(call):
        text += chunk.text
        usage = chunk.usage or usage
    return text, usage


async def talk(
    model: Any, turns: int, *, pause: float = 30.0, **options: Any
) -> tuple[list[Usage], list[Call]]:
    """A conversation: each turn says what was said before."""
    messages, used, calls = [system()], [], []
    for turn in range(turns):
        messages.append(user(f"Question {turn}: " + "what does the contract say of it? " * 20))
        call = call_of(*messages, **options)
        text, usage = await ask(model, call)
        messages.append(assistant(text))
        used.append(usage)
        calls.append(call)
        await asyncio.sleep(pause)
    return used, calls


def test_a_conversation_of_twenty_turns_saves_nine_tenths_of_what_is_cached() -> None:
    """What is read from the cache costs a tenth, and nearly all of a long conversation is."""

    async def scenario() -> None:
        savings = PrefixSavings()
        model = prefixed(MarkedOnly(), savings=savings, name="p/claude-opus-5")
        used, calls = await talk(model, 20)
        assert [bool(usage.cached) for usage in used] == [False, False, *[True] * 18]
        prompt, cached = sum(usage.input for usage in used), sum(usage.cached for usage in used)
        assert cached > 0.85 * prompt
        written = sum(usage.cache_write for usage in used)
        plain = prompt * 5 / 1e6
        billed = (prompt - cached - written) * 5 / 1e6 + cached * 0.5 / 1e6 + written * 6.25 / 1e6
        row = savings.view()["p/claude-opus-5"]
        assert row["saved"] == pytest.approx(plain - billed, abs=1e-5)
        assert row["saved"] > 0.75 * plain
        surcharges = written * 1.25 / 1e6
        assert (row["saved"] + surcharges) / (cached * 5 / 1e6) == pytest.approx(0.9, abs=1e-3)
        noted = sum(float(call.record.notes.get("saved", 0)) for call in calls)
        assert noted == pytest.approx(row["saved"], abs=2e-5)

    run(scenario())


def test_without_the_policy_nothing_is_cached() -> None:
    """The saving is the policy's: the same conversation without it reads nothing from the cache."""

    async def scenario() -> None:
        used, _ = await talk(MarkedOnly(), 5)
        assert not any(usage.cached or usage.cache_write for usage in used)

    run(scenario())


def test_instructions_are_shared_by_conversations_of_a_tenant() -> None:
    """From the second conversation on the instructions are in the cache; another tenant has its own."""

    async def scenario() -> None:
        model = prefixed(MarkedOnly())
        seen = [
            (await ask(model, call_of(system(), user(f"Question {number}"), tenant=tenant)))[1]
            for number, tenant in enumerate("aaab")
        ]
        assert [bool(usage.cache_write) for usage in seen] == [False, True, False, False]
        assert [bool(usage.cached) for usage in seen] == [False, False, True, False]

    run(scenario())


def test_instructions_that_change_are_never_paid_for() -> None:
    """A date in the instructions makes each prompt another one: no write, no loss."""

    async def scenario() -> None:
        model = prefixed(MarkedOnly())
        for number in range(10):
            call = call_of(system(f"It is {number} o'clock. {INSTRUCTIONS}"), user("Hello"))
            _, usage = await ask(model, call)
            assert not usage.cache_write

    run(scenario())


def test_a_prefix_that_comes_too_late_is_not_written() -> None:
    """Calls further apart than the provider keeps a prefix do not pay for it."""

    async def scenario() -> None:
        model = prefixed(MarkedOnly())
        for _ in range(6):
            _, usage = await ask(model, call_of(system(), user("Hello")))
            assert not usage.cache_write
            await asyncio.sleep(301)

    run(scenario())


def test_an_hour_is_asked_for_where_configured() -> None:
    """With ``ttl = "1h"`` the pauses may be longer; markers ask for it, and the bill says twice the price."""

    async def scenario() -> None:
        inner = MarkedOnly()
        model = prefixed(inner, settings=Prefix(ttl="1h", reorder=False))
        used, _ = await talk(model, 6, pause=600)
        assert used[-1].cached > 0.7 * used[-1].input
        assert {part.cache for part in inner.calls[-1].request.messages[0].parts} == {"1h"}

    run(scenario())


def test_calls_at_the_same_time_write_once() -> None:
    """While one call writes a prefix, others neither pay for it again nor can read it yet."""

    async def scenario() -> None:
        bill = Chunk(finish="stop", usage=BILL)
        slow = Scripted([say("Hi"), bill], [5.0, say("Hi"), bill])
        model = prefixed(slow)
        await ask(model, call_of(system(), user("0")))
        await asyncio.gather(*(ask(model, call_of(system(), user(str(n)))) for n in range(1, 5)))
        assert [has_markers(call.request) for call in slow.calls] == [False, True, False, False, False]
        await ask(model, call_of(system(), user("9")))
        assert has_markers(slow.calls[-1].request)

    run(scenario())


def test_markers_of_the_client_are_left_alone() -> None:
    """A client that says what is to be cached gets just that, by the same objects."""

    async def scenario() -> None:
        inner = Scripted([say("Hi"), Chunk(finish="stop", usage=BILL)])
        model = prefixed(inner)
        for _ in range(3):
            own = Message("system", (Text(INSTRUCTIONS, cache="1h"),))
            call = call_of(own, user("Hello"), wire="anthropic")
            await ask(model, call)
            assert inner.calls[-1] is call

    run(scenario())


@pytest.mark.parametrize(
    ("provider", "model", "marks", "wire"),
    [
        (AnthropicProvider(), CLAUDE, "cache_control", "anthropic"),
        (VertexProvider(project="x"), CLAUDE, "cache_control", "anthropic"),
        (VertexProvider(project="x"), "gemini-3.8-flash", "", "gemini"),
        (GeminiProvider(), "gemini-3.8-flash", "", "gemini"),
        (BedrockProvider(region="eu-west-1"), f"eu.anthropic.{CLAUDE}", "cachePoint", "bedrock-converse"),
        (BedrockProvider(region="eu-west-1"), "amazon.nova-micro-v1:0", "cachePoint", "bedrock-converse"),
        (BedrockProvider(region="eu-west-1"), "meta.llama4", "", "bedrock-converse"),
        (BedrockProvider(region="eu-west-1", api="openai"), "openai.gpt-oss", "", ""),
        (OpenAIProvider(base_url="https://api.openai.com/v1"), "gpt-6.1-sol", "", "openai-chat"),
        (SimulatedProvider(), "m", "", ""),
    ],
)
def test_who_gets_markers(provider: Any, model: str, marks: str, wire: str) -> None:
    """Only providers that cache by marker get any."""
    rules = rules_of(provider, model)
    assert (rules.marks, rules.wire) == (marks, wire)


def test_bedrock_has_minimums_of_its_own_and_nova_no_markers_behind_tools() -> None:
    """What holds at Anthropic need not hold for the same model elsewhere."""
    bedrock = BedrockProvider(region="eu-west-1")
    assert rules_of(bedrock, "anthropic.claude-opus-4-7").prices.minimum == 4096
    assert rules_of(AnthropicProvider(), "claude-opus-4-7").prices.minimum == 2048
    assert not rules_of(bedrock, "amazon.nova-micro-v1:0").tools


@pytest.mark.parametrize(
    ("base_url", "key"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("http://127.0.0.1:8000/v1", False),
        ("https://openai.com.example.net/v1", False),
    ],
)
def test_only_servers_that_are_known_to_take_a_cache_key_get_one(base_url: str, *, key: bool) -> None:
    """Other servers of the format may refuse a field that they do not know."""
    assert rules_of(OpenAIProvider(base_url=base_url), "gpt-6.1-sol").key is key
    assert rules_of(AzureProvider(base_url="https://x.openai.azure.com/openai/v1"), "d").key


def test_a_conversation_is_the_cache_key() -> None:
    """From the second turn on all calls of a conversation have one key; other tenants have others."""

    async def scenario() -> None:
        inner = Scripted([say("Hi"), Chunk(finish="stop", usage=BILL)])
        rules = partial(rules_of, OpenAIProvider(base_url="https://api.openai.com/v1"))
        model = prefixed(inner, rules, name="p/gpt-6.1-sol")
        turns = [system(), user("Hello"), assistant("Hi"), user("More")]
        for tenant in "aab":
            await ask(model, call_of(*turns[:2], wire="anthropic", tenant=tenant))
            await ask(model, call_of(*turns, wire="anthropic", tenant=tenant))
            await ask(model, call_of(*turns, assistant("Ok"), user("!"), wire="openai-chat", tenant=tenant))
        keys = [call.request.cache_key for call in inner.calls]
        assert keys[0::3] == ["", "", ""]
        assert keys[1] == keys[2] == keys[4] == keys[5] != ""
        assert keys[7] == keys[8] != keys[1]
        assert inner.calls[2].source.body == b'{"model": "m","prompt_cache_key":"%s"}' % keys[2].encode()
        own = call_of(*turns, wire="anthropic", cache_key="mine")
        await ask(model, own)
        assert inner.calls[-1] is own
        short = call_of(user("Hello"), assistant("Hi"), user("More"))
        await ask(model, short)
        assert inner.calls[-1] is short

    run(scenario())


def test_settings_turn_it_off() -> None:
    """Without markers every call goes through as it is, and is counted."""

    async def scenario() -> None:
        savings, inner = PrefixSavings(), Scripted([say("Hi"), Chunk(finish="stop", usage=BILL)])
        model = prefixed(inner, settings=Prefix(markers=False, reorder=False), savings=savings)
        for _ in range(3):
            call = call_of(system(), user("Hello"))
            await ask(model, call)
            assert inner.calls[-1] is call
        row = savings.view()[f"p/{CLAUDE}"]
        assert (row["calls"], row["cached_tokens"], row["cached_share"]) == (3, 12_000, 0.8)

    run(scenario())


def test_tools_are_sorted_only_when_asked_and_only_in_translation() -> None:
    """A client's own bytes and tools of one name keep their order; so does everything by configuration."""

    async def scenario() -> None:
        inner = Scripted([say("Hi"), Chunk(finish="stop", usage=BILL)])
        sorting = prefixed(inner, settings=Prefix(reorder=True))
        plain = prefixed(inner)
        tools = (Tool("b"), Tool("a"))

        async def order(model: Any, wire: str, *given: Tool) -> str:
            await ask(model, call_of(user("Hello"), wire=wire, tools=given))
            return "".join(tool.name for tool in inner.calls[-1].request.tools)

        assert await order(sorting, "openai-chat", *tools) == "ab"
        assert await order(sorting, "anthropic", *tools) == "ba"
        assert await order(plain, "openai-chat", *tools) == "ba"
        assert await order(sorting, "openai-chat", Tool("b"), Tool("a"), Tool("b", "2")) == "bab"

    run(scenario())


def test_the_operators_price_counts() -> None:
    """What was saved is in the currency of the configured price, else in the list's dollars."""
    usage = Usage(input=2_000_000, cached=1_000_000, cache_write=1_000_000)
    own = rules_of(AnthropicProvider(), "claude-opus-5", price=10.0)
    assert own.saved(usage.cached, usage.cache_write, "5m") == pytest.approx(10 * (0.9 - 0.25))
    assert own.saved(usage.cached, usage.cache_write, "1h") == pytest.approx(10 * (0.9 - 1))
    assert rules_of(AnthropicProvider(), "claude-opus-5").price == 5
    assert Rules().saved(5, 5, "5m") == 0


def test_an_answer_that_fails_costs_nothing_and_one_that_is_left_the_worst() -> None:
    """A write is taken back when there was no answer, and counted in full when nobody saw the bill."""

    async def scenario() -> None:
        bill = Chunk(finish="stop", usage=BILL)
        inner = Scripted([say("Hi"), bill], [UpstreamError("no")], [say("Hi"), say("!"), bill])
        model = prefixed(inner)
        await ask(model, call_of(system(), user("0")))
        with pytest.raises(UpstreamError):
            await ask(model, call_of(system(), user("1")))
        ledger = model._models[CLAUDE].marker.planner.ledger
        assert (ledger.reserved, ledger.balance) == (0, 1e6)
        stream = model.stream(call_of(system(), user("2")))
        await anext(stream)
        await stream.aclose()
        assert ledger.reserved == 0
        assert ledger.balance <= 1e6

    run(scenario())


def test_who_holds_a_conversation_is_told() -> None:
    """A target that has read or written a prefix, or caches by itself, holds the conversation."""

    async def scenario() -> None:
        told: list[str] = []

        def held(call: Call, target: str, _ttl: str) -> None:
            told.append(f"{target}:{call.request.messages[-1].text()}")

        cached = Scripted([say("Hi"), Chunk(finish="stop", usage=BILL)])
        short = Scripted([say("Hi"), Chunk(finish="stop", usage=Usage(input=50))])
        await ask(prefixed(cached, held=held), call_of(user("long")))
        await ask(prefixed(short, held=held), call_of(user("short")))
        rules = partial(rules_of, SimulatedProvider())
        await ask(prefixed(short, rules, held=held), call_of(user("short")))
        await ask(prefixed(cached, rules, held=held, name="s/m"), call_of(user("by itself")))
        assert told == [f"p/{CLAUDE}:long", "s/m:by itself"]

    run(scenario())
