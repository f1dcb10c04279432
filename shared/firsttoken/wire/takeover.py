"""A writer that goes on behind a target's own bytes: ids, numbers and open blocks fit together."""

from __future__ import annotations

from msgspec.structs import replace

from firsttoken.model import Call, Chunk
from firsttoken.wire.codec import Codec, StreamWriter

LANDMARKS = {"openai-responses": b'"response.output_item.added"'}
"""What marks, by format, bytes whose ids are needed to the end: SDKs check those of every item."""


def resume_writer(codec: Codec, call: Call, created: int, follows: Chunk) -> StreamWriter:
    """Return a writer in the state that it had if it had written ``follows`` (`Chunk.follows`) itself.

    ``follows.raw`` holds whole events of the target's: those with which the answer began, those that hold one
    of `LANDMARKS`, and those from the latest content on, which tell what is open. Where they say nothing, ids
    and places are ours. Time and memory: those of writing what was said once more.
    """
    writer = codec.open_writer(call, created)
    writer.write(replace(follows, raw=b"", wire="", follows=None))
    writer.adopt(follows.raw)
    return writer
