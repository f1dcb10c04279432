"""Simulated prompt caches: which tokens of a prompt are read from the provider's cache, which are written.

Anthropic and Bedrock cache only up to the markers that a request sets, bill what is written, and find a
prefix up to 20 blocks before a marker (Anthropic's and Amazon's pages on prompt caching). OpenAI, Azure and
Gemini cache by themselves, in steps of 128 tokens, and bill nothing for writing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from firsttoken.chat import ChatRequest, Message, Opaque, Part, Reasoning, Text, ToolResult
from firsttoken.simulator import text
from firsttoken.simulator.profile import Profile

STEP = 128
LOOK_BACK = 20
AUTOMATIC_SECONDS = 600.0
MARKED_SECONDS = {"5m": 300.0, "1h": 3600.0}
_ENTRIES = 65_536

_encode = msgspec.json.encode


class Found(Struct, frozen=True):
    """Tokens that were found and that are new in the cache, and the prefixes to keep (key and seconds)."""

    cached: int = 0
    written: int = 0
    keys: tuple[tuple[int, float], ...] = ()


class _Block(Struct, frozen=True):
    """A prefix of a prompt that ends with a tool or a part: its tokens, its key, and its marker."""

    tokens: int
    key: int
    ttl: str


class PromptCache:
    """Remembers prefixes. Memory: `_ENTRIES` hashes, those used least go first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, tuple[float, float]] = OrderedDict()
        """Until when a prefix is kept, and for how many seconds after a use."""

    def look_up(
        self, request: ChatRequest, scope: str, profile: Profile, now: float, *, marked: bool
    ) -> Found:
        """Return what the cache holds of ``request``. ``scope`` is who shares a cache."""
        seed = hash((scope, request.model))
        if marked:
            return self._marked(list(_blocks(request, seed)), profile, now)
        return self._automatic(request, seed, profile, now)

    def keep(self, found: Found, now: float) -> None:
        """Write what `look_up` found to be kept, and begin its time anew."""
        for key, seconds in found.keys:
            self._entries[key] = (now + seconds, seconds)
            self._entries.move_to_end(key)
        while len(self._entries) > _ENTRIES:
            self._entries.popitem(last=False)

    def _holds(self, key: int, now: float) -> bool:
        return now < self._entries.get(key, (0.0, 0.0))[0]

    def _automatic(self, request: ChatRequest, seed: int, profile: Profile, now: float) -> Found:
        seconds = profile.cache_seconds or AUTOMATIC_SECONDS
        spoken = _tokens(request)
        keys, cached, key = [], 0, seed
        for end in range(STEP, len(spoken) + 1, STEP):
            key = hash((key, *spoken[end - STEP : end]))
            keys.append((key, seconds))
            if cached == end - STEP and self._holds(key, now):
                cached = end
        return Found(cached if cached >= profile.cache_minimum else 0, 0, tuple(keys))

    def _marked(self, blocks: list[_Block], profile: Profile, now: float) -> Found:
        marks = [
            position
            for position, block in enumerate(blocks)
            if block.ttl and block.tokens >= profile.cache_minimum
        ]
        if not marks:
            return Found()
        read: _Block | None = None
        for mark in reversed(marks):
            near = reversed(blocks[max(0, mark - LOOK_BACK) : mark + 1])
            read = next((block for block in near if self._holds(block.key, now)), None)
            if read:
                break
        cached = read.tokens if read else 0
        keys = [
            (blocks[mark].key, profile.cache_seconds or MARKED_SECONDS[blocks[mark].ttl]) for mark in marks
        ]
        if read:
            keys.append((read.key, self._entries[read.key][1]))
        return Found(cached, blocks[marks[-1]].tokens - cached, tuple(keys))


def _blocks(request: ChatRequest, seed: int) -> Iterator[_Block]:
    """Yield the prefixes of a prompt in the order in which providers read it: tools, system, the rest."""
    tokens, key = 0, seed
    for tool in request.tools:
        tokens += text.count_tool(tool)
        key = hash((key, _encode(msgspec.structs.replace(tool, cache=""))))
        yield _Block(tokens, key, tool.cache)
    for message in sorted(request.messages, key=_is_conversation):
        frame = text.count(Message(message.role, ()))
        for part in message.parts:
            tokens += frame + text.count_part(part)
            frame = 0
            key = hash((key, message.role, _encode(_bare(part))))
            yield _Block(tokens, key, "" if isinstance(part, Reasoning | Opaque) else part.cache)


def _is_conversation(message: Message) -> bool:
    return message.role not in ("system", "developer")


def _bare(part: Part) -> Part:
    """Return the part without its marker, which is no part of what is cached."""
    if isinstance(part, Reasoning | Opaque):
        return part
    if isinstance(part, ToolResult):
        inner = tuple([msgspec.structs.replace(one, cache="") for one in part.parts])
        return msgspec.structs.replace(part, cache="", parts=inner)
    return msgspec.structs.replace(part, cache="")


def _tokens(request: ChatRequest) -> list[str]:
    """Return as many tokens as `text.count_request` counts."""
    spoken: list[str] = []
    for tool in request.tools:
        spoken.extend([f"tool {tool.name} {tool.description} {tool.schema}"] * text.count_tool(tool))
    for message in request.messages:
        spoken.extend([message.role] * text.count(Message(message.role, ())))
        for part in message.parts:
            if isinstance(part, Text):
                spoken.extend(text.tokens(part.text))
            else:
                spoken.extend([_encode(_bare(part)).decode()] * text.count_part(part))
    return spoken
