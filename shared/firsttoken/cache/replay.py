"""A kept answer is given again: all at once, in few large chunks, or at a reader's pace in its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import pairwise

from msgspec.structs import replace

from firsttoken.model import Chunk, ToolCall
from firsttoken.wire.chunks import cuts, join

BURST = 4096
"""Characters: the chunks of an answer are joined up to this. Many clients read events of 64 KB at most."""
_SLICE = 24
"""Characters in a step of a paced answer whose chunks are larger."""


def bursts(chunks: Sequence[Chunk]) -> tuple[Chunk, ...]:
    """Return the same answer in as few chunks as hold it in order, of about `BURST` characters each."""
    return tuple([_joined(chunks[start:end]) for start, end in pairwise([0, *_ends(chunks)])])


def _ends(chunks: Sequence[Chunk]) -> list[int]:
    """Return where each burst ends."""
    apart = set(cuts(chunks))
    ends: list[int] = []
    size = 0
    for position, chunk in enumerate(chunks):
        if position and (position in apart or size >= BURST or chunk.wire != chunks[position - 1].wire):
            ends.append(position)
            size = 0
        size += len(chunk.text) + len(chunk.reasoning) + len(chunk.raw)
        size += sum([len(call.arguments) for call in chunk.tool_calls])
    return [*ends, len(chunks)] if chunks else []


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    raw = b"".join([chunk.raw for chunk in chunks])
    one = join(chunks, raw, chunks[0].wire)
    return replace(one, tool_calls=tuple(_merged(one.tool_calls))) if one.tool_calls else one


def _merged(fragments: Sequence[ToolCall]) -> Iterator[ToolCall]:
    """Put the fragments that follow each other in one call together."""
    last: ToolCall | None = None
    for fragment in fragments:
        if last is None or last.index != fragment.index:
            if last is not None:
                yield last
            last = fragment
        else:
            last = replace(
                last,
                id=last.id or fragment.id,
                name=last.name or fragment.name,
                arguments=last.arguments + fragment.arguments,
                signature=last.signature + fragment.signature,
            )
    if last is not None:
        yield last


async def paced(chunks: Sequence[Chunk], rate: float) -> AsyncGenerator[Chunk]:
    """Stream the chunks at ``rate`` characters a second, on a schedule that a slow reader does not shift."""
    now = asyncio.get_running_loop().time
    due = now()
    for chunk in chunks:
        for part in _slices(chunk):
            if (wait := due - now()) > 0:
                await asyncio.sleep(wait)
            yield part
            due += (len(part.text) + len(part.reasoning)) / rate


def _slices(chunk: Chunk) -> Iterator[Chunk]:
    """Cut a chunk with much text into several; the last one has what ends it."""
    text = chunk.text
    if len(text) <= _SLICE or chunk.raw or chunk.reasoning or chunk.signature or chunk.redacted:
        yield chunk
        return
    last = (len(text) - 1) // _SLICE * _SLICE
    for start in range(0, last, _SLICE):
        yield Chunk(text[start : start + _SLICE], model=chunk.model)
    yield replace(chunk, text=text[last:])
