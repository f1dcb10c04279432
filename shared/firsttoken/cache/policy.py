"""Which answers may be given again: what a request, an answer or a client's wish says against it."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from msgspec import Struct

from firsttoken.cache.entry import Collector, Refusal
from firsttoken.chat import ChatRequest, ToolResult, ToolUse
from firsttoken.errors import (
    FirstTokenError,
    UpstreamAuthError,
    UpstreamClosedError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from firsttoken.settings import Cache
from firsttoken.telemetry.record import Record

Wish = Literal["", "no-cache", "no-store"]
MAX_LOOKED_AT = 4096
"""Characters of a conversation's end in which words of time are looked for."""
_APART = str.maketrans(dict.fromkeys(string.punctuation + "\u2019\u2026", " "))
_FINISHES = ("stop", "stop_sequence", "tool_calls", "length")
_REFUSED = (400, 413, 422)
"""What a target says of the request itself; a 404 is about our configuration."""
_FAILURES = frozenset(
    kind.code
    for kind in (
        *(UpstreamError, UpstreamConnectError, UpstreamTimeoutError, UpstreamProtocolError),
        *(UpstreamClosedError, UpstreamRateLimitError, UpstreamAuthError),
    )
)


def wish_of(headers: Mapping[str, str]) -> Wish:
    """Return what the client's ``cache-control`` asks for.

    ``no-store``: neither look an answer up nor keep one; ``no-cache`` (or ``max-age=0``): make a new one.
    """
    said = headers.get("cache-control")
    if not said:
        return ""
    words = {word.strip().lower().replace(" ", "") for word in said.split(",")}
    if "no-store" in words:
        return "no-store"
    return "no-cache" if words & {"no-cache", "max-age=0"} else ""


def may_cache(request: ChatRequest, settings: Cache) -> bool:
    """Return whether the answer to a request may be kept and given again.

    Time: 7 us for 1 KB, 30 us for any more.
    """
    if not settings.sampled and request.temperature != 0 and request.seed is None:
        return False
    if not settings.tools and _uses_tools(request):
        return False
    return settings.time_relative or not is_time_relative(_asked(request))


def may_keep(answer: Collector, request: ChatRequest, record: Record) -> bool:
    """Return whether a whole answer is one to give again: complete, all from where it was asked for."""
    if answer.over or answer.refused or not answer.said or answer.finish not in _FINISHES:
        return False
    if answer.finish == "length" and request.max_tokens is None:
        return False
    return record.cache == "miss" and not record.rung and not record.resumed


def refusal_of(error: FirstTokenError, record: Record) -> Refusal | None:
    """Return what to remember of an error: a refusal, unless a target that failed might have answered."""
    if not isinstance(error, UpstreamRefusedError) or error.status not in _REFUSED:
        return None
    if any(attempt.outcome in _FAILURES for attempt in record.attempts):
        return None
    return Refusal(str(error), error.status, error.code, error.param)


def is_time_relative(text: str) -> bool:
    """Return whether a text has a word or phrase of ``time_words.txt``: a heuristic, for English."""
    known = _words()
    said = text.lower().translate(_APART).split()
    if not known.single.isdisjoint(said):
        return True
    if known.heads.isdisjoint(said):
        return False
    joined = f" {' '.join(said)} "
    return any(phrase in joined for phrase in known.phrases)


def _uses_tools(request: ChatRequest) -> bool:
    if request.tools:
        return True
    return any(isinstance(part, ToolUse | ToolResult) for turn in request.messages for part in turn.parts)


def _asked(request: ChatRequest) -> str:
    """Return what the user said last, `MAX_LOOKED_AT` characters at most."""
    return "\n".join(_last_words(turn.text() for turn in reversed(request.messages) if turn.role == "user"))


def _last_words(texts: Iterable[str]) -> Iterable[str]:
    left = MAX_LOOKED_AT
    for text in texts:
        if len(text) > left:  # questions stand at the beginning or at the end of what they are about
            yield text[: left // 2]
            yield text[-(left // 2) :]
            return
        left -= len(text)
        yield text


class _Words(Struct, frozen=True):
    single: frozenset[str]
    phrases: tuple[str, ...]
    """Of several words, with a space on both sides."""
    heads: frozenset[str]
    """Their first words."""


@cache
def _words() -> _Words:
    lines = (Path(__file__).parent / "time_words.txt").read_text("utf-8").splitlines()
    found = [line.split() for line in lines if line and not line.startswith("#")]
    several = [words for words in found if len(words) > 1]
    return _Words(
        single=frozenset([words[0] for words in found if len(words) == 1]),
        phrases=tuple([f" {' '.join(words)} " for words in several]),
        heads=frozenset([words[0] for words in several]),
    )
