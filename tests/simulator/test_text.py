"""The simulated model's words: deterministic, countable, and never losing a character."""

from __future__ import annotations

from typing import Any

import pytest

from firsttoken.chat import ChatRequest, Message
from firsttoken.simulator import text


def request(content: str, role: Any = "user", **fields: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=[Message(role=role, content=content)], **fields)


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


TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": p}}
    for name, p in (("one", {}), ("two", None))
]


@pytest.mark.parametrize(
    ("prompt", "choice", "name"),
    [
        ("hello", None, None),
        ("hello", "required", "one"),
        ("use two please", "auto", "two"),
        ("use two please", "none", None),
        ("hello", {"type": "function", "function": {"name": "two"}}, "two"),
        ("hello", {"type": "function", "function": "odd"}, None),
    ],
)
def test_which_tool_is_called(prompt: str, choice: Any, name: str | None) -> None:
    """The forced one, a required one, or the one that the prompt names."""
    call = text.tool_call(request(prompt, tools=TOOLS, tool_choice=choice))
    assert (call.name if call else None) == name


@pytest.mark.parametrize("tools", [[{}], [{"function": 1}], [{"function": {"name": 1}}], []])
def test_odd_tools_are_no_tools(tools: Any) -> None:
    """What is not a tool is not called, and nothing breaks."""
    assert text.tool_call(request("hello", tools=tools, tool_choice="required")) is None


def test_arguments_fit_the_schema() -> None:
    """Each property gets a value of its type."""
    properties = {"s": {"type": "string"}, "i": {"type": "integer"}, "b": {"type": "boolean"}, "x": True}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": properties}}}
    call = text.tool_call(request("go", tools=[tool], tool_choice="required"))
    assert call is not None
    assert call.arguments == '{"s":"go","i":1,"b":true,"x":"go"}'
