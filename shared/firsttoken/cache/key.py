"""The canonical key of a call: two calls with the same key ask for the same answer.

What changes an answer is in it, of whatever format; who asks is in it, so that tenants never share; how the
answer is delivered (``stream``, ``include_usage``) and what only labels a call (``user``, ``metadata``, cache
markers) is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from firsttoken.chat import ChatRequest, Message, Opaque, Part, Reasoning, ToolResult
from firsttoken.errors import RequestError
from firsttoken.model import Call, Source
from firsttoken.wire import json_body

VERSION = 1
"""Part of every key: raise it when the meaning of a key changes."""
_READ_OVER = {
    "openai-responses": ("reasoning", "include"),
    "anthropic": ("thinking",),
    "gemini": ("generationConfig", "generation_config"),
    "bedrock-converse": ("additionalModelRequestFields", "additionalModelResponseFieldPaths"),
}
"""Fields whose neutral words leave something out that a target of the same format reads."""
_EXACT = 2**53
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_canonical_json = msgspec.json.Encoder(order="deterministic").encode


def request_key(call: Call, *, scope: str = "") -> str | None:
    """Return the SHA-256 (hex) of all that changes the answer, or None where that cannot be told.

    That is so where the codec names a field (`Source.unknown`) whose value is not found in the body: such a
    call must not share an answer. ``scope`` is whatever else must be the same, in the caller's words. Objects
    of JSON are equal in any order of their keys, those of schemas, too; numbers are equal by value.
    Raises RequestError for a number that is not finite. Time: 6 us for 1 KB, 40 us for 100 KB.
    """
    from hashlib import sha256

    request, source = call.request, call.source
    beyond = _beyond(source)
    if beyond is None:
        return None
    marked, opaque = _inspect(request.messages)
    if opaque and not source.body:
        return None
    asked = (
        (VERSION, scope, call.tenant, request.model),
        _bare(request.messages) if marked else request.messages,
        [(tool.name, tool.description, tool.schema, tool.strict) for tool in request.tools],
        *(request.tool_choice, request.parallel_tool_calls, request.output, request.reasoning),
        *(request.max_tokens, request.top_k, request.stop, request.service_tier),
        "" if request.seed is None else str(request.seed),  # may have any size
        _floats(request),
        beyond,
        source.body if opaque else b"",
    )
    try:
        return sha256(_encode(asked)).hexdigest()
    except (OverflowError, UnicodeEncodeError):
        return None  # an integer of more than 64 bits, or half a character: nothing to share


def _floats(request: ChatRequest) -> tuple[float | None, ...]:
    """Return the sampling parameters as floats with one zero. Raises RequestError."""
    given = (request.temperature, request.top_p, request.presence_penalty, request.frequency_penalty)
    if given == (None, None, None, None):
        return ()
    for name, value in zip(_FLOATS, given, strict=True):
        if value is not None and not math.isfinite(value):
            raise RequestError(f"{name}: expected a finite number, got {value}.", param=name)
    return tuple([None if value is None else value + 0.0 for value in given])


_FLOATS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")


def _inspect(messages: Iterable[Message]) -> tuple[bool, bool]:
    """Return whether a part has a cache marker, and whether one can only be told from the body."""
    marked = opaque = False
    for message in messages:
        for part in message.parts:
            if isinstance(part, Opaque):
                opaque = True
            elif not isinstance(part, Reasoning):
                inner = part.parts if isinstance(part, ToolResult) else ()
                marked = marked or bool(part.cache or (inner and any(one.cache for one in inner)))
    return marked, opaque


def _bare(messages: Iterable[Message]) -> list[Message]:
    """Return the messages without cache markers."""
    return [
        replace(message, parts=tuple([_unmarked(part) for part in message.parts])) for message in messages
    ]


def _unmarked(part: Part) -> Part:
    if isinstance(part, Opaque | Reasoning):
        return part
    if isinstance(part, ToolResult):
        return replace(part, parts=tuple([_unmarked(inner) for inner in part.parts]), cache="")
    return replace(part, cache="")


def _beyond(source: Source) -> list[tuple[str, bytes]] | None:
    """Return what is asked for beyond the neutral words, or None where it is not where it should be."""
    named = {name.partition(".")[0].partition("[")[0] for name in source.unknown}
    body = source.body
    over = [name for name in _READ_OVER.get(source.wire, ()) if name.encode() in body]
    if not named and not over:
        return []
    try:
        fields = json_body.fields(body)
    except msgspec.DecodeError:
        return None
    if not named <= fields.keys():
        return None
    return [(name, _canonical(fields[name])) for name in sorted({*named, *over} & fields.keys())]


def _canonical(raw: Raw) -> bytes:
    """Return JSON in its one form; what cannot be brought into that is equal to the same bytes only."""
    try:
        return _canonical_json(_by_value(msgspec.json.decode(raw)))
    except (msgspec.DecodeError, RecursionError):
        return bytes(raw)


def _by_value(value: Any) -> Any:
    """Return a JSON value in which whole numbers are integers."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _EXACT else value
    if isinstance(value, dict):
        return {key: _by_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_by_value(inner) for inner in value]
    return value
