"""Many chunks as one: what arrived together, and what a whole answer holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from firsttoken.model import Chunk, ToolCall


def join(chunks: Sequence[Chunk], raw: bytes = b"", wire: str = "") -> Chunk:
    """Return one chunk that says what ``chunks`` say, in their order, with ``raw`` and ``wire`` as given."""
    if len(chunks) == 1:
        only = chunks[0]
        return Chunk(
            only.text, only.reasoning, only.tool_calls, only.finish, only.usage, only.model, raw, wire,
            only.signature, only.redacted, only.citations, only.refusal, only.stopped_by,
        )  # fmt: skip
    return Chunk(
        text="".join([chunk.text for chunk in chunks]),
        reasoning="".join([chunk.reasoning for chunk in chunks]),
        tool_calls=tuple([call for chunk in chunks for call in chunk.tool_calls]),
        finish=next((chunk.finish for chunk in reversed(chunks) if chunk.finish), None),
        usage=next((chunk.usage for chunk in reversed(chunks) if chunk.usage), None),
        model=next((chunk.model for chunk in chunks if chunk.model), ""),
        raw=raw,
        wire=wire,
        signature="".join([chunk.signature for chunk in chunks]),
        redacted="".join([chunk.redacted for chunk in chunks]),
        citations=tuple([citation for chunk in chunks for citation in chunk.citations]),
        refusal="".join([chunk.refusal for chunk in chunks]),
        stopped_by="".join([chunk.stopped_by for chunk in chunks]),
    )


_SIGNATURE, _REDACTED, _TEXT = 2, 3, 4
_ONLY_TEXT = (_TEXT, _TEXT)


def cuts(chunks: Sequence[Chunk]) -> list[int]:
    """Return the positions of the chunks that must not be joined to those before them.

    A chunk says reasoning before text before tool calls, and holds one signature and one encrypted block:
    what comes in another order, or twice, begins a chunk of its own, so that its place is kept.
    """
    found: list[int] = []
    reached = 0
    for position, chunk in enumerate(chunks):
        first, last = _span(chunk)
        if not last:
            continue
        if first < reached or (first == reached and first in (_SIGNATURE, _REDACTED)):
            found.append(position)
        reached = last
    return found


def _span(chunk: Chunk) -> tuple[int, int]:
    """Return the first and the last kind of content, in the order in which a chunk says them, from 1 on."""
    others = chunk.reasoning or chunk.tool_calls or chunk.signature or chunk.redacted
    if chunk.text and not (others or chunk.citations or chunk.refusal):
        return _ONLY_TEXT
    kinds = (
        *(chunk.reasoning, chunk.signature, chunk.redacted),
        *(chunk.text, chunk.citations, chunk.refusal, chunk.tool_calls),
    )
    said = [kind for kind, content in enumerate(kinds, 1) if content]
    return (said[0], said[-1]) if said else (0, 0)


def whole(chunks: Sequence[Chunk]) -> Chunk:
    """Return a whole answer as one chunk, its tool calls put together and in the order of their index."""
    joined = join(chunks) if chunks else Chunk()
    return msgspec.structs.replace(joined, tool_calls=whole_tool_calls(joined.tool_calls))


def whole_tool_calls(fragments: Iterable[ToolCall]) -> tuple[ToolCall, ...]:
    """Put fragments of tool calls together."""
    parts: dict[int, list[ToolCall]] = {}
    for fragment in fragments:
        parts.setdefault(fragment.index, []).append(fragment)
    return tuple(
        [
            ToolCall(
                index=index,
                id=next((part.id for part in same if part.id), ""),
                name=next((part.name for part in same if part.name), ""),
                arguments="".join([part.arguments for part in same]),
                signature="".join([part.signature for part in same]),
            )
            for index, same in sorted(parts.items())
        ]
    )
