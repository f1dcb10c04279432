"""Whole answers of OpenAI Responses, and the objects that whole and streamed answers share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from firsttoken.errors import UpstreamProtocolError
from firsttoken.model import Call, Chunk, Finish, ToolCall, Usage
from firsttoken.wire import json_body
from firsttoken.wire.chunks import whole
from firsttoken.wire.openai_responses.errors import error_in_stream
from firsttoken.wire.openai_responses.items import WIRE

_encode = msgspec.json.encode


class _Details(Struct, frozen=True):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(Struct, frozen=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None

    def neutral(self) -> Usage:
        read = self.input_tokens_details or _Details()
        wrote = self.output_tokens_details or _Details()
        return Usage(
            input=self.input_tokens or 0,
            output=self.output_tokens or 0,
            cached=read.cached_tokens or 0,
            cache_write=read.cache_write_tokens or 0,
            reasoning=wrote.reasoning_tokens or 0,
        )


class _Incomplete(Struct, frozen=True):
    reason: str | None = None


class Item(Struct, frozen=True):
    """An output item. What other kinds of items fill differently is checked where it is used."""

    type: str = ""
    call_id: str | None = None
    name: Any = None
    arguments: Any = None
    content: Any = None
    summary: Any = None
    encrypted_content: Any = None
    signature: Any = None


class Answer(Struct, frozen=True):
    """A response object, as far as it is read."""

    model: str | None = None
    status: str | None = None
    output: list[Item] | None = None
    usage: _Usage | None = None
    incomplete_details: _Incomplete | None = None
    error: Any = None


_answer = msgspec.json.Decoder(Answer)
_FINISH: dict[str | None, Finish] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_REASONS = {
    "length": "max_output_tokens",
    "context_length": "max_output_tokens",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}
"""Why an answer is incomplete, by the neutral reason; after any other reason it is complete."""


def read_answer(body: bytes) -> Chunk:
    """Decode a whole answer into the one chunk that it is. Raises what a failed answer means."""
    try:
        answer = _answer.decode(body.decode())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpstreamProtocolError(
            f"The target's answer is not the JSON that was expected: {error}"
        ) from error
    if answer.status == "failed" or answer.error is not None:
        raise error_in_stream(answer.error)
    texts: list[str] = []
    refusals: list[str] = []
    annotations: list[Mapping[str, Any]] = []
    for part in parts_of(answer.output, "message", "content"):
        texts.append(text_of(part, "output_text", "text"))
        refusals.append(text_of(part, "refusal", "refusal"))
        annotations.extend([said for said in part.get("annotations") or () if isinstance(said, dict)])
    calls = [item for item in answer.output or () if item.type == "function_call"]
    return Chunk(
        text="".join(texts),
        reasoning="".join(_thoughts(answer.output)),
        tool_calls=tuple([call_of(item, index) for index, item in enumerate(calls)]),
        finish=finish_of(answer, called=bool(calls)) if answer.status else None,
        usage=answer.usage.neutral() if answer.usage else None,
        model=answer.model or "",
        raw=body,
        wire=WIRE,
        signature="".join(_of_reasoning(answer.output, "signature")),
        redacted="\n".join(_of_reasoning(answer.output, "encrypted_content")),
        citations=tuple(annotations),
        refusal="".join(refusals),
    )


def parts_of(items: Iterable[Item] | None, kind: str, field: str) -> Iterable[dict[str, Any]]:
    """Return the parts of all items of a kind."""
    for item in items or ():
        parts = getattr(item, field) if item.type == kind else None
        yield from [part for part in parts or () if isinstance(part, dict)]


def text_of(part: Mapping[str, Any], kind: str, field: str) -> str:
    """Return the text of a part of this kind, nothing for another. Raises UpstreamProtocolError."""
    if part.get("type") != kind:
        return ""
    if not isinstance(said := part.get(field), str):
        raise UpstreamProtocolError(f"The target's answer has no {field} in a part of type {kind}.")
    return said


def _thoughts(items: Iterable[Item] | None) -> Iterable[str]:
    """Return the thoughts of each item, its parts a blank line apart."""
    for item in items or ():
        one = (item,)
        summary = [text_of(part, "summary_text", "text") for part in parts_of(one, "reasoning", "summary")]
        thought = [text_of(part, "reasoning_text", "text") for part in parts_of(one, "reasoning", "content")]
        yield "\n\n".join([*summary, *thought])


def _of_reasoning(items: Iterable[Item] | None, field: str) -> list[str]:
    found = [getattr(item, field) for item in items or () if item.type == "reasoning"]
    return [value for value in found if isinstance(value, str) and value]


def call_of(item: Item, index: int) -> ToolCall:
    """Return a function call with the arguments that the item holds so far. Raises UpstreamProtocolError."""
    arguments = item.arguments or ""
    if not (isinstance(item.call_id, str) and isinstance(item.name, str) and isinstance(arguments, str)):
        raise UpstreamProtocolError("The target's answer has a function call without call_id or name.")
    signature = item.signature if isinstance(item.signature, str) else ""
    return ToolCall(index, item.call_id, item.name, arguments, signature)


def finish_of(answer: Answer, *, called: bool) -> Finish:
    """Return why an answer ended; ``called`` says that it called tools."""
    if answer.status == "incomplete":
        reason = answer.incomplete_details.reason if answer.incomplete_details else None
        return _FINISH.get(reason, "stop")
    return "tool_calls" if called else "stop"


def write_answer(call: Call, chunks: list[Chunk], created: int) -> bytes:
    """Return the body of a whole answer: the target's own bytes where it speaks this format."""
    if len(chunks) == 1 and chunks[0].wire == WIRE:
        return chunks[0].raw
    answer = whole(chunks)
    status = status_of(answer.finish)
    output: list[dict[str, Any]] = []
    blocks = [block for block in answer.redacted.split("\n") if block]
    if answer.reasoning or answer.signature or blocks:
        first = blocks[0] if blocks else ""
        output.append(reasoning_item(f"rs_{call.id}_0", answer.reasoning, first, answer.signature))
    output.extend(
        reasoning_item(f"rs_{call.id}_{number}", "", block) for number, block in enumerate(blocks[1:], 1)
    )
    parts = []
    if answer.text or not (answer.refusal or answer.tool_calls):
        parts.append(text_part(answer.text, [annotation(citation) for citation in answer.citations]))
    if answer.refusal:
        parts.append({"type": "refusal", "refusal": answer.refusal})
    if parts:
        output.append(message_item(f"msg_{call.id}", parts, status))
    output.extend(call_item(f"fc_{call.id}_{tool.index}", tool, status) for tool in answer.tool_calls)
    said = closing(answer.finish, answer.usage, created)
    return _encode({**envelope(call, created, answer.model), **said, "output": output})


def envelope(call: Call, created: int, model: str) -> dict[str, Any]:
    """Return a response object that says what was asked for and nothing yet of the answer."""
    fields = json_body.fields(call.source.body) if call.source.wire == WIRE else {}
    asked = {name: raw for name, raw in fields.items() if name in _ECHOED and bytes(raw) != b"null"}
    return {
        "id": f"resp_{call.id}",
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": model or call.request.model,
        **_ECHOED,
        **asked,
        "background": False,
        "store": False,
        "output": [],
        "usage": None,
    }


_ECHOED: dict[str, Raw] = {
    "instructions": Raw(b"null"),
    "max_output_tokens": Raw(b"null"),
    "metadata": Raw(b"{}"),
    "parallel_tool_calls": Raw(b"true"),
    "previous_response_id": Raw(b"null"),
    "reasoning": Raw(b'{"effort":null,"summary":null}'),
    "service_tier": Raw(b'"default"'),
    "temperature": Raw(b"null"),
    "text": Raw(b'{"format":{"type":"text"}}'),
    "tool_choice": Raw(b'"auto"'),
    "tools": Raw(b"[]"),
    "top_p": Raw(b"null"),
    "truncation": Raw(b'"disabled"'),
}
"""Fields of the request that the answer repeats, and what stands there when they were not sent."""


def status_of(finish: Finish | None) -> str:
    """Return the status of an answer that ended so."""
    return "incomplete" if finish in _REASONS else "completed"


def closing(finish: Finish | None, usage: Usage | None, now: int) -> dict[str, Any]:
    """Return what a response object says at the end of its answer besides the output."""
    reason = _REASONS.get(finish) if finish else None
    return {
        "status": status_of(finish),
        "incomplete_details": {"reason": reason} if reason else None,
        "completed_at": None if reason else now,
        "usage": _usage(usage) if usage else None,
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def text_part(text: str, annotations: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a part of a message."""
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}


def message_item(item_id: str, parts: list[dict[str, Any]], status: str) -> dict[str, Any]:
    """Return the item that holds the words of the answer."""
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": parts}


def reasoning_item(item_id: str, text: str, encrypted: str = "", signature: str = "") -> dict[str, Any]:
    """Return the item that holds thoughts."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    item: dict[str, Any] = {"id": item_id, "type": "reasoning", "summary": summary}
    if encrypted:
        item["encrypted_content"] = encrypted
    if signature:
        item["signature"] = signature
    return item


def call_item(item_id: str, call: ToolCall, status: str) -> dict[str, Any]:
    """Return the item that holds a function call."""
    item = {
        "id": item_id,
        "type": "function_call",
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }
    return item | {"signature": call.signature} if call.signature else item


def annotation(citation: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a citation as this format has it, flat; Chat Completions nests the same."""
    nested = citation.get("url_citation")
    return {"type": "url_citation", **nested} if isinstance(nested, dict) else citation
