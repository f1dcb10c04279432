"""Where markers stand: in neutral words, and in the bodies of clients that speak the target's own format."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pytest
from policies.live import serve

from firsttoken.cache.break_even import Ledger
from firsttoken.cache.prefix import Prefixed, PrefixSavings
from firsttoken.cache.prefix_body import with_cache_key, with_markers
from firsttoken.cache.prefix_marks import has_markers, look_at, marked, ttl_of
from firsttoken.cache.prefix_rules import rules_of
from firsttoken.chat import ChatRequest, Message, Reasoning, Text, Tool, ToolResult, ToolUse
from firsttoken.model import Call, Usage
from firsttoken.providers import anthropic, bedrock
from firsttoken.providers.http import HttpClient, Timeouts
from firsttoken.providers.upstream import Connection
from firsttoken.settings import AnthropicProvider, BedrockProvider, Prefix
from firsttoken.wire import codec_of

LONG = " ".join(f"Rule {number}: be exact, brief and kind." for number in range(300))
TOOLS = [{"name": "look", "input_schema": {"type": "object"}}, {"name": "find", "input_schema": {}}]
CLAUDE_BODY: dict[str, Any] = {
    "model": "m",
    "max_tokens": 100,
    "system": LONG,
    "tools": TOOLS,
    "messages": [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": "seen"},
                {"type": "text", "text": "and now?"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Two"},
                {"type": "thinking", "thinking": "hm", "signature": "s"},
            ],
        },
        {"role": "user", "content": [{"type": "text", "text": "Three"}]},
    ],
    "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
}
BEDROCK_BODY: dict[str, Any] = {
    "system": [{"text": LONG}],
    "toolConfig": {"tools": [{"toolSpec": {"name": "look", "inputSchema": {"json": {"type": "object"}}}}]},
    "messages": [
        {"role": "user", "content": [{"text": "One"}]},
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "look", "input": {}}}]},
        {
            "role": "user",
            "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "seen"}]}}, {"text": "so?"}],
        },
        {"role": "assistant", "content": [{"text": "Two"}]},
        {"role": "user", "content": [{"text": "Three"}]},
    ],
    "additionalModelRequestFields": {"thinking": {"type": "adaptive"}, "anthropic_beta": ["x"]},
}
BODIES = {"anthropic": ("anthropic", CLAUDE_BODY), "bedrock-converse": ("bedrock", BEDROCK_BODY)}


@pytest.mark.parametrize("wire", BODIES)
@pytest.mark.parametrize("ttl", ["5m", "1h"])
def test_a_body_gets_the_same_markers_as_the_neutral_request(wire: str, ttl: Any) -> None:
    """Read again, a marked body is the marked request; nothing else of it has changed."""
    codec, body = codec_of(BODIES[wire][0]), BODIES[wire][1]
    raw = json.dumps(body, indent=1).encode()
    request, source = codec.read_request(raw, "m")
    prompt = look_at(request, "scope")
    assert [mark.place for mark in prompt.marks] == ["tools", "system", "before", "said"]
    written = with_markers(source.wire, raw, prompt.marks, ttl)
    again, _ = codec.read_request(written, "m")
    assert again == marked(request, prompt.marks, ttl)
    assert has_markers(again)
    assert ttl_of(again) == ttl
    assert written.count(b"cache_control" if wire == "anthropic" else b"cachePoint") == 4
    kept = {name for name in body if name not in ("system", "tools", "toolConfig", "messages")}
    assert {name: json.loads(written)[name] for name in kept} == {name: body[name] for name in kept}


def test_the_places_of_a_prompt() -> None:
    """Tokens grow from place to place; only what differs has another key, and tenants share none."""
    request, _ = codec_of("anthropic").read_request(json.dumps(CLAUDE_BODY).encode(), "m")
    ours, theirs = look_at(request, "ours"), look_at(request, "theirs")
    sizes = [mark.tokens for mark in ours.marks]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] < ours.tokens
    assert {mark.key for mark in ours.marks if mark.key}.isdisjoint({mark.key for mark in theirs.marks})
    other = ChatRequest("m", (*request.messages[:-1], Message("user", (Text("Four"),))), tools=request.tools)
    assert [mark.key for mark in look_at(other, "ours").marks] == [mark.key for mark in ours.marks]
    assert look_at(other, "ours").key != ours.key
    assert look_at(other, "ours").before == ours.before


def test_a_conversation_is_known_by_its_earlier_prompts() -> None:
    """What was the whole prompt of a call is among the beginnings of the next one."""
    said = [Message("user", (Text("One"),)), Message("assistant", (Text("Two"),))]
    first = look_at(ChatRequest("m", tuple(said[:1])), "s")
    second = look_at(ChatRequest("m", (*said, Message("user", (Text("Three"),)))), "s")
    assert first.key in second.before
    assert not first.marks
    assert [mark.place for mark in second.marks] == ["said"]


def test_what_cannot_be_marked_is_passed_over() -> None:
    """No marker stands behind a thought, behind empty text, or on a turn that is still to be ended."""
    thought = Message("assistant", (Text("Two"), Reasoning("hm", "sig"), Text("")))
    request = ChatRequest("m", (Message("user", (Text("One"),)), thought, Message("user", (Text("3"),))))
    (mark,) = look_at(request, "s").marks
    assert [
        part for part in marked(request, [mark], "5m").messages[1].parts if getattr(part, "cache", "")
    ] == [Text("Two", cache="5m")]
    only = Message("assistant", (Reasoning("hm", "sig"),))
    assert not look_at(ChatRequest("m", (only, Message("user", (Text("3"),)))), "s").marks
    begun = ChatRequest("m", (Message("user", (Text("One"),)), Message("assistant", (Text("Tw"),))))
    assert not look_at(begun, "s").marks
    assert not look_at(ChatRequest("m", (), tools=(Tool("a"),)), "s", tools=False).marks
    assert look_at(ChatRequest("m", ()), "s").tokens == 0


def test_markers_inside_of_results_are_the_clients() -> None:
    """A marker anywhere is one."""
    inner = ToolResult("t", (Text("seen", cache="5m"),))
    assert has_markers(ChatRequest("m", (Message("tool", (inner,)),)))
    assert has_markers(ChatRequest("m", (), tools=(Tool("a", cache="1h"),)))
    use = ToolUse("t", "look", "{}")
    assert not has_markers(ChatRequest("m", (Message("assistant", (use,)),)))


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        ("anthropic", {**CLAUDE_BODY, "system": ""}),
        ("anthropic", {**CLAUDE_BODY, "tools": []}),
        ("anthropic", {**CLAUDE_BODY, "messages": CLAUDE_BODY["messages"][:2]}),
        ("bedrock-converse", {"messages": []}),
        ("gemini", CLAUDE_BODY),
    ],
)
def test_a_body_that_cannot_be_marked_is_left(wire: str, body: Any) -> None:
    """Where a place is not there, nothing is written at all."""
    request, _ = codec_of("anthropic").read_request(json.dumps(CLAUDE_BODY).encode(), "m")
    assert with_markers(wire, json.dumps(body).encode(), look_at(request, "s").marks, "5m") is None


def test_a_cache_key_is_added_behind_all_else() -> None:
    """All other bytes of the body stay, and a key that is there in any form is the client's."""
    assert with_cache_key(b'{"a": 1 }\n', "k") == b'{"a": 1 ,"prompt_cache_key":"k"}'
    assert with_cache_key(b'{"prompt_cache_key": null}', "k") is None
    assert with_cache_key(b"[]", "k") is None


@pytest.mark.parametrize("wire", BODIES)
def test_a_client_of_the_same_format_reads_from_the_cache(wire: str) -> None:
    """Over HTTP: the second conversation writes the instructions and the next ones read them."""
    codec, body = codec_of(BODIES[wire][0]), BODIES[wire][1]

    async def scenario(url: str) -> list[Usage]:
        client = HttpClient()
        link = Connection(client, Timeouts())
        if wire == "anthropic":
            provider: Any = AnthropicProvider(base_url=url, api_key="k")
            upstream: Any = anthropic.chat("p", provider, "claude-opus-5", link)
            name = "p/claude-opus-5"
        else:
            provider = BedrockProvider(region="eu-west-1", base_url=url, api_key="k")
            upstream = bedrock.chat("p", provider, "anthropic.claude-opus-5", link)
            name = "p/anthropic.claude-opus-5"
        rules = partial(rules_of, provider)
        savings, funds = PrefixSavings(), Ledger(1e6)
        model = Prefixed(upstream, Prefix(), rules, name=name, savings=savings, ledger=lambda _name: funds)
        used: list[Usage] = []
        try:
            await ask_four(model, used)
        finally:
            await client.aclose()
        return used

    async def ask_four(model: Any, used: list[Usage]) -> None:
        for number in range(4):
            text = {"text": f"Question {number}", **({"type": "text"} if wire == "anthropic" else {})}
            simple = ("thinking", "additionalModelRequestFields")
            asked = {field: value for field, value in body.items() if field not in simple}
            asked["messages"] = [{"role": "user", "content": [text]}]
            if wire == "anthropic":
                asked["stream"] = True
            request, source = codec.read_request(json.dumps(asked).encode(), "m", stream=True)
            call = Call(request, source, "1", asyncio.get_running_loop().time() + 30)
            chunks = [chunk async for chunk in model.stream(call)]
            assert any(chunk.raw for chunk in chunks)
            used.append(next(chunk.usage for chunk in reversed(chunks) if chunk.usage))

    with serve() as (url, _):
        used = asyncio.run(scenario(url))
    assert [bool(usage.cache_write) for usage in used] == [False, True, False, False]
    assert [bool(usage.cached) for usage in used] == [False, False, True, True]
