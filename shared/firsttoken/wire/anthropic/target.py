"""Requests of Anthropic Messages, as a target gets them, and the dialects in which targets want them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

from firsttoken.chat import (
    ChatRequest,
    Image,
    Message,
    Opaque,
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
from firsttoken.errors import UnsupportedFieldError
from firsttoken.model import Call
from firsttoken.wire import json_body
from firsttoken.wire.anthropic.request import WIRE

MAX_TOKENS = 4096
"""The limit of output tokens where neither client nor configuration says one: the format needs it."""

_encode = msgspec.json.encode
_object = msgspec.json.Decoder(dict[str, Raw])


def write_request(call: Call, model: str, *, max_tokens: int = MAX_TOKENS, version: str = "") -> bytes:
    """Return the body to send: the client's own, only the model replaced, if it speaks this format.

    With ``version`` the body names that version instead of the model, as Vertex AI wants it.
    """
    if call.source.wire == WIRE:
        return _own(call, model, version)
    json_body.refuse_unknown(call.source, WIRE)
    request = call.request
    json_body.refuse(request, WIRE, "seed", "metadata")
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(request, name):  # zero asks for nothing
            raise json_body.unsupported(name, WIRE)
    if (request.temperature or 0) > 1:
        raise json_body.unsupported("temperature", WIRE)
    limit = max_tokens if request.max_tokens is None else request.max_tokens
    if request.max_tokens is None and request.reasoning:
        limit += request.reasoning.budget or 0  # thinking counts towards the limit
    body = {
        **({"anthropic_version": version} if version else {"model": model}),
        "max_tokens": limit,
        "system": _system(request),
        "messages": _messages(request),
        "stream": True if request.stream else None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop_sequences": list(request.stop) or None,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request),
        "thinking": _thinking(request.reasoning) if request.reasoning else None,
        "output_config": _output_config(request.output, request.reasoning) or None,
        "metadata": {"user_id": request.user} if request.user else None,
        "service_tier": _service_tier(request.service_tier) if request.service_tier else None,
    }
    return _encode({name: value for name, value in body.items() if value is not None})


def _own(call: Call, model: str, version: str) -> bytes:
    body = call.source.body
    if not version:
        return body if call.request.model == model else json_body.with_model(body, model)
    fields = json_body.fields(body)
    fields.pop("model", None)
    return _encode({"anthropic_version": Raw(_encode(version)), **fields})


def _system(request: ChatRequest) -> str | list[dict[str, Any]] | None:
    """Return the text of all system turns: this format has one place for it, before the conversation."""
    turns = [turn for turn in request.messages if turn.role in ("system", "developer")]
    blocks = [block for turn in turns for block in _blocks(turn)]
    if any(block["type"] != "text" for block in blocks):
        raise UnsupportedFieldError("messages: a system message holds text only here.", param="messages")
    if len(blocks) == 1 and "cache_control" not in blocks[0]:
        return str(blocks[0]["text"])
    return blocks or None


def _messages(request: ChatRequest) -> list[dict[str, Any]]:
    """Return the conversation. Neighbours of one role become one turn: results stand before what is said."""
    turns: list[tuple[str, list[dict[str, Any]]]] = []
    for message in request.messages:
        if message.role in ("system", "developer"):
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if not turns or turns[-1][0] != role:
            turns.append((role, []))
        turns[-1][1].extend(_blocks(message))
    return [{"role": role, "content": _content(blocks)} for role, blocks in turns]


def _content(blocks: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return blocks or ""


def _blocks(message: Message) -> Iterable[dict[str, Any]]:
    if message.name:
        raise json_body.unsupported("messages.name", WIRE)
    for part in message.parts:
        block = _block(part)
        if block is not None:
            yield block


def _block(part: Part) -> dict[str, Any] | None:
    """Return a block, or None for one that this format refuses: empty text, and thoughts nobody signed."""
    match part:
        case Text():
            return {"type": "text", "text": part.text, **_cache(part.cache)} if part.text else None
        case Image():
            return {"type": "image", "source": _source(part), **_cache(part.cache)}
        case ToolUse():
            named = {"type": "tool_use", "id": part.id, "name": part.name}
            return {**named, "input": json_object(part.arguments), **_cache(part.cache)}
        case ToolResult():
            return _tool_result(part)
        case Reasoning():
            if part.redacted:
                return {"type": "redacted_thinking", "data": part.redacted}
            signed = {"type": "thinking", "thinking": part.text, "signature": part.signature}
            return signed if part.signature else None
        case Opaque():
            message = f"messages: a target that speaks {WIRE} has no {part.kind}."
            raise UnsupportedFieldError(message, param="messages")


def _tool_result(part: ToolResult) -> dict[str, Any]:
    if not part.id:
        message = f"messages: a target that speaks {WIRE} needs the id of the call that a tool answers."
        raise UnsupportedFieldError(message, param="messages")
    blocks = [block for inner in part.parts if (block := _block(inner))]
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": part.id, "content": _content(blocks)}
    if part.is_error:
        result["is_error"] = True
    return {**result, **_cache(part.cache)}


def _source(image: Image) -> dict[str, str]:
    if image.url:
        return {"type": "url", "url": image.url}
    return {"type": "base64", "media_type": image.media_type, "data": image.data}


def _cache(ttl: Ttl) -> dict[str, Any]:
    if not ttl:
        return {}
    marker = {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}
    return {"cache_control": marker}


def json_object(arguments: str) -> Raw:
    """Return arguments of a tool as the object that this format wants.

    What is no object (a model was cut, or wrote bad JSON) is wrapped as the documentation of tool use
    recommends it.
    """
    try:
        _object.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return Raw(_encode({"INVALID_JSON": arguments}))
    return Raw((arguments or "{}").encode())


def _tool(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name}
    if tool.description:
        written["description"] = tool.description
    written["input_schema"] = {"type": "object", **(tool.schema or {"properties": {}})}
    if tool.strict is not None:
        written["strict"] = tool.strict
    return {**written, **_cache(tool.cache)}


_CHOICES = {"auto": "auto", "none": "none", "required": "any", "tool": "tool"}


def _tool_choice(request: ChatRequest) -> dict[str, Any] | None:
    choice, parallel = request.tool_choice, request.parallel_tool_calls
    if choice is None and (parallel is not False or not request.tools):
        return None
    choice = choice or ToolChoice("auto")
    written: dict[str, Any] = {"type": _CHOICES[choice.mode]}
    if choice.name:
        written["name"] = choice.name
    if parallel is not None and choice.mode != "none":
        written["disable_parallel_tool_use"] = not parallel
    return written


_MINIMUM_BUDGET = 1024


def _thinking(wish: ReasoningWish) -> dict[str, Any] | None:
    if wish.enabled is False or wish.effort == "none" or wish.budget == 0:
        return {"type": "disabled"}
    if wish.budget is not None and wish.budget > 0:
        return {"type": "enabled", "budget_tokens": max(wish.budget, _MINIMUM_BUDGET)}
    return {"type": "adaptive"}


_EFFORTS = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}


def _output_config(output: OutputFormat | None, wish: ReasoningWish | None) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if wish and wish.effort and wish.effort != "none":
        if wish.effort not in _EFFORTS:
            raise json_body.unsupported("reasoning.effort", WIRE)
        config["effort"] = _EFFORTS[wish.effort]
    if output:
        if output.schema is None:
            raise json_body.unsupported("output (JSON without a schema)", WIRE)
        schema = dict(output.schema)
        if output.description:
            schema.setdefault("description", output.description)
        config["format"] = {"type": "json_schema", "schema": schema}
    return config


def _service_tier(tier: str) -> str:
    if tier not in ("auto", "default"):
        raise json_body.unsupported("service_tier", WIRE)
    return "auto" if tier == "auto" else "standard_only"


__all__ = ["MAX_TOKENS", "json_object", "write_request"]
