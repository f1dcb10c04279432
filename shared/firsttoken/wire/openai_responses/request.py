"""Requests of OpenAI Responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from firsttoken.chat import ChatRequest, Message, OutputFormat, ReasoningWish, Text, Tool, ToolChoice
from firsttoken.errors import RequestError
from firsttoken.model import Call, Source
from firsttoken.wire import json_body
from firsttoken.wire.openai_chat.request import effort_of
from firsttoken.wire.openai_responses.items import WIRE, read_items, write_items

Tokens = Annotated[int, Meta(ge=1)]


class _Format(Struct, frozen=True):
    type: str = "text"
    name: str = ""
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class _TextConfig(Struct, frozen=True):
    format: _Format | None = None
    verbosity: str | None = None


class _Reasoning(Struct, frozen=True):
    effort: str | None = None
    context: str | None = None
    mode: str | None = None


class _Request(Struct, frozen=True):
    """The body, as the API reference describes it."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_output_tokens: Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: _TextConfig | None = None
    reasoning: _Reasoning | None = None
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    store: bool | None = None
    background: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None


_decoder = msgspec.json.Decoder(_Request)
_ENUMS = {"truncation": "auto, disabled"}
_ONLY_HERE = {
    "store": b"false",
    "truncation": b'"disabled"',
    "top_logprobs": b"0",
    "previous_response_id": b"null",
}
"""Fields that the neutral vocabulary has no word for, each with the value that asks for nothing."""
_OURS = frozenset(_Request.__struct_fields__) - set(_ONLY_HERE)
_INCLUDED = {"reasoning.encrypted_content"}
"""What an answer holds without being asked, where the target gives it."""


def read_request(body: bytes, model: str = "", *, stream: bool | None = None) -> tuple[ChatRequest, Source]:
    """Decode a request's body. Raises RequestError naming the field and what was expected."""
    wire = json_body.decode(_decoder, body, _ENUMS)
    unknown = _unknown(wire, json_body.fields(body))
    messages = [Message("system", (Text(wire.instructions),))] if wire.instructions else []
    if isinstance(wire.input, str):
        messages.append(Message("user", (Text(wire.input),)))
    else:
        messages.extend(read_items(wire.input or (), unknown))
    if not messages and not unknown:
        message = "input: expected a text or at least one item"
        raise RequestError(message, param="input", code="invalid_value")
    request = ChatRequest(
        model=model or wire.model,
        messages=tuple(messages),
        stream=bool(wire.stream) if stream is None else stream,
        include_usage=True,
        max_tokens=wire.max_output_tokens,
        temperature=wire.temperature,
        top_p=wire.top_p,
        tools=_tools(wire.tools, unknown) if wire.tools else (),
        tool_choice=_tool_choice(wire.tool_choice, unknown) if wire.tool_choice else None,
        parallel_tool_calls=wire.parallel_tool_calls,
        output=_output(wire.text.format, unknown) if wire.text and wire.text.format else None,
        reasoning=ReasoningWish(wire.reasoning.effort) if wire.reasoning and wire.reasoning.effort else None,
        user=wire.safety_identifier or wire.user or "",
        metadata=wire.metadata,
        service_tier=wire.service_tier or "",
        cache_key=wire.prompt_cache_key or "",
    )
    return request, Source(WIRE, body, tuple(unknown))


def _unknown(wire: _Request, fields: dict[str, Raw]) -> list[str]:
    """Name what the request asks for and the neutral vocabulary has no word for.

    A background response is kept here, whatever its target speaks, so neither word for that is among them.
    """
    ours = _OURS | {"store"} if wire.background else _OURS
    unknown = [
        name
        for name, raw in fields.items()
        if name not in ours and bytes(raw) not in (b"null", _ONLY_HERE.get(name))
    ]
    text, reasoning = wire.text or _TextConfig(), wire.reasoning or _Reasoning()
    asks = {
        "include": set(wire.include or ()) - _INCLUDED,
        "text.verbosity": text.verbosity not in (None, "medium"),
        "reasoning.context": reasoning.context not in (None, "auto"),
        "reasoning.mode": reasoning.mode not in (None, "standard"),
    }
    return [*unknown, *[name for name, asked in asks.items() if asked]]


_TOOL_WORDS = {"type", "name", "description", "parameters", "strict"}


def _tools(wire: list[dict[str, Any]], unknown: list[str]) -> tuple[Tool, ...]:
    """Read the tools that are functions; name in ``unknown`` the others and what only this format says."""
    tools = []
    for position, tool in enumerate(wire):
        if tool.get("type") != "function" or not isinstance(tool.get("name"), str):
            unknown.append(f"tools[{position}]")
            continue
        unknown.extend(
            [f"tools[{position}].{name}" for name in tool if name not in _TOOL_WORDS and tool[name]]
        )
        schema, strict = tool.get("parameters"), tool.get("strict")
        tools.append(
            Tool(
                name=tool["name"],
                description=str(tool.get("description") or ""),
                schema=schema if isinstance(schema, dict) else None,
                strict=strict if isinstance(strict, bool) else None,
            )
        )
    return tuple(tools)


def _tool_choice(wire: str | dict[str, Any], unknown: list[str]) -> ToolChoice | None:
    match wire:
        case "auto" | "none" | "required":
            return ToolChoice(wire)
        case {"type": "function", "name": str(name)}:
            return ToolChoice("tool", name)
    unknown.append("tool_choice")
    return None


def _output(wire: _Format, unknown: list[str]) -> OutputFormat | None:
    if wire.type == "json_object":
        return OutputFormat()
    if wire.type == "json_schema":
        return OutputFormat(wire.schema or {}, wire.name, wire.description or "", wire.strict)
    if wire.type != "text":
        unknown.append("text.format")
    return None


def write_request(call: Call, model: str) -> bytes:
    """Return the body to send: the client's own, only the model replaced, if it speaks this format.

    No target makes a background response: who asks for one gets it from us.
    """
    if call.source.wire == WIRE:
        sent = _in_the_foreground(call.source.body)
        return sent if call.request.model == model else json_body.with_model(sent, model)
    json_body.refuse_unknown(call.source, WIRE)
    request = call.request
    json_body.refuse(request, WIRE, "top_k", "stop", "seed")
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(request, name):
            raise json_body.unsupported(name, WIRE)
    thinks = request.reasoning and effort_of(request.reasoning)
    body = {
        "model": model,
        "input": write_items(request.messages),
        "stream": True if request.stream else None,
        "max_output_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "tools": [_write_tool(tool) for tool in request.tools] or None,
        "tool_choice": _write_choice(request.tool_choice) if request.tool_choice else None,
        "parallel_tool_calls": request.parallel_tool_calls,
        "text": {"format": _write_output(request.output)} if request.output else None,
        "reasoning": {"effort": thinks} if thinks else None,
        "include": ["reasoning.encrypted_content"] if thinks and thinks != "none" else None,
        "store": False,  # here the default is to keep answers for weeks; nobody asked for that
        "metadata": request.metadata,
        "safety_identifier": request.user or None,
        "service_tier": request.service_tier or None,
        "prompt_cache_key": request.cache_key or None,
    }
    return msgspec.json.encode({name: value for name, value in body.items() if value is not None})


def in_background(body: bytes) -> bool:
    """Return whether a body that was read asks for a background response."""
    return b'"background"' in body and bytes(json_body.fields(body).get("background", b"")) == b"true"


def _in_the_foreground(body: bytes) -> bytes:
    if not in_background(body):
        return body
    all_fields = json_body.fields(body)
    del all_fields["background"]
    return msgspec.json.encode(all_fields)


def _write_tool(tool: Tool) -> dict[str, Any]:
    """Return a function; what is unsaid is not strict in other formats, but would be strict here."""
    written = {
        "type": "function",
        "name": tool.name,
        "parameters": tool.schema if tool.schema is not None else {"type": "object", "properties": {}},
        "strict": bool(tool.strict),
    }
    return written | {"description": tool.description} if tool.description else written


def _write_choice(choice: ToolChoice) -> str | dict[str, Any]:
    return {"type": "function", "name": choice.name} if choice.mode == "tool" else choice.mode


def _write_output(output: OutputFormat) -> dict[str, Any]:
    if output.schema is None:
        return {"type": "json_object"}
    written = {
        "type": "json_schema",
        "name": output.name or "answer",
        "schema": output.schema,
        "strict": output.strict if output.strict is not None else True,
    }
    return written | {"description": output.description} if output.description else written


__all__ = ["WIRE", "in_background", "read_request", "write_request"]
