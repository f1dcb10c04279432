"""Answers of Anthropic Messages, whole and streamed, as clients get them."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from firsttoken.errors import FirstTokenError, UpstreamProtocolError
from firsttoken.model import Call, Chunk, Finish, ToolCall, Usage
from firsttoken.wire import sse
from firsttoken.wire.anthropic.errors import write_error
from firsttoken.wire.anthropic.request import WIRE
from firsttoken.wire.anthropic.target import json_object
from firsttoken.wire.chunks import whole

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_TEXT_END = b"}}\n\n"

_encode = msgspec.json.encode

_REASONS: dict[Finish, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "stop_sequence": "stop_sequence",
    "refusal": "refusal",
    "context_length": "model_context_window_exceeded",
}


class _Typed(Struct, frozen=True):
    type: str = ""


class _Place(Struct, frozen=True):
    """Where an event belongs, and what kind of block begins or goes on there."""

    type: str = ""
    index: int = 0
    content_block: _Typed | None = None
    delta: _Typed | None = None


_place = msgspec.json.Decoder(_Place)
_KINDS = {"text_delta": "text", "citations_delta": "text", "input_json_delta": "tool_use"}
"""The block that a delta belongs to; any other one is thinking."""


class StreamWriter:
    """Turns chunks into the bytes of a streamed answer: a sequence of blocks, one open at a time."""

    def __init__(self, call: Call, created: int) -> None:  # noqa: ARG002 - this format has no time
        self._call = call
        self._begun = False
        self._passed = False
        self._blocks = 0
        self._open = ""
        """The type of the open block: what continues it needs no new one."""
        self._tool = -1
        self._tools: set[int] = set()
        self._text = b""
        self._last = Chunk()
        self._refusal = ""
        self._usage: Usage | None = None

    def write(self, chunk: Chunk) -> bytes:
        """Return the events of one chunk: the target's own bytes where it speaks this format."""
        if chunk.wire == WIRE:
            self._passed = True
            return chunk.raw
        events = b"" if self._begun else self._begin(chunk)
        if chunk.reasoning or chunk.signature or chunk.redacted:
            events += self._think(chunk)
        if chunk.text:
            events += self._start("text") if self._open != "text" else b""
            events += self._text + _encode(chunk.text) + _TEXT_END
        if chunk.citations:
            events += self._cite(chunk)
        for tool in chunk.tool_calls:
            events += self._call_tool(tool)
        if chunk.finish or chunk.usage or chunk.refusal:
            self._note(chunk)
        return events

    def end(self) -> bytes:
        """Return the closing events: why the answer ended, and its token counts."""
        if self._passed:
            return STOP
        events = (b"" if self._begun else self._begin(self._last)) + self._stop()
        ended = {"type": "message_delta", "delta": _ending(self._last, self._refusal)}
        return events + _event({**ended, "usage": _usage(self._usage or Usage())}) + STOP

    def adopt(self, raw: bytes) -> None:
        """See `firsttoken.wire.codec.StreamWriter.adopt`: the last event of a block tells what is open."""
        for event in sse.events(raw):
            payload = sse.data(event)
            place = _place.decode(payload) if payload else _Place()
            if not place.type.startswith("content_block_"):
                continue
            self._blocks = place.index + 1
            if place.type == "content_block_stop":
                self._open = ""
            elif place.content_block is not None:
                self._open = place.content_block.type
            elif place.delta is not None and self._open != "server_tool_use":
                self._open = _KINDS.get(place.delta.type, "thinking")
        self._write_text_at(self._blocks - 1)

    def error(self, error: FirstTokenError, request_id: str) -> bytes:
        """Return the event that ends a broken answer; clients raise it."""
        return b"event: error\ndata: " + write_error(error, request_id) + b"\n\n"

    def heartbeat(self) -> bytes:
        """Return the format's own ``ping``."""
        return PING

    def _note(self, chunk: Chunk) -> None:
        self._usage = chunk.usage or self._usage
        self._refusal += chunk.refusal
        if chunk.finish:
            self._last = chunk

    def _begin(self, chunk: Chunk) -> bytes:
        self._begun = True
        message = {
            **_envelope(self._call, chunk),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(chunk.usage or Usage()),
        }
        return _event({"type": "message_start", "message": message})

    def _start(self, kind: str, **fields: Any) -> bytes:
        events = self._stop()
        block = {"type": kind, **({"text": ""} if kind == "text" else fields)}
        if kind == "text":
            self._write_text_at(self._blocks)
        self._open = kind
        self._blocks += 1
        return events + _event(
            {"type": "content_block_start", "index": self._blocks - 1, "content_block": block}
        )

    def _write_text_at(self, index: int) -> None:
        self._text = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"text_delta","text":' % index
        )

    def _delta(self, **delta: Any) -> bytes:
        return _event({"type": "content_block_delta", "index": self._blocks - 1, "delta": delta})

    def _stop(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return _event({"type": "content_block_stop", "index": self._blocks - 1})

    def _think(self, chunk: Chunk) -> bytes:
        events = b""
        if chunk.reasoning or chunk.signature:
            if self._open != "thinking":
                events += self._start("thinking", thinking="", signature="")
            if chunk.reasoning:
                events += self._delta(type="thinking_delta", thinking=chunk.reasoning)
            if chunk.signature:
                events += self._delta(type="signature_delta", signature=chunk.signature) + self._stop()
        if chunk.redacted:
            events += self._start("redacted_thinking", data=chunk.redacted) + self._stop()
        return events

    def _cite(self, chunk: Chunk) -> bytes:
        events = self._start("text") if self._open != "text" else b""
        for citation in chunk.citations:
            events += self._delta(type="citations_delta", citation=citation)
        return events

    def _call_tool(self, tool: ToolCall) -> bytes:
        """Return the events of a fragment. Raises UpstreamProtocolError for one whose block has ended."""
        events = b""
        if self._open != "tool_use" or self._tool != tool.index:
            if tool.index in self._tools:
                raise UpstreamProtocolError("The target mixed the fragments of several tool calls.")
            self._tools.add(tool.index)
            self._tool = tool.index
            events = self._start("tool_use", id=tool.id, name=tool.name, input={})
        if tool.arguments:
            events += self._delta(type="input_json_delta", partial_json=tool.arguments)
        return events


open_writer = StreamWriter


def _event(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(event))


def _envelope(call: Call, chunk: Chunk) -> dict[str, Any]:
    return {
        "id": f"msg_{call.id.removeprefix('req_')}",
        "type": "message",
        "role": "assistant",
        "model": chunk.model or call.request.model,
    }


def _ending(last: Chunk, refusal: str) -> dict[str, Any]:
    finish = last.finish or "stop"
    ending: dict[str, Any] = {
        "stop_reason": "refusal" if refusal and finish == "stop" else _REASONS[finish],
        "stop_sequence": last.stopped_by or None,
    }
    if refusal:
        ending["stop_details"] = {"type": "refusal", "category": None, "explanation": refusal}
    return ending


def _usage(usage: Usage) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "input_tokens": max(0, usage.input - usage.cached - usage.cache_write),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
    }
    if usage.reasoning:
        counts["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return counts


def write_answer(call: Call, chunks: list[Chunk], created: int) -> bytes:  # noqa: ARG001
    """Return the body of a whole answer: the target's own bytes where it speaks this format."""
    if len(chunks) == 1 and chunks[0].wire == WIRE:
        return chunks[0].raw
    answer = whole(chunks)
    message = {
        **_envelope(call, answer),
        "content": _blocks(answer),
        **_ending(answer, answer.refusal),
        "usage": _usage(answer.usage or Usage()),
    }
    return _encode(message)


def _blocks(answer: Chunk) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if answer.reasoning or answer.signature:
        blocks.append({"type": "thinking", "thinking": answer.reasoning, "signature": answer.signature})
    if answer.redacted:
        blocks.append({"type": "redacted_thinking", "data": answer.redacted})
    if answer.text or answer.citations:
        cited = {"citations": answer.citations} if answer.citations else {}
        blocks.append({"type": "text", "text": answer.text, **cited})
    for tool in answer.tool_calls:
        arguments: Raw = json_object(tool.arguments)
        blocks.append({"type": "tool_use", "id": tool.id, "name": tool.name, "input": arguments})
    return blocks


__all__ = ["StreamWriter", "open_writer", "write_answer"]
