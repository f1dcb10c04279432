"""Requests of OpenAI Chat Completions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

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
from firsttoken.errors import UnsupportedFieldError
from firsttoken.model import Call, Source
from firsttoken.wire import json_body

WIRE = "openai-chat"

Tokens = Annotated[int, Meta(ge=1)]
_WireRole = Literal["system", "developer", "user", "assistant", "tool", "function"]
_ENUMS = {"role": ", ".join(get_args(_WireRole))}


class _Function(Struct, frozen=True):
    name: str
    arguments: str = ""


class _ToolCall(Struct, frozen=True):
    id: str = ""
    type: str = "function"
    function: _Function | None = None
    signature: str | None = None


class _Message(Struct, frozen=True):
    role: _WireRole
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning_signature: str | None = None
    reasoning_encrypted: str | None = None
    refusal: str | None = None


class _StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Schema(Struct, frozen=True):
    name: str = ""
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class _Format(Struct, frozen=True):
    type: str
    json_schema: _Schema | None = None


class _Request(Struct, frozen=True):
    """The body, as the API reference describes it."""

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[_Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    n: Tokens | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    logit_bias: dict[str, float] | None = None
    modalities: list[str] | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None


_decoder = msgspec.json.Decoder(_Request)
_ONLY_HERE = {
    "n": b"1",
    "logprobs": b"false",
    "top_logprobs": b"0",
    "logit_bias": b"{}",
    "modalities": b'["text"]',
    "store": b"false",
}
"""Fields that the neutral vocabulary has no word for, each with the value that asks for nothing."""
_OURS = frozenset(_Request.__struct_fields__) - set(_ONLY_HERE)


def read_request(body: bytes, model: str = "", *, stream: bool | None = None) -> tuple[ChatRequest, Source]:
    """Decode a request's body. Raises RequestError naming the field and what was expected."""
    wire = json_body.decode(_decoder, body, _ENUMS)
    unknown = [
        name
        for name, raw in json_body.fields(body).items()
        if name not in _OURS and bytes(raw) not in (b"null", _ONLY_HERE.get(name))
    ]
    request = ChatRequest(
        model=model or wire.model,
        messages=tuple([_message(message) for message in wire.messages]),
        stream=bool(wire.stream) if stream is None else stream,
        include_usage=bool(wire.stream_options and wire.stream_options.include_usage),
        max_tokens=wire.max_tokens if wire.max_completion_tokens is None else wire.max_completion_tokens,
        temperature=wire.temperature,
        top_p=wire.top_p,
        presence_penalty=wire.presence_penalty,
        frequency_penalty=wire.frequency_penalty,
        stop=(wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop or ()),
        seed=wire.seed,
        tools=_tools(wire.tools, unknown) if wire.tools else (),
        tool_choice=_tool_choice(wire.tool_choice, unknown) if wire.tool_choice else None,
        parallel_tool_calls=wire.parallel_tool_calls,
        output=_output(wire.response_format, unknown) if wire.response_format else None,
        reasoning=ReasoningWish(effort=wire.reasoning_effort) if wire.reasoning_effort else None,
        user=wire.user or "",
        metadata=wire.metadata,
        service_tier=wire.service_tier or "",
        cache_key=wire.prompt_cache_key or "",
    )
    return request, Source(WIRE, body, tuple(unknown))


def _message(wire: _Message) -> Message:
    role: Role = "tool" if wire.role == "function" else wire.role
    if role == "tool":
        said = _parts(wire.content)
        inner = tuple([part for part in said if isinstance(part, Text | Image)])
        others = tuple([part for part in said if isinstance(part, Opaque)])
        return Message("tool", (ToolResult(wire.tool_call_id or "", inner, name=wire.name or ""), *others))
    parts: list[Part] = []
    if wire.reasoning_content or wire.reasoning_signature or wire.reasoning_encrypted:
        thoughts = Reasoning(
            wire.reasoning_content or "", wire.reasoning_signature or "", wire.reasoning_encrypted or ""
        )
        parts.append(thoughts)
    parts.extend(_parts(wire.content))
    if wire.refusal:
        parts.append(Text(wire.refusal))
    for call in wire.tool_calls or ():
        if call.function is None:
            parts.append(Opaque(WIRE, f"tool call of type {call.type}"))
        else:
            function = call.function
            parts.append(ToolUse(call.id, function.name, function.arguments, call.signature or ""))
    return Message(role, tuple(parts), name=wire.name or "")


def _parts(content: str | list[dict[str, Any]] | None) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)]
    return [_part(part) for part in content or ()]


def _part(wire: dict[str, Any]) -> Part:
    kind = wire.get("type")
    if kind == "text" and isinstance(wire.get("text"), str):
        return Text(wire["text"], cache_of(wire))
    if kind == "refusal" and isinstance(wire.get("refusal"), str):
        return Text(wire["refusal"])
    if kind == "image_url" and isinstance(wire.get("image_url"), dict):
        image = wire["image_url"]
        if isinstance(image.get("url"), str):
            return image_of(image["url"], str(image.get("detail") or ""), cache_of(wire))
    return Opaque(WIRE, f"content part of type {kind}")


def image_of(url: str, detail: str = "", cache: Ttl = "") -> Image:
    """Return the picture that a URL names or, as a ``data:`` URL, holds."""
    head, comma, data = url.partition(",")
    if head.startswith("data:") and comma and head.endswith(";base64"):
        return Image(data=data, media_type=head[5:-7], detail=detail, cache=cache)
    return Image(url=url, detail=detail, cache=cache)


def cache_of(part: Mapping[str, Any]) -> Ttl:
    """Return the cache marker of a part: OpenAI's shorter lifetime is nearest to five minutes."""
    mark = part.get("prompt_cache_breakpoint")
    if not isinstance(mark, dict):
        return ""
    return "1h" if mark.get("ttl") == "12h" else "5m"


def _tools(wire: list[dict[str, Any]], unknown: list[str]) -> tuple[Tool, ...]:
    """Read the tools that are functions and name the others in ``unknown``: only this format has them."""
    tools = []
    for position, tool in enumerate(wire):
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            unknown.append(f"tools[{position}]")
            continue
        schema = function.get("parameters")
        tools.append(
            Tool(
                name=function["name"],
                description=str(function.get("description") or ""),
                schema=schema if isinstance(schema, dict) else None,
                strict=function.get("strict"),
            )
        )
    return tuple(tools)


def _tool_choice(wire: str | dict[str, Any], unknown: list[str]) -> ToolChoice | None:
    match wire:
        case "auto" | "none" | "required":
            return ToolChoice(wire)
        case {"type": "function", "function": {"name": str(name)}}:
            return ToolChoice("tool", name)
    unknown.append("tool_choice")
    return None


def _output(wire: _Format, unknown: list[str]) -> OutputFormat | None:
    if wire.type == "json_object":
        return OutputFormat()
    if wire.type == "json_schema" and wire.json_schema:
        schema = wire.json_schema
        return OutputFormat(schema.schema or {}, schema.name, schema.description or "", schema.strict)
    if wire.type != "text":
        unknown.append("response_format")
    return None


def write_request(call: Call, model: str) -> bytes:
    """Return the body to send: the client's own, only the model replaced, if it speaks this format."""
    if call.source.wire == WIRE:
        return (
            call.source.body if call.request.model == model else json_body.with_model(call.source.body, model)
        )
    json_body.refuse_unknown(call.source, WIRE)
    request = call.request
    json_body.refuse(request, WIRE, "top_k")
    body = {
        "model": model,
        "messages": [message for turn in request.messages for message in _write_message(turn)],
        "stream": True if request.stream else None,
        "stream_options": {"include_usage": True} if request.stream else None,
        "max_completion_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "stop": list(request.stop) or None,
        "seed": request.seed,
        "tools": [_write_tool(tool) for tool in request.tools] or None,
        "tool_choice": _write_choice(request.tool_choice) if request.tool_choice else None,
        "parallel_tool_calls": request.parallel_tool_calls,
        "response_format": _write_output(request.output) if request.output else None,
        "reasoning_effort": effort_of(request.reasoning) if request.reasoning else None,
        "metadata": request.metadata,
        "user": request.user or None,
        "service_tier": request.service_tier or None,
        "prompt_cache_key": request.cache_key or None,
    }
    return msgspec.json.encode({name: value for name, value in body.items() if value is not None})


def _write_message(message: Message) -> Iterable[dict[str, Any]]:
    for part in message.parts:
        if isinstance(part, ToolResult):
            content: Any = _write_content(part.parts)
            yield {"role": "tool", "tool_call_id": part.id, "content": content}
        elif isinstance(part, Opaque):
            raise UnsupportedFieldError(
                f"messages: a target that speaks {WIRE} has no {part.kind}.", param="messages"
            )
    if message.role == "tool":
        return
    calls = [
        {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
        for part in message.parts
        if isinstance(part, ToolUse)
    ]
    plain = tuple([part for part in message.parts if isinstance(part, Text | Image)])
    if not plain and not calls and message.parts:
        return
    written: dict[str, Any] = {
        "role": message.role,
        "content": _write_content(plain) if plain or not calls else None,
    }
    reasoning = "".join(part.text for part in message.parts if isinstance(part, Reasoning))
    if reasoning:
        written["reasoning_content"] = reasoning
    if calls:
        written["tool_calls"] = calls
    if message.name:
        written["name"] = message.name
    yield written


def _write_content(parts: tuple[Text | Image, ...]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) for part in parts):
        return "".join([part.text for part in parts if isinstance(part, Text)])
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, Text)
        else {"type": "image_url", "image_url": _image(part)}
        for part in parts
    ]


def _image(part: Image) -> dict[str, str]:
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    return {"url": url, "detail": part.detail} if part.detail else {"url": url}


def _write_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.schema is not None:
        function["parameters"] = tool.schema
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _write_choice(choice: ToolChoice) -> str | dict[str, Any]:
    return {"type": "function", "function": {"name": choice.name}} if choice.mode == "tool" else choice.mode


def _write_output(output: OutputFormat) -> dict[str, Any]:
    if output.schema is None:
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": output.name or "answer", "schema": output.schema}
    if output.description:
        schema["description"] = output.description
    schema["strict"] = output.strict if output.strict is not None else True
    return {"type": "json_schema", "json_schema": schema}


_EFFORTS = ((0, "none"), (1024, "low"), (8192, "medium"))
"""A budget of thinking tokens up to so many is the effort beside it; more is high."""


def effort_of(wish: ReasoningWish) -> str | None:
    """Return the effort that is wished for, or the one that is nearest to a budget; None for no wish."""
    if wish.effort or (wish.budget is None and wish.enabled is not False):
        return wish.effort or None
    budget = wish.budget or 0
    return next((effort for limit, effort in _EFFORTS if budget <= limit), "high")


__all__ = ["WIRE", "cache_of", "effort_of", "image_of", "read_request", "write_request"]
