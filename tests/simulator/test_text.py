"""The simulated model's words: deterministic, countable, and never losing a character."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
from firsttoken.simulator import text
from firsttoken.wire.continued import continued


def request(content: str, role: Any = "user", **fields: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=(Message(role, (Text(content),)),), **fields)


@pytest.mark.parametrize(
    "words", ["", " ", "a", "naïve 東京🙂", "  two  spaces ", "averyverylongwordindeed", "line\nbreak\t"]
)
def test_tokens_join_to_the_text(words: str) -> None:
    """Splitting loses nothing."""
    assert "".join(text.tokens(words)) == words


def test_an_answer_depends_on_prompt_and_seed_only() -> None:
    """The same again is the same; another seed is not."""
    assert text.answer(request("hi"), 0, None) == text.answer(request("hi"), 0, None)
    assert text.answer(request("hi"), 0, None) != text.answer(request("hi"), 1, None)
    assert text.answer(request("hi", seed=3), 0, None) != text.answer(request("hi"), 0, None)
    assert "".join(text.answer(request("hi there"), 0, None)).startswith("You said: hi there")


@pytest.mark.parametrize("length", [1, 5, 500])
def test_a_length_is_kept(length: int) -> None:
    """Exactly as many tokens as asked for."""
    assert len(text.answer(request("hi"), 0, length)) == length


@pytest.mark.parametrize("fields", [{}, {"seed": 3}, {"output": OutputFormat()}])
@pytest.mark.parametrize("ask", [False, True])
def test_an_answer_is_gone_on_with(fields: dict[str, Any], ask: bool) -> None:
    """From any of its characters on, in the middle of a token too, the rest is the same answer's."""
    asked = request("hi 東京 🙂", **fields)
    whole = "".join(text.answer(asked, 0, None))
    for cut in range(1, len(whole) + 1):
        rest = text.rest(continued(asked, whole[:cut], ask=ask), 0, None)
        assert rest is not None
        assert "".join(rest) == whole[cut:]


@pytest.mark.parametrize(
    "asked",
    [
        request("hi"),
        request("You said", "assistant"),
        continued(request("hi"), "You said: ho", ask=False),
        continued(request("call one", tools=(Tool("one"),)), "You said", ask=True),
    ],
    ids=["not begun", "nothing before it", "another answer", "a tool call"],
)
def test_what_was_not_begun_is_not_gone_on_with(asked: ChatRequest) -> None:
    """A conversation that does not hold the beginning of this very answer is answered as any other."""
    assert text.rest(asked, 0, None) is None


TOOLS = (Tool("one", schema={}), Tool("two"))


@pytest.mark.parametrize(
    ("prompt", "choice", "names"),
    [
        ("hello", None, []),
        ("hello", ToolChoice("required"), ["one"]),
        ("use two please", ToolChoice("auto"), ["two"]),
        ("use one and two", None, ["one", "two"]),
        ("use two please", ToolChoice("none"), []),
        ("hello", ToolChoice("tool", "two"), ["two"]),
        ("hello", ToolChoice("tool", "absent"), []),
    ],
)
def test_which_tools_are_called(prompt: str, choice: ToolChoice | None, names: list[str]) -> None:
    """The forced one, a required one, or those that the prompt names; one where parallel calls are off."""
    asked = request(prompt, tools=TOOLS, tool_choice=choice)
    assert [call.name for call in text.tool_calls(asked)] == names
    one = request(prompt, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    assert [call.name for call in text.tool_calls(one)] == names[:1]


def test_arguments_fit_the_schema() -> None:
    """Each property gets a value of its type, at any depth."""
    inner = {"type": "object", "properties": {"n": {"type": ["number", "null"]}}}
    properties = {
        "s": {"type": "string"},
        "i": {"type": "integer"},
        "b": {"type": "boolean"},
        "x": True,
        "e": {"enum": ["a", "b"]},
        "l": {"type": "array", "items": inner},
    }
    tool = Tool("f", schema={"type": "object", "properties": properties})
    call = text.tool_calls(request("go", tools=(tool,), tool_choice=ToolChoice("required")))[0]
    assert json.loads(call.arguments) == {
        "s": "go",
        "i": 1,
        "b": True,
        "x": "go",
        "e": "a",
        "l": [{"n": 1.5}],
    }


def test_structured_output_fits_the_schema() -> None:
    """The answer is JSON: of the schema, or any object."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert "".join(text.answer(request("Rome", output=OutputFormat(schema)), 0, None)) == '{"city":"Rome"}'
    assert "".join(text.answer(request("Rome", output=OutputFormat()), 0, None)) == '{"answer":"Rome"}'


def test_pictures_are_seen_and_counted() -> None:
    """The answer says how many there were."""
    message = Message(
        "user", (Text("look"), Image(url="http://x/1.png"), Image(data="AA==", media_type="image/png"))
    )
    asked = ChatRequest(model="m", messages=(message,))
    assert "".join(text.answer(asked, 0, None)).startswith("You said: look (and showed 2 images)")
    assert text.count(message) == text.PER_MESSAGE + 1 + 2 * text.PER_IMAGE


@pytest.mark.parametrize(
    ("wish", "thinks"),
    [
        (None, False),
        (ReasoningWish(effort="low"), True),
        (ReasoningWish(effort="none"), False),
        (ReasoningWish(budget=1024), True),
        (ReasoningWish(enabled=False), False),
    ],
)
def test_thinking_is_asked_for(wish: ReasoningWish | None, thinks: bool) -> None:
    """There is reasoning when the request wants it."""
    assert bool(text.thoughts(request("hi", reasoning=wish))) == thinks


def test_counts_do_not_depend_on_how_a_format_groups_things() -> None:
    """Results in one turn or in several, and JSON with or without spaces, count the same."""
    results = [ToolResult(str(number), (Text("fine"),)) for number in range(2)]
    together = text.count(Message("tool", tuple(results)))
    assert together == sum(text.count(Message("tool", (result,))) for result in results)
    spaced, tight = (
        text.count_part(ToolUse("1", "f", arguments)) for arguments in ('{"a": [1, 2]}', '{"a":[1,2]}')
    )
    assert spaced == tight


def test_a_request_counts_its_tools_and_messages() -> None:
    """The order of a schema's names does not matter, thoughts are free."""
    one = Tool("f", "does it", {"type": "object", "properties": {}})
    other = Tool("f", "does it", {"properties": {}, "type": "object"})
    assert text.count_tool(one) == text.count_tool(other)
    asked = request("hi", tools=(one,))
    assert text.count_request(asked) == text.count_tool(one) + text.count(asked.messages[0])
    assert text.count_part(Reasoning("hm, long thoughts")) == 0
