"""Random requests in the neutral vocabulary, within what a format can express.

`CAN` says for each format what that is; `told` brings a request into the one form in which two that mean the
same are equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import Struct
from wire.strategies import ids, names, objects, texts

from firsttoken.chat import (
    ChatRequest,
    Image,
    Message,
    OutputFormat,
    Part,
    Reasoning,
    ReasoningWish,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Ttl,
)
from firsttoken.wire.gemini.outgoing import UNSIGNED

PNG = "iVBORw0KGgo="


class Can(Struct, frozen=True):
    """What requests of one format may hold."""

    model: str = "m"
    fields: tuple[str, ...] = ()
    """Fields of `ChatRequest` with the values of `VALUES`."""
    wishes: tuple[ReasoningWish, ...] = ()
    outputs: tuple[OutputFormat, ...] = ()
    choices: tuple[str, ...] = ("auto", "required", "tool")
    stricts: tuple[bool | None, ...] = (None,)
    image_url: bool = False
    image_detail: bool = False
    cache: bool = False
    thoughts: bool = False
    """Whether the assistant's signed thoughts can be sent back."""
    is_error: bool = False
    result_images: bool = False
    result_names: bool = False


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
NAMED = OutputFormat(SCHEMA, "answer", "It says it.", strict=True)
EFFORTS = tuple(ReasoningWish(effort=effort) for effort in ("low", "medium", "high"))
THINKING = tuple(ReasoningWish(effort=effort, enabled=True) for effort in ("low", "medium", "high"))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.floats(0, 1),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(1, 500),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "stop": st.lists(texts, min_size=1, max_size=4).map(tuple),
    "seed": st.integers(0, 2**31 - 1),
    "user": names,
    "metadata": st.dictionaries(names, names, min_size=1, max_size=3),
    "cache_key": names,
    "parallel_tool_calls": st.booleans(),
    "service_tier": st.just("default"),
}
CAN = {
    "openai_chat": Can(
        fields=tuple(sorted(set(VALUES) - {"top_k"})),
        wishes=EFFORTS,
        outputs=(OutputFormat(), NAMED),
        choices=("auto", "none", "required", "tool"),
        stricts=(None, True, False),
        image_url=True,
        image_detail=True,
    ),
    "openai_responses": Can(
        fields=(
            *("temperature", "top_p", "user", "metadata", "cache_key"),
            *("parallel_tool_calls", "service_tier"),
        ),
        wishes=EFFORTS,
        outputs=(OutputFormat(), NAMED),
        choices=("auto", "none", "required", "tool"),
        stricts=(True, False),
        image_url=True,
        image_detail=True,
        result_images=True,
    ),
    "anthropic": Can(
        fields=("temperature", "top_p", "top_k", "stop", "user", "service_tier"),
        wishes=(*THINKING, ReasoningWish(budget=2000, enabled=True), ReasoningWish(enabled=False)),
        outputs=(OutputFormat(SCHEMA),),
        choices=("auto", "none", "required", "tool"),
        stricts=(None, True, False),
        image_url=True,
        cache=True,
        thoughts=True,
        is_error=True,
        result_images=True,
    ),
    "gemini": Can(
        fields=(
            *("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "stop", "seed"),
            *("metadata", "service_tier"),
        ),
        wishes=(*THINKING, ReasoningWish(budget=2000, enabled=True), ReasoningWish(budget=0, enabled=False)),
        outputs=(OutputFormat(), OutputFormat(SCHEMA)),
        choices=("auto", "none", "required", "tool"),
        thoughts=True,
        is_error=True,
        result_images=True,
        result_names=True,
    ),
    "bedrock": Can(
        model="anthropic.claude-opus-4-6-v1",
        fields=("temperature", "top_p", "top_k", "stop", "metadata", "service_tier"),
        wishes=(
            *THINKING,
            *(ReasoningWish(budget=2000, enabled=True), ReasoningWish(enabled=False)),
        ),
        outputs=(OutputFormat(SCHEMA, "answer", "It says it."),),
        stricts=(None, True, False),
        cache=True,
        thoughts=True,
        is_error=True,
        result_images=True,
    ),
}

_words = texts.filter(lambda text: bool(text.strip()))
_signatures = st.binary(min_size=3, max_size=9).map(lambda data: data.hex() * 2)


@st.composite
def requests(draw: st.DrawFn, can: Can) -> ChatRequest:
    """Return a conversation that could really have happened."""
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(Message("system", (draw(_text(can)),)))
    for turn in range(draw(st.integers(1, 3))):
        messages.append(Message("user", tuple(draw(_user_parts(can)))))
        if draw(st.booleans()):
            messages += draw(_answered(can, turn))
    fields = {name: draw(VALUES[name]) for name in can.fields if draw(st.booleans())}
    tools = draw(st.lists(_tool(can), max_size=3, unique_by=lambda tool: tool.name))
    if not tools:
        fields.pop("parallel_tool_calls", None)
    return ChatRequest(
        model=can.model,
        messages=tuple(messages),
        stream=draw(st.booleans()),
        include_usage=True,
        max_tokens=draw(st.integers(5000, 9000)),
        tools=tuple(tools),
        tool_choice=draw(_choice(can, tools)) if tools and draw(st.booleans()) else None,
        output=draw(st.none() | st.sampled_from(can.outputs)),
        reasoning=draw(st.none() | st.sampled_from(can.wishes)),
        **fields,
    )


@st.composite
def _text(draw: st.DrawFn, can: Can) -> Text:
    return Text(draw(_words), draw(_cache(can)))


def _cache(can: Can) -> st.SearchStrategy[Ttl]:
    return st.sampled_from(("", "", "5m", "1h")) if can.cache else st.just("")


@st.composite
def _user_parts(draw: st.DrawFn, can: Can) -> list[Part]:
    return [draw(_text(can)), *draw(st.lists(_image(can), max_size=2))]


@st.composite
def _image(draw: st.DrawFn, can: Can) -> Image:
    detail = draw(st.sampled_from(("", "low", "high"))) if can.image_detail else ""
    if can.image_url and draw(st.booleans()):
        return Image(url="https://example.com/a.png", detail=detail, cache=draw(_cache(can)))
    return Image(data=PNG, media_type="image/png", detail=detail, cache=draw(_cache(can)))


@st.composite
def _answered(draw: st.DrawFn, can: Can, turn: int) -> list[Message]:
    """Return the assistant's turn and, where it called tools, their results."""
    parts: list[Part] = []
    if can.thoughts and draw(st.booleans()):
        parts.append(Reasoning(draw(_words), draw(_signatures)))
    calls = [
        ToolUse(f"{draw(ids)}_{turn}_{index}", name, json.dumps(draw(objects)))
        for index, name in enumerate(draw(st.lists(names, max_size=2)))
    ]
    if not calls or draw(st.booleans()):
        parts.append(Text(draw(_words)))
    results = [Message("tool", (draw(_result(can, call)),)) for call in calls]
    return [Message("assistant", (*parts, *calls)), *results]


@st.composite
def _result(draw: st.DrawFn, can: Can, call: ToolUse) -> ToolResult:
    inner: list[Text | Image] = [Text(draw(_words))]
    if can.result_images and draw(st.booleans()):
        inner.append(Image(data=PNG, media_type="image/png"))
    failed = can.is_error and draw(st.booleans())
    return ToolResult(call.id, tuple(inner), call.name if can.result_names else "", failed, draw(_cache(can)))


@st.composite
def _tool(draw: st.DrawFn, can: Can) -> Tool:
    described = draw(st.just("") | texts)
    return Tool(draw(names), described, SCHEMA, draw(st.sampled_from(can.stricts)), draw(_cache(can)))


@st.composite
def _choice(draw: st.DrawFn, can: Can, tools: list[Tool]) -> ToolChoice:
    mode: Any = draw(st.sampled_from(can.choices))
    return ToolChoice(mode, tools[0].name if mode == "tool" else "")


def told(request: ChatRequest) -> dict[str, Any]:
    """Return a request with its turns as one list of parts, each with who said it.

    Formats differ in how they group parts into turns, and in how they write the arguments of a call.
    """
    fields = msgspec.structs.asdict(request)
    del fields["include_usage"]  # only streams ask for it
    fields["messages"] = list(_flat(request.messages))
    return fields


def _flat(messages: tuple[Message, ...]) -> Iterator[tuple[str, Part]]:
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolUse):
                arguments = json.dumps(json.loads(part.arguments), sort_keys=True)
                signature = "" if part.signature == UNSIGNED else part.signature
                yield message.role, msgspec.structs.replace(part, arguments=arguments, signature=signature)
            elif isinstance(part, Image) and part.detail == "auto":
                yield message.role, msgspec.structs.replace(part, detail="")
            else:
                yield message.role, part
