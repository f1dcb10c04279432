"""Simulated prompt caches: by marker as Anthropic and Bedrock, by themselves as OpenAI and Gemini."""

from __future__ import annotations

from typing import Any

import pytest

from firsttoken.chat import ChatRequest, Image, Message, Reasoning, Text, Tool, ToolResult, ToolUse
from firsttoken.simulator import prompt_cache, text
from firsttoken.simulator.profile import Profile
from firsttoken.simulator.prompt_cache import PromptCache

LONG = ("rule " * 1500).strip()
PROFILE = Profile()


def request(*parts: Any, tools: tuple[Tool, ...] = (), question: str = "hi") -> ChatRequest:
    messages = (Message("user", (Text(question),)), Message("system", parts))
    return ChatRequest(model="m", messages=messages, tools=tools)


class Client:
    """Asks one cache and keeps what it found, as the simulated model does."""

    def __init__(self, profile: Profile = PROFILE) -> None:
        self.cache = PromptCache()
        self.profile = profile

    def ask(
        self, asked: ChatRequest, now: float = 0.0, *, scope: str = "t", marked: bool = True
    ) -> tuple[int, int]:
        found = self.cache.look_up(asked, scope, self.profile, now, marked=marked)
        self.cache.keep(found, now)
        return found.cached, found.written


def test_a_marked_prefix_is_written_then_read() -> None:
    """The first call pays for writing, the next ones read; what follows the marker does not matter."""
    client, size = Client(), 1500 + text.PER_MESSAGE
    assert client.ask(request(Text(LONG, cache="5m"))) == (0, size)
    assert client.ask(request(Text(LONG, cache="5m"), question="other")) == (size, 0)
    assert client.ask(request(Text(LONG, cache="5m")), scope="another tenant") == (0, size)
    assert client.ask(request(Text(LONG))) == (0, 0)
    assert client.ask(request(Text("x " + LONG, cache="5m"))) == (0, size + 1)


@pytest.mark.parametrize(("mark", "seconds"), [("5m", 300), ("1h", 3600)])
def test_a_prefix_is_kept_as_long_as_asked_for(mark: Any, seconds: float) -> None:
    """Each use begins the time anew; after it everything is written again."""
    client, size, asked = Client(), 1500 + text.PER_MESSAGE, request(Text(LONG, cache=mark))
    client.ask(asked, 0.0)
    assert client.ask(asked, seconds - 1) == (size, 0)
    assert client.ask(asked, 2 * seconds - 2) == (size, 0)
    assert client.ask(asked, 3 * seconds) == (0, size)
    quick = Client(Profile(cache_seconds=2))
    quick.ask(asked, 0.0)
    assert quick.ask(asked, 3.0) == (0, size)


def test_a_short_prefix_is_silently_not_cached() -> None:
    """Below the minimum a marker does nothing; the minimum can be set."""
    asked = request(Text("short", cache="5m"))
    assert Client().ask(asked) == (0, 0)
    client = Client(Profile(cache_minimum=2))
    assert client.ask(asked) == (0, 5)
    assert client.ask(asked) == (5, 0)


def test_a_longer_conversation_reads_what_the_shorter_one_wrote() -> None:
    """A marker that moves on finds the prefix up to 20 blocks before it and pays for what is new."""
    client, size = Client(), 1500 + text.PER_MESSAGE
    client.ask(request(Text(LONG, cache="5m")))
    words = [Text(" more") for _ in range(19)]
    longer = request(Text(LONG), *words, Text(" end", cache="5m"))
    assert client.ask(longer) == (size, 20)
    too_long = request(Text(LONG), *words, Text(" new"), Text(" end", cache="5m"))
    assert client.ask(too_long) == (0, size + 21)


def test_tools_come_first() -> None:
    """A marker on a tool caches the tools alone, whatever the messages say."""
    tool = Tool("f", description=LONG, schema={"type": "object"}, cache="1h")
    client = Client()
    cached, written = client.ask(request(Text("a"), tools=(tool,)))
    assert (cached, written) == (0, text.count_tool(tool))
    assert client.ask(request(Text("b"), tools=(tool,))) == (written, 0)


def test_by_themselves_in_steps() -> None:
    """Without markers the longest known prefix counts, in steps of 128 from the minimum on, unwritten."""
    client = Client()
    first = ChatRequest(model="m", messages=(Message("user", (Text(LONG + " one"),)),))
    second = ChatRequest(model="m", messages=(Message("user", (Text(LONG + " two"),)),))
    assert client.ask(first, marked=False) == (0, 0)
    assert client.ask(second, marked=False) == (1408, 0)
    assert client.ask(second, prompt_cache.AUTOMATIC_SECONDS * 2, marked=False) == (0, 0)
    short = ChatRequest(model="m", messages=(Message("user", (Text("word " * 900),)),))
    client.ask(short, marked=False)
    assert client.ask(short, marked=False) == (0, 0)


def test_every_kind_of_part_is_counted_the_same_way() -> None:
    """What the cache counts is what the answer is billed for."""
    parts = (Reasoning("hm"), Text("a b"), Image(url="http://x"), ToolUse("1", "f", '{"a": "bcdefgh"}'))
    messages = (
        Message("assistant", parts),
        Message("tool", (ToolResult("1", (Text("fine", cache="5m"),), cache="5m"),)),
    )
    tools = (Tool("f", "does it", {"type": "object"}),)
    asked = ChatRequest(model="m", messages=messages, tools=tools)
    assert len(prompt_cache._tokens(asked)) == text.count_request(asked)
    assert [*prompt_cache._blocks(asked, 0)][-1].tokens == text.count_request(asked)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefixes used least are forgotten."""
    monkeypatch.setattr(prompt_cache, "_ENTRIES", 2)
    client = Client(Profile(cache_minimum=1))
    for word in ("a", "b", "c"):
        client.ask(request(Text(word, cache="5m")))
    assert client.ask(request(Text("c", cache="5m"))) == (5, 0)
    assert client.ask(request(Text("a", cache="5m"))) == (0, 5)
