"""Where a prompt can be cached: the ends of its tools, its instructions, and of what was said before.

Providers read tools, then system messages, then the conversation. Nothing is moved: the codecs put system
messages where a format has its one place for them, and elsewhere their position has a meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from firsttoken.chat import ChatRequest, Message, Opaque, Part, Reasoning, Text, ToolResult, Ttl
from firsttoken.policies.estimate import estimate

Place = Literal["tools", "system", "before", "said"]
"""``said``: behind the assistant's latest turn that was answered; ``before``: behind the one before that."""
LOOK_BACK = 64
"""Turns among which the last call of the same conversation is looked for."""
_encode = msgspec.json.encode


class Mark(Struct, frozen=True):
    """A place where a marker can stand: what is before it, as a hash and in estimated tokens."""

    place: Place
    tokens: int
    key: bytes = b""
    """Empty for the places in a conversation: that is known by its whole prompt."""
    message: int = -1
    """The message that ends there."""


class Prompt(Struct, frozen=True):
    """A prompt as a cache sees it."""

    marks: tuple[Mark, ...]
    """The shortest prefix first."""
    key: bytes
    """Of all of it."""
    before: tuple[bytes, ...]
    """The keys that earlier calls of the same conversation may have had, the latest first."""
    tokens: int


def has_markers(request: ChatRequest) -> bool:
    """Return whether the client says itself what is to be cached."""
    return any(tool.cache for tool in request.tools) or any(_caches(request))


def ttl_of(request: ChatRequest) -> str:
    """Return for how long a request asks to keep what it marks: the longest of its markers."""
    asked = {*_caches(request), *(tool.cache for tool in request.tools)}
    return "1h" if "1h" in asked else "5m"


def _caches(request: ChatRequest) -> Iterator[Ttl]:
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, ToolResult):
                yield from (inner.cache for inner in part.parts if inner.cache)
            if not isinstance(part, Reasoning | Opaque) and part.cache:
                yield part.cache


def look_at(request: ChatRequest, scope: str, *, tools: bool = True) -> Prompt:
    """Return where ``request`` can be marked. ``scope`` is who shares a cache: tenant and model.

    Time: that of hashing the prompt, about 0.1 ms for 50 kB.
    """
    hashed = blake2b(_encode((scope, request.tools)), digest_size=16)
    marks: list[Mark] = []
    tokens = estimate(ChatRequest("", (), tools=request.tools))
    if request.tools and tools:
        marks.append(Mark("tools", tokens, hashed.digest()))
    system = [at for at, turn in enumerate(request.messages) if turn.role in ("system", "developer")]
    for at in system:
        hashed.update(_encode(request.messages[at]))
        tokens += _size(request.messages[at])
    if system and _last_markable(request.messages[system[-1]]) is not None:
        marks.append(Mark("system", tokens, hashed.digest(), system[-1]))
    talk = [at for at in range(len(request.messages)) if at not in set(system)]
    answered = [at for at in talk[:-1] if request.messages[at].role == "assistant"][-2:]
    keys: list[bytes] = []
    for at in talk:
        hashed.update(_encode(request.messages[at]))
        tokens += _size(request.messages[at])
        keys.append(hashed.digest())
        if at in answered and _last_markable(request.messages[at]) is not None:
            marks.append(Mark("said" if at == answered[-1] else "before", tokens, b"", at))
    key, before = (keys[-1], keys[-2 : -LOOK_BACK - 2 : -1]) if keys else (hashed.digest(), [])
    return Prompt(tuple(marks), key, tuple(before), tokens)


def _size(message: Message) -> int:
    return estimate(ChatRequest("", (message,)))


def marked(request: ChatRequest, marks: Sequence[Mark], ttl: Ttl) -> ChatRequest:
    """Return ``request`` with markers at these places."""
    tools, messages = list(request.tools), list(request.messages)
    for mark in marks:
        if mark.place == "tools":
            tools[-1] = replace(tools[-1], cache=ttl)
        else:
            messages[mark.message] = _marked(messages[mark.message], ttl)
    return replace(request, tools=tuple(tools), messages=tuple(messages))


def _marked(message: Message, ttl: Ttl) -> Message:
    at = _last_markable(message)
    parts: list[Part] = list(message.parts)
    if at is not None:
        parts[at] = replace(parts[at], cache=ttl)
    return replace(message, parts=tuple(parts))


def _last_markable(message: Message) -> int | None:
    """Return the last part that a marker can stand behind: not thoughts, and nothing that is not sent."""
    for at in reversed(range(len(message.parts))):
        part = message.parts[at]
        if not isinstance(part, Reasoning | Opaque) and not (isinstance(part, Text) and not part.text):
            return at
    return None
