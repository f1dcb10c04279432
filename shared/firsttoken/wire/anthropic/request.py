"""Requests of Anthropic Messages, as clients send them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta, Raw, Struct

from firsttoken.chat import (
    ChatRequest,
    Image,
    Message,
    Opaque,
    OutputFormat,
    Part,
    Reasoning,
    ReasoningWish,
    Role,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Ttl,
)
from firsttoken.errors import RequestError
from firsttoken.model import Source
from firsttoken.wire import json_body

WIRE = "anthropic"

_WireRole = Literal["user", "assistant", "system"]
_Ttl = Literal["5m", "1h"]
_ENUMS = {"role": ", ".join(get_args(_WireRole)), "ttl": ", ".join(get_args(_Ttl))}


class _Cache(Struct, frozen=True):
    ttl: _Ttl | None = None


class _Source(Struct, frozen=True):
    type: str
    url: str | None = None
    data: str | None = None
    media_type: str | None = None


class _Block(Struct, frozen=True):
    """A content block of any type; the union of the fields of those that are known here."""

    type: str
    text: str | None = None
    source: _Source | str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw(b"{}")
    tool_use_id: str | None = None
    content: str | list[_Block] | dict[str, Any] | None = None
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    cache_control: _Cache | None = None
    toolset_name: str | None = None
    transformations: Any = None


class _Message(Struct, frozen=True):
    role: _WireRole
    content: str | list[_Block]


class _Tool(Struct, frozen=True):
    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: _Cache | None = None
    allowed_callers: list[str] | None = None
    defer_loading: bool | None = None
    eager_input_streaming: bool | None = None
    input_examples: list[Any] | None = None


_TOOL_EXTRAS = ("allowed_callers", "defer_loading", "eager_input_streaming", "input_examples")


class _ToolChoice(Struct, frozen=True):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(Struct, frozen=True):
    type: str
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None
    display: str | None = None


class _Format(Struct, frozen=True):
    type: str
    schema: dict[str, Any] | None = None


class _OutputConfig(Struct, frozen=True):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(Struct, frozen=True):
    user_id: str | None = None


class _Counted(Struct, frozen=True, kw_only=True):
    """What may be counted: the body without a limit of output tokens.

    Source: Claude API reference, "Messages"; field names checked against the official SDK, 2.12.
    """

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[_Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    system: str | list[_Block] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    stop_sequences: list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None
    metadata: _Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    cache_control: _Cache | None = None


class _Request(_Counted, frozen=True, kw_only=True):
    """The body of a request for an answer."""

    max_tokens: Annotated[int, Meta(ge=0)]


_decoder = msgspec.json.Decoder(_Request)
_count_decoder = msgspec.json.Decoder(_Counted)
_OURS = frozenset(_Request.__struct_fields__)
_ASKS_NOTHING = {"speed": b'"standard"', "anthropic_version": None}
"""Fields without a neutral word, each with the value that asks for nothing; None where any value does."""


def read_request(body: bytes, model: str = "", *, stream: bool | None = None) -> tuple[ChatRequest, Source]:
    """Decode a request's body. Raises RequestError naming the field and what was expected."""
    return _read(json_body.decode(_decoder, body, _ENUMS), body, model, stream)


def read_count(body: bytes) -> tuple[ChatRequest, Source]:
    """Decode the body of a request to count its tokens: as `read_request`, but without ``max_tokens``."""
    return _read(json_body.decode(_count_decoder, body, _ENUMS), body, "", None)


def _read(wire: _Counted, body: bytes, model: str, stream: bool | None) -> tuple[ChatRequest, Source]:  # noqa: FBT001
    unknown = [name for name, raw in json_body.fields(body).items() if _asks(name, bytes(raw))]
    if wire.max_tokens == 0:
        unknown.append("max_tokens")  # asks to fill the cache and to answer nothing
    choice = wire.tool_choice
    config = wire.output_config or _OutputConfig()
    form = config.format or wire.output_format
    request = ChatRequest(
        model=model or wire.model,
        messages=_messages(wire, unknown),
        stream=bool(wire.stream) if stream is None else stream,
        include_usage=True,
        max_tokens=wire.max_tokens,
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        stop=tuple(wire.stop_sequences or ()),
        tools=_tools(wire.tools, unknown) if wire.tools else (),
        tool_choice=_tool_choice(choice, unknown) if choice else None,
        parallel_tool_calls=(
            None
            if choice is None or choice.disable_parallel_tool_use is None
            else not choice.disable_parallel_tool_use
        ),
        output=_output(form, unknown) if form else None,
        reasoning=_reasoning(wire.thinking, config.effort or "", unknown),
        user=(wire.metadata and wire.metadata.user_id) or "",
        service_tier="default" if wire.service_tier == "standard_only" else wire.service_tier or "",
    )
    return request, Source(WIRE, body, tuple(unknown))


def _asks(name: str, raw: bytes) -> bool:
    return name not in _OURS and raw != b"null" and _ASKS_NOTHING.get(name, b"") not in (None, raw)


def _messages(wire: _Counted, unknown: list[str]) -> tuple[Message, ...]:
    messages: list[Message] = []
    if isinstance(wire.system, str):
        messages.append(Message("system", (Text(wire.system),)))
    elif wire.system:
        messages.extend(_turns("system", wire.system, "system", unknown))
    for position, message in enumerate(wire.messages):
        if isinstance(message.content, str):
            messages.append(Message(message.role, (Text(message.content),)))
        else:
            where = f"messages[{position}].content"
            messages.extend(_turns(message.role, message.content, where, unknown))
    if wire.cache_control:
        _mark_last(messages, _ttl(wire.cache_control))
    return tuple(messages)


def _turns(role: Role, blocks: list[_Block], where: str, unknown: list[str]) -> list[Message]:
    """Return one turn as neutral ones: tool results that stand together are a turn of the role ``tool``."""
    turns: list[tuple[Role, list[Part]]] = []
    for position, block in enumerate(blocks):
        part = _part(block, f"{where}[{position}]", unknown)
        speaker = "tool" if isinstance(part, ToolResult) else role
        if not turns or turns[-1][0] != speaker:
            turns.append((speaker, []))
        turns[-1][1].append(part)
    return [Message(speaker, tuple(parts)) for speaker, parts in turns] or [Message(role, ())]


def _mark_last(messages: list[Message], ttl: Ttl) -> None:
    """Put the request's own cache marker where the API puts it: behind the last block that can have one."""
    last = messages[-1]
    if last.parts and isinstance(last.parts[-1], Text | Image | ToolUse | ToolResult):
        part = msgspec.structs.replace(last.parts[-1], cache=last.parts[-1].cache or ttl)
        messages[-1] = msgspec.structs.replace(last, parts=(*last.parts[:-1], part))


def _part(block: _Block, where: str, unknown: list[str]) -> Part:
    ttl = _ttl(block.cache_control)
    if block.toolset_name is not None:
        unknown.append(f"{where}.toolset_name")
    match block.type:
        case "text":
            return Text(_given(block.text, f"{where}.text"), ttl)
        case "image":
            return _image(block, where, ttl)
        case "tool_use":
            name = _given(block.name, f"{where}.name")
            arguments = _arguments(block.input, f"{where}.input")
            return ToolUse(_given(block.id, f"{where}.id"), name, arguments, cache=ttl)
        case "tool_result":
            return ToolResult(
                _given(block.tool_use_id, f"{where}.tool_use_id"),
                _result(block.content, f"{where}.content", unknown),
                is_error=bool(block.is_error),
                cache=ttl,
            )
        case "thinking" | "redacted_thinking":
            return _thought(block, where)
    return Opaque(WIRE, f"content block of type {block.type}")


def _arguments(raw: Raw, where: str) -> str:
    try:
        arguments = bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise _wrong(where, "UTF-8") from error
    if not arguments.startswith("{"):
        raise _wrong(where, "an object")
    return arguments


def _thought(block: _Block, where: str) -> Reasoning:
    if block.type == "thinking":
        return Reasoning(_given(block.thinking, f"{where}.thinking"), block.signature or "")
    return Reasoning(redacted=_given(block.data, f"{where}.data"))


def _image(block: _Block, where: str, ttl: Ttl) -> Part:
    source = block.source
    if not isinstance(source, _Source):
        raise _wrong(f"{where}.source", "an object")
    if block.transformations is None and source.type == "url":
        return Image(url=_given(source.url, f"{where}.source.url"), cache=ttl)
    if block.transformations is None and source.type == "base64":
        data = _given(source.data, f"{where}.source.data")
        media_type = _given(source.media_type, f"{where}.source.media_type")
        return Image(data=data, media_type=media_type, cache=ttl)
    return Opaque(WIRE, f"image with a source of type {source.type} or with transformations")


def _result(
    content: str | list[_Block] | dict[str, Any] | None, where: str, unknown: list[str]
) -> tuple[Text | Image, ...]:
    if isinstance(content, str):
        return (Text(content),)
    if isinstance(content, dict):
        raise _wrong(where, "text or a list of blocks")
    parts: list[Text | Image] = []
    for position, block in enumerate(content or ()):
        part = _part(block, f"{where}[{position}]", unknown)
        if isinstance(part, Text | Image):
            parts.append(part)
        else:
            unknown.append(f"{where}[{position}]")
    return tuple(parts)


def _ttl(cache: _Cache | None) -> Ttl:
    return "" if cache is None else cache.ttl or "5m"


T = TypeVar("T")


def _given(value: T | None, where: str) -> T:
    if value is None:
        raise RequestError(f"{where}: this type of block needs it.", param=where, code="invalid_value")
    return value


def _wrong(where: str, expected: str) -> RequestError:
    return RequestError(f"{where}: expected {expected}.", param=where, code="invalid_value")


def _tools(wire: list[_Tool], unknown: list[str]) -> tuple[Tool, ...]:
    """Read the tools of the client's own and name those that the API runs itself in ``unknown``."""
    tools = []
    for position, tool in enumerate(wire):
        if tool.type not in (None, "custom") or not tool.name:
            unknown.append(f"tools[{position}]")
            continue
        unknown.extend(f"tools[{position}].{extra}" for extra in _TOOL_EXTRAS if getattr(tool, extra))
        tools.append(
            Tool(
                name=tool.name,
                description=tool.description or "",
                schema=tool.input_schema,
                strict=tool.strict,
                cache=_ttl(tool.cache_control),
            )
        )
    return tuple(tools)


def _tool_choice(wire: _ToolChoice, unknown: list[str]) -> ToolChoice | None:
    match wire.type:
        case "auto" | "none":
            return ToolChoice(wire.type)
        case "any":
            return ToolChoice("required")
        case "tool":
            return ToolChoice("tool", _given(wire.name, "tool_choice.name"))
    unknown.append("tool_choice")
    return None


def _output(wire: _Format, unknown: list[str]) -> OutputFormat | None:
    if wire.type == "json_schema" and wire.schema is not None:
        return OutputFormat(wire.schema)
    unknown.append("output_config")
    return None


_THINKS = {"enabled": True, "adaptive": True, "disabled": False}


def _reasoning(wire: _Thinking | None, effort: str, unknown: list[str]) -> ReasoningWish | None:
    if wire is None:
        return ReasoningWish(effort=effort) if effort else None
    if wire.type not in _THINKS or wire.display == "omitted":
        unknown.append("thinking")
    return ReasoningWish(effort=effort, budget=wire.budget_tokens, enabled=_THINKS.get(wire.type))


__all__ = ["WIRE", "read_count", "read_request"]
