"""The scope of a call: what keeps questions apart, and what calls have none."""

from __future__ import annotations

from typing import Any

import pytest

from firsttoken.cache.scope import LENGTH, MAX_QUESTION, Place, question_of, scope_of
from firsttoken.chat import (
    ChatRequest,
    Image,
    Message,
    OutputFormat,
    Reasoning,
    ReasoningWish,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from firsttoken.model import Call, Source

PLACE = Place("m", "1", "lexical-1:384")
TOOL = Tool("search")


def user(text: str = "How do I pay?", **fields: Any) -> Message:
    return Message("user", (Text(text, **fields),))


NOTHING = Source("", b"")


def call(
    *messages: Message, tenant: str = "t", source: Source = NOTHING, region: str = "", **fields: Any
) -> Call:
    request = ChatRequest(**{"model": "m", "messages": messages or (user(),), **fields})
    headers = {"x-region": region} if region else {}
    return Call(request=request, source=source, id="r", deadline=0.0, tenant=tenant, headers=headers)


def test_calls_that_differ_in_their_last_question_share_a_scope():
    """So do those that differ in how the answer is delivered, in labels, and in cache markers."""
    scope = scope_of(call(), PLACE)
    assert scope is not None
    assert len(scope) == LENGTH
    for same in (
        call(user("Why?")),
        call(user("Why?", cache="5m")),
        call(stream=True, include_usage=True),
        call(user="me", metadata={"a": "b"}),
    ):
        assert scope_of(same, PLACE) == scope


@pytest.mark.parametrize(
    "other",
    [
        call(tenant="u"),
        call(model="n"),
        call(Message("system", (Text("Be brief."),)), user()),
        call(Message("developer", (Text("Be brief."),)), user()),
        call(Message("system", (Text("Be long."),)), user()),
        call(user("Hi"), Message("assistant", (Text("Hello"),)), user()),
        call(user("Hi"), Message("assistant", (Text("Hello!"),)), user()),
        call(Message("user", (Text("How do I pay?"),), name="ann")),
        call(temperature=0.0),
        call(temperature=1.0),
        call(top_p=0.5),
        call(top_k=5),
        call(max_tokens=5),
        call(stop=("x",)),
        call(seed=1),
        call(presence_penalty=0.5),
        call(frequency_penalty=0.5),
        call(tools=(TOOL,), tool_choice=ToolChoice("none")),
        call(tools=(Tool("other"),), tool_choice=ToolChoice("none")),
        call(output=OutputFormat()),
        call(output=OutputFormat(schema={"type": "object"})),
        call(reasoning=ReasoningWish(effort="low")),
        call(source=Source("openai-chat", b'{"logit_bias": {"1": 2}}', ("logit_bias",))),
    ],
    ids=str,
)
def test_whatever_else_changes_an_answer_changes_the_scope(other):
    """Tenant, model, instructions, earlier turns, tools, format, sampling and unknown fields keep apart."""
    scopes = {scope_of(call(), PLACE), scope_of(other, PLACE)}
    assert None not in scopes
    assert len(scopes) == 2


def test_what_is_the_routes_keeps_apart_too():
    """Its name, its version, the embedder and the headers; no two lists of them look the same."""
    places = [
        PLACE,
        Place("n", "1", "lexical-1:384"),
        Place("m", "2", "lexical-1:384"),
        Place("m", "1", "lexical-2:384"),
        Place("m", "1", "lexical-1:256"),
        Place("m1", "", "lexical-1:384"),
        Place("m", "1l", "exical-1:384"),
    ]
    scopes = [scope_of(call(), place) for place in places]
    told = Place("m", "1", "lexical-1:384", ("x-region",))
    scopes += [scope_of(call(region=region), told) for region in ("eu", "us")]
    assert len(set(scopes)) == len(scopes)
    assert scope_of(call(region="eu"), PLACE) == scopes[0] == scope_of(call(), told)


@pytest.mark.parametrize(
    "bypassed",
    [
        call(Message("assistant", (Text("Hello"),))),
        call(user(), Message("assistant", (Text("You"),))),
        call(user(), Message("tool", (ToolResult("1", (Text("5"),)),))),
        call(Message("user", (Text("a"), Text("b")))),
        call(Message("user", (Text("What is this?"), Image(url="https://x/y.png")))),
        call(Message("user", (Image(url="https://x/y.png"),))),
        call(Message("user", (Reasoning("hm"),))),
        call(Message("user", (ToolUse("1", "f", "{}"),))),
        call(Message("user", ())),
        call(user("")),
        call(user(" \n\t")),
        call(user("x" * (MAX_QUESTION + 1))),
        call(user("half a character: \ud800")),
        call(tools=(TOOL,)),
        call(tools=(TOOL,), tool_choice=ToolChoice("auto")),
        call(tools=(TOOL,), tool_choice=ToolChoice("required")),
        call(temperature=float("nan")),
        call(source=Source("openai-chat", b"{}", ("not_there",))),
        call(source=Source("openai-chat", b"not json", ("logit_bias",))),
    ],
    ids=str,
)
def test_calls_without_one_plain_question_have_no_scope(bypassed):
    """Pictures, tools and their results, several parts, too much text, what cannot be told: bypassed."""
    assert scope_of(bypassed, PLACE) is None


def test_a_question_may_be_as_long_as_the_limit():
    """The limit counts characters."""
    assert question_of(call(user("ä" * MAX_QUESTION))) == "ä" * MAX_QUESTION


def test_a_last_turn_in_the_clients_own_words_never_shares():
    """Where a format's unknown field holds the messages, two questions have two scopes."""
    scopes = {
        scope_of(call(source=Source("openai-chat", b'{"messages": ["%d"]}' % n, ("messages[0].x",))), PLACE)
        for n in range(3)
    }
    assert len(scopes) == 3
