"""The items of a conversation, as OpenAI Responses lists them in ``input``.

A turn of the assistant is several items there (thoughts, text, one per tool call); here it is one message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from firsttoken.chat import (
    Image,
    Message,
    Opaque,
    Part,
    Reasoning,
    Text,
    ToolResult,
    ToolUse,
)
from firsttoken.errors import RequestError, UnsupportedFieldError
from firsttoken.wire.json_body import unsupported
from firsttoken.wire.openai_chat.request import cache_of, image_of

WIRE = "openai-responses"

_Content = str | list[dict[str, Any]]


class _MessageItem(Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: _Content


class _CallItem(Struct, frozen=True):
    call_id: str
    name: str
    arguments: str
    signature: str = ""
    """An extension: the provider's signature of the call (docs/wire.md)."""


class _OutputItem(Struct, frozen=True):
    call_id: str
    output: _Content
    name: str | None = None


class _ReasoningText(Struct, frozen=True):
    text: str


class _ReasoningItem(Struct, frozen=True):
    summary: list[_ReasoningText] | None = None
    content: list[_ReasoningText] | None = None
    encrypted_content: str | None = None
    signature: str = ""
    """An extension: the provider's signature of its thoughts (docs/wire.md)."""


T = TypeVar("T", _MessageItem, _CallItem, _OutputItem, _ReasoningItem)


def read_items(items: Sequence[dict[str, Any]], unknown: list[str]) -> list[Message]:
    """Return the turns that ``items`` make.

    What a tool answered and has no neutral word is named in ``unknown``. Raises RequestError naming the item
    and what was expected.
    """
    turns: list[Message] = []
    for position, item in enumerate(items):
        where = f"input[{position}]"
        match item.get("type") or "message":
            case "message":
                message = _convert(item, _MessageItem, where)
                parts = _parts(message.content)
                if message.role == "assistant":
                    _said(turns, parts)
                else:
                    turns.append(Message(message.role, tuple(parts)))
            case "function_call":
                call = _convert(item, _CallItem, where)
                _did(turns, ToolUse(call.call_id, call.name, call.arguments, call.signature))
            case "function_call_output":
                answer = _convert(item, _OutputItem, where)
                said = _parts(answer.output)
                known = tuple([part for part in said if isinstance(part, Text | Image)])
                if len(known) < len(said):
                    unknown.append(f"{where}.output")
                turns.append(Message("tool", (ToolResult(answer.call_id, known, answer.name or ""),)))
            case "reasoning":
                _thought(turns, _convert(item, _ReasoningItem, where))
            case kind:
                _did(turns, Opaque(WIRE, f"input item of type {kind}"))
    return turns


def _convert(item: dict[str, Any], shape: type[T], where: str) -> T:
    try:
        return msgspec.convert(item, shape)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        field = where + path.rstrip("`")
        raise RequestError(f"{field}: {what}", param=field, code="invalid_value") from error


def _parts(content: _Content) -> list[Part]:
    return [Text(content)] if isinstance(content, str) else [_part(part) for part in content]


def _part(part: dict[str, Any]) -> Part:
    match part:
        case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
            return Text(text, cache_of(part))
        case {"type": "refusal", "refusal": str(text)}:
            return Text(text)
        case {"type": "input_image", "image_url": str(url)}:
            detail = part.get("detail")
            return image_of(url, "" if detail in (None, "auto") else str(detail), cache_of(part))
        case {"type": "input_image"}:
            return Opaque(WIRE, "input_image by file_id")
    return Opaque(WIRE, f"content part of type {part.get('type')}")


def _said(turns: list[Message], parts: list[Part]) -> None:
    """Add thoughts or words to the assistant's turn.

    Behind words they begin another turn, unless a tool's answer must still follow this one.
    """
    kinds = {type(part) for part in _turn(turns)}
    if Text in kinds and ToolUse not in kinds:
        turns.append(Message("assistant", tuple(parts)))
    else:
        _did(turns, *parts)


def _did(turns: list[Message], *parts: Part) -> None:
    """Add to the assistant's turn, or begin one."""
    turn = _turn(turns)
    if turn:
        turns[-1] = Message("assistant", (*turn, *parts))
    else:
        turns.append(Message("assistant", parts))


def _turn(turns: list[Message]) -> tuple[Part, ...]:
    return turns[-1].parts if turns and turns[-1].role == "assistant" else ()


def _thought(turns: list[Message], item: _ReasoningItem) -> None:
    texts = [part.text for part in (item.content or item.summary or ())]
    thoughts = Reasoning("\n\n".join(texts), item.signature, item.encrypted_content or "")
    if thoughts != Reasoning():
        _said(turns, [thoughts])


def write_items(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Return the items of a conversation. Raises UnsupportedFieldError."""
    return [item for message in messages for item in _write(message)]


def _write(message: Message) -> Iterable[dict[str, Any]]:
    if message.name:
        raise unsupported("messages.name", WIRE)
    words: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, Text | Image):
            words.append(_write_part(part, message.role))
            continue
        if words:
            yield {"type": "message", "role": message.role, "content": words}
            words = []
        match part:
            case ToolUse():
                yield {
                    "type": "function_call",
                    "call_id": part.id,
                    "name": part.name,
                    "arguments": part.arguments,
                }
            case ToolResult():
                yield {
                    "type": "function_call_output",
                    "call_id": part.id,
                    "output": _write_output(part.parts),
                }
            case Reasoning():
                yield from _write_thoughts(part)
            case Opaque():
                message_text = f"messages: a target that speaks {WIRE} has no {part.kind}."
                raise UnsupportedFieldError(message_text, param="messages")
    if words or (not message.parts and message.role != "tool"):
        yield {"type": "message", "role": message.role, "content": words}


def _write_part(part: Text | Image, role: str) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "output_text" if role == "assistant" else "input_text", "text": part.text}
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    return {"type": "input_image", "image_url": url, "detail": part.detail or "auto"}


def _write_output(parts: tuple[Text | Image, ...]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) for part in parts):
        return "".join([part.text for part in parts if isinstance(part, Text)])
    return [_write_part(part, "user") for part in parts]


def _write_thoughts(part: Reasoning) -> Iterable[dict[str, Any]]:
    """Give back what the target encrypted; thoughts that it cannot check are of no use to it.

    Without ``id``: nothing is stored there that an id could name.
    """
    summary = [{"type": "summary_text", "text": part.text}] if part.text else []
    for block in part.redacted.split():
        yield {"type": "reasoning", "summary": summary, "encrypted_content": block}
        summary = []


__all__ = ["WIRE", "read_items", "write_items"]
