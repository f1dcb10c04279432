"""What is kept: rules about requests, answers and what clients ask for."""

from __future__ import annotations

from typing import Any

import pytest
from cache.caches import END, Instance, Scripted, SharedStore, asked, text
from policies.models import HELLO, say
from virtual_time import run

from firsttoken.cache import policy
from firsttoken.chat import ChatRequest, Message, Text, Tool, ToolResult
from firsttoken.model import Call, Chunk, ToolCall
from firsttoken.settings import Cache


def request(words: str = "What is a monad?", **fields: Any) -> ChatRequest:
    return ChatRequest("m", (Message("user", (Text(words),)),), **{"temperature": 0.0, **fields})


SAMPLED = [({}, False), ({"temperature": 0.0}, True), ({"temperature": 0.7}, False)]
SAMPLED += [({"temperature": 0.7, "seed": 1}, True), ({"seed": 0}, True), ({"top_p": 0.1}, False)]


@pytest.mark.parametrize(("fields", "kept"), SAMPLED, ids=str)
def test_what_would_differ_each_time(fields: dict[str, Any], kept: bool) -> None:
    """Neither temperature 0 nor a seed: kept only where the configuration says so."""
    asked = request(**{"temperature": None, **fields})
    assert policy.may_cache(asked, Cache()) is kept
    assert policy.may_cache(asked, Cache(sampled=True))


@pytest.mark.parametrize("how", ["tools", "results"])
def test_tools_only_where_allowed(how: str) -> None:
    """A request with tools, or with what one of them said, is kept only with ``tools = true``."""
    asked = request(tools=(Tool("f"),))
    if how == "results":
        said = Message("tool", (ToolResult("1", (Text("sunny"),)),))
        asked = ChatRequest("m", (*request().messages, said), temperature=0.0)
    assert not policy.may_cache(asked, Cache())
    assert policy.may_cache(asked, Cache(tools=True))


RELATIVE = ["What's the weather in Rome?", "LATEST news", "price of gold", "What day is it today?"]
RELATIVE += [
    "is it open now?",
    "Who is the current\tpresident",
    "up-to-date list",
    "what   time",
    "exchange rate",
]
STEADY = [
    "What is knowledge?",
    "Snowfall in general",
    "priceless art",
    "Explain TCP",
    "Whether it newsed",
    "",
]


@pytest.mark.parametrize("words", RELATIVE)
def test_what_depends_on_now(words: str) -> None:
    """A word of time as a whole word, in any case: not kept unless the configuration says so."""
    assert not policy.may_cache(request(words), Cache())
    assert policy.may_cache(request(words), Cache(time_relative=True))


@pytest.mark.parametrize("words", STEADY)
def test_what_does_not_depend_on_now(words: str) -> None:
    """Parts of words are none."""
    assert policy.may_cache(request(words), Cache())


def test_where_words_of_time_are_looked_for() -> None:
    """In what the user said, in an earlier turn too, at both ends of a long one; not in the system prompt."""

    def conversation(*turns: tuple[Any, str]) -> bool:
        messages = tuple([Message(role, (Text(words),)) for role, words in turns])
        return policy.may_cache(ChatRequest("m", messages, temperature=0.0), Cache())

    assert conversation(("system", "Answer the latest questions now."), ("user", "Hi"))
    assert conversation(("assistant", "today"), ("user", "Hi"))
    assert not conversation(
        ("user", "the weather in Rome?"), ("assistant", "Sunny."), ("user", "And in Oslo?")
    )
    long = "word " * 20_000
    assert not conversation(("user", f"{long} as of today"))
    assert not conversation(("user", f"the latest of this: {long}"))
    assert conversation(("user", f"{long} weather {long}"))
    assert conversation(("user", "weather"), ("user", long))


WISHES = {
    "": "",
    "no-store": "no-store",
    "No-Cache": "no-cache",
    "max-age=0": "no-cache",
    "max-age=60": "",
    "no-cache, no-store": "no-store",
    "private,no-cache": "no-cache",
    "x-no-store": "",
}


@pytest.mark.parametrize(("header", "wish"), WISHES.items())
def test_what_the_header_says(header: str, wish: str) -> None:
    """The directives of HTTP, in any case and order."""
    assert policy.wish_of({"cache-control": header} if header else {}) == wish


def test_a_client_may_forbid_to_keep() -> None:
    """``no-store``: neither looked up nor kept, and the record says nothing of a cache."""

    async def work() -> None:
        model = Scripted(HELLO)
        one = Instance(model, SharedStore())
        for state in ("", "", "miss", "hit", ""):
            headers = {} if state else {"cache-control": "no-store"}
            assert (await one.ask(headers=headers))[0] == state
        assert len(model.calls) == 4

    run(work())


def test_a_client_may_ask_for_a_new_one() -> None:
    """``no-cache``: made anew, without waiting for anybody, and kept for all others."""

    async def work() -> None:
        model, store = Scripted((say("old"), END), (say("new"), END)), SharedStore()
        one, other = Instance(model, store), Instance(model, store)
        await one.ask()
        state, chunks = await one.ask(headers={"cache-control": "no-cache"})
        assert (state, text(chunks)) == ("miss", "new")
        for instance in (one, other):
            state, chunks = await instance.ask()
            assert (state, text(chunks)) == ("hit", "new")
        assert one.answers.key(asked(headers={"cache-control": "no-cache"})) is None

    run(work())


KEPT: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((say("Hi", finish="stop"),), {}),
    ((say("Hi", finish="stop_sequence"),), {}),
    ((say("Hi", finish="length"),), {"max_tokens": 1}),
    ((Chunk(tool_calls=(ToolCall(0, "1", "f", "{}"),), finish="tool_calls"),), {}),
]
LEFT: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((say("Hi", finish="length"),), {}),
    ((say("Hi", finish="content_filter"),), {}),
    ((say("No", finish="refusal"),), {}),
    ((say("Hi", finish="context_length"),), {}),
    ((Chunk(refusal="No", text="x", finish="stop"),), {}),
    ((say("Hi"),), {}),
    ((Chunk(finish="stop"),), {}),
    ((Chunk(reasoning="Hm", finish="stop"),), {}),
]


@pytest.mark.parametrize("script,fields", KEPT, ids=str)  # noqa: PT006
def test_whole_answers_are_kept(script: Any, fields: dict[str, Any]) -> None:
    """An answer that ended as it should is given again."""
    assert states(script, fields) == ["miss", "hit"]


@pytest.mark.parametrize("script,fields", LEFT, ids=str)  # noqa: PT006
def test_other_answers_are_not(script: Any, fields: dict[str, Any]) -> None:
    """Cut short by a limit of the target's, filtered, refused, without an end, or empty: made again."""
    assert states(script, fields) == ["miss", "miss"]


@pytest.mark.parametrize("change", [{"rung": "text"}, {"resumed": 1}, {"cache": "similar"}], ids=str)
def test_answers_from_elsewhere_are_not(change: dict[str, Any]) -> None:
    """From a lower rung, gone on with after a break, or another question's: not kept under this key."""

    def script(call: Call) -> Any:
        for name, value in change.items():
            setattr(call.record, name, value)
        return HELLO

    first, second = states(script, {})
    assert first == second != "hit"


def states(script: Any, fields: dict[str, Any]) -> list[str]:
    """What the records of two equal calls say."""

    async def work() -> list[str]:
        one = Instance(Scripted(script), SharedStore(), tools=True)
        return [(await one.ask(**fields))[0] for _ in range(2)]

    return run(work())
