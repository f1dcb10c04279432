"""The content of Bedrock's messages, in both directions: blocks here, parts in `firsttoken.chat`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct, field
from msgspec.structs import replace

from firsttoken.chat import (
    Image,
    Message,
    Opaque,
    Part,
    Reasoning,
    Role,
    Text,
    ToolResult,
    ToolUse,
    Ttl,
)
from firsttoken.errors import RequestError, UnsupportedFieldError
from firsttoken.wire import json_body

WIRE = "bedrock-converse"

_FORMATS = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
_arguments = msgspec.json.Decoder(dict[str, Raw])


class Camel(Struct, frozen=True, rename="camel"):
    """Base of what is written in camel case."""


class CachePoint(Camel, frozen=True):
    """A marker behind what is to be cached."""

    type: str = "default"
    ttl: Literal["5m", "1h"] = "5m"


class _Source(Camel, frozen=True):
    data: str | None = field(default=None, name="bytes")


class _Image(Camel, frozen=True):
    format: str
    source: _Source


class _ToolUse(Camel, frozen=True):
    tool_use_id: str
    name: str
    input: Raw = Raw(b"{}")
    type: str | None = None
    signature: str = ""
    """Not Bedrock's: the signature that another provider put under the call."""


class _ToolResult(Camel, frozen=True):
    tool_use_id: str
    content: list[Block] = []
    status: str | None = None
    type: str | None = None


class _ReasoningText(Camel, frozen=True):
    text: str
    signature: str | None = None


class _Reasoning(Camel, frozen=True):
    reasoning_text: _ReasoningText | None = None
    redacted_content: str | None = None


class Block(Camel, frozen=True):
    """A block of content: one of these fields is there. Those below ``json`` have no neutral word."""

    text: str | None = None
    image: _Image | None = None
    tool_use: _ToolUse | None = None
    tool_result: _ToolResult | None = None
    reasoning_content: _Reasoning | None = None
    cache_point: CachePoint | None = None
    json: Raw = Raw()
    """Only in the result of a tool."""
    document: Raw = Raw()
    video: Raw = Raw()
    audio: Raw = Raw()
    guard_content: Raw = Raw()
    citations_content: Raw = Raw()
    search_result: Raw = Raw()
    tool_addition: Raw = Raw()
    tool_removal: Raw = Raw()


_ONLY_HERE = {
    name: shown
    for name, shown in zip(Block.__struct_fields__, Block.__struct_encode_fields__, strict=True)
    if Block.__struct_fields__.index(name) > Block.__struct_fields__.index("json")
}


class Turn(Camel, frozen=True):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: list[Block] = []


def read_turn(turn: Turn) -> Iterable[Message]:
    """Return one turn as messages: the results of tools are messages of their own."""
    parts = read_parts(turn.content)
    if not parts:
        yield Message(turn.role, ())
    for results, run in groupby(parts, lambda part: isinstance(part, ToolResult)):
        role: Role = "tool" if results else turn.role
        yield Message(role, tuple(run))


def read_parts(blocks: Sequence[Block]) -> list[Part]:
    """Return the parts that blocks stand for; a cache point marks the part before it."""
    parts: list[Part] = []
    for block in blocks:
        if block.cache_point is None:
            parts.extend(_read(block))
        elif parts and not isinstance(parts[-1], Reasoning | Opaque):
            parts[-1] = replace(parts[-1], cache=block.cache_point.ttl)
        else:
            parts.append(Opaque(WIRE, "cachePoint that follows nothing which can be marked"))
    return parts


def _read(block: Block) -> Iterable[Part]:
    if block.text is not None:
        yield Text(block.text)
    elif block.image is not None:
        yield _read_image(block.image)
    elif block.tool_use is not None:
        yield _read_call(block.tool_use)
    elif block.tool_result is not None:
        yield from _read_result(block.tool_result)
    elif block.reasoning_content is not None:
        thought = block.reasoning_content
        said = thought.reasoning_text or _ReasoningText("")
        yield Reasoning(said.text, said.signature or "", thought.redacted_content or "")
    else:
        yield Opaque(WIRE, _kind(block))


def _text_of(raw: Raw) -> str:
    """Return JSON as text. Raises RequestError where it is no UTF-8: nothing has decoded it before."""
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as error:
        message = f"messages: a value is not valid UTF-8: {error}."
        raise RequestError(message, param="messages", code="invalid_json") from error


def _kind(block: Block) -> str:
    named = [shown for name, shown in _ONLY_HERE.items() if bytes(getattr(block, name))]
    return f"{named[0] if named else 'unknown'} block"


def _read_image(image: _Image) -> Part:
    if image.source.data is None:
        return Opaque(WIRE, "image in S3")
    return Image(data=image.source.data, media_type=f"image/{image.format}")


def _read_call(call: _ToolUse) -> Part:
    if call.type:
        return Opaque(WIRE, f"toolUse block of type {call.type}")
    return ToolUse(call.tool_use_id, call.name, _text_of(call.input), signature=call.signature)


def _read_result(result: _ToolResult) -> Iterable[Part]:
    if result.type:
        yield Opaque(WIRE, f"toolResult block of type {result.type}")
        return
    inner: list[Text | Image] = []
    others: list[Opaque] = []
    for block in result.content:
        if bytes(block.json):
            inner.append(Text(_text_of(block.json)))
            continue
        for part in _read(block):
            if isinstance(part, Text | Image):
                inner.append(part)
            else:
                others.append(Opaque(WIRE, f"{_kind(block)} in a toolResult"))
    yield ToolResult(result.tool_use_id, tuple(inner), is_error=result.status == "error")
    yield from others


def write_messages(messages: Iterable[Message]) -> tuple[list[Any], list[Any]]:
    """Return the blocks of ``system`` and the turns.

    Bedrock wants the roles to alternate: neighbours of one role are one turn. Raises UnsupportedFieldError.
    """
    system: list[Any] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.name:
            raise json_body.unsupported("messages.name", WIRE)
        blocks = [block for part in message.parts for block in _write(part)]
        if message.role in ("system", "developer"):
            if any("text" not in block and "cachePoint" not in block for block in blocks):
                raise json_body.unsupported("messages (a system message that is not text)", WIRE)
            system += blocks
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return system, turns


def cache_point(ttl: Ttl) -> list[dict[str, Any]]:
    """Return the marker behind a part, or nothing. Five minutes are the default of every model."""
    if not ttl:
        return []
    return [{"cachePoint": {"type": "default", "ttl": ttl} if ttl == "1h" else {"type": "default"}}]


def _write(part: Part) -> list[dict[str, Any]]:
    """Return the blocks of one part: none for empty text, which Bedrock refuses."""
    blocks: list[dict[str, Any]] = []
    match part:
        case Text():
            blocks = [{"text": part.text}] if part.text else []
        case Image():
            blocks = [{"image": _write_image(part)}]
        case ToolUse():
            blocks = [{"toolUse": _write_call(part)}]
        case ToolResult():
            blocks = [{"toolResult": _write_result(part)}]
            inner: Ttl = next((each.cache for each in part.parts if each.cache), "")
            return blocks + cache_point(part.cache or inner)
        case Reasoning():
            return _write_reasoning(part)
        case Opaque():
            raise UnsupportedFieldError(
                f"messages: a target that speaks {WIRE} has no {part.kind}.", param="messages"
            )
    return blocks + cache_point(part.cache) if blocks else []


def _write_image(image: Image) -> dict[str, Any]:
    if image.detail not in ("", "auto"):
        raise json_body.unsupported("messages (the detail of an image)", WIRE)
    if image.url and not image.url.startswith("s3://"):
        message = f"messages: a target that speaks {WIRE} fetches no URLs; send the image inline, as base64."
        raise UnsupportedFieldError(message, param="messages")
    suffix = image.url.rpartition(".")[2].lower()
    media_type = image.media_type or f"image/{suffix}"
    if media_type not in _FORMATS:
        message = f"messages: an image of type {media_type[:40]!r}; expected one of {', '.join(_FORMATS)}."
        raise UnsupportedFieldError(message, param="messages")
    source = {"s3Location": {"uri": image.url}} if image.url else {"bytes": image.data}
    return {"format": _FORMATS[media_type], "source": source}


def _write_call(call: ToolUse) -> dict[str, Any]:
    arguments = call.arguments.strip() or "{}"
    try:
        _arguments.decode(arguments)
    except (msgspec.DecodeError, RecursionError) as error:
        message = f"messages: the arguments of the call of {call.name!r} are not a JSON object: {error}."
        raise RequestError(message, param="messages", code="invalid_value") from error
    # Formats without ids pair calls and results by the tool's name.
    return {"toolUseId": call.id or call.name, "name": call.name, "input": Raw(arguments.encode())}


def _write_result(result: ToolResult) -> dict[str, Any]:
    content = [block for part in result.parts for block in _write(replace(part, cache=""))]
    written: dict[str, Any] = {"toolUseId": result.id or result.name, "content": content}
    return {**written, "status": "error"} if result.is_error else written


def _write_reasoning(thought: Reasoning) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if thought.text or thought.signature:
        said = {"text": thought.text, "signature": thought.signature}
        blocks.append(
            {"reasoningContent": {"reasoningText": {k: v for k, v in said.items() if v or k == "text"}}}
        )
    if thought.redacted:
        blocks.append({"reasoningContent": {"redactedContent": thought.redacted}})
    return blocks
