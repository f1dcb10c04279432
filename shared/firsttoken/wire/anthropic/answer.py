"""Answers of Anthropic Messages, whole and streamed, as a target sends them."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from firsttoken.errors import UpstreamProtocolError
from firsttoken.model import Chunk, Finish, ToolCall, Usage
from firsttoken.wire import sse
from firsttoken.wire.anthropic.errors import error_event
from firsttoken.wire.anthropic.request import WIRE

STREAM_TYPE = "text/event-stream; charset=utf-8"


class _OutputDetails(Struct, frozen=True):
    thinking_tokens: int | None = None


class _Usage(Struct, frozen=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None

    def neutral(self, start: Usage | None = None) -> Usage:
        """Return the counts, in a stream on top of those of its start: each event repeats only some."""
        known = start or Usage()
        cached = _first(self.cache_read_input_tokens, known.cached)
        wrote = _first(self.cache_creation_input_tokens, known.cache_write)
        plain = _first(self.input_tokens, known.input - known.cached - known.cache_write)
        details = self.output_tokens_details
        return Usage(
            input=plain + cached + wrote,
            output=_first(self.output_tokens, known.output),
            cached=cached,
            cache_write=wrote,
            reasoning=_first(details.thinking_tokens if details else None, known.reasoning),
        )


def _first(said: int | None, otherwise: int) -> int:
    return otherwise if said is None else said


class _StopDetails(Struct, frozen=True):
    explanation: str | None = None


class _Block(Struct, frozen=True):
    """A block of a whole answer, or what one begins with."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: Any = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw(b"{}")
    citations: list[dict[str, Any]] | None = None


class _Message(Struct, frozen=True):
    model: str = ""
    content: list[_Block] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: _StopDetails | None = None
    usage: _Usage | None = None
    type: str = ""


class _Delta(Struct, frozen=True, gc=False):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    thinking: str = ""
    signature: str = ""
    citation: dict[str, Any] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: _StopDetails | None = None


class _TextDelta(Struct, frozen=True, gc=False, tag_field="type", tag="text_delta"):
    text: str


class _TextEvent(Struct, frozen=True, gc=False, tag_field="type", tag="content_block_delta"):
    delta: _TextDelta


class _Event(Struct, frozen=True, gc=False):
    type: str
    index: int = 0
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: _Usage | None = None


_EVENT = b"event: content_block_delta\ndata: "
_TEXT_EVENT = _EVENT + b"{"
_text_event = msgspec.json.Decoder(_TextEvent)
_event = msgspec.json.Decoder(_Event)
_message = msgspec.json.Decoder(_Message)

FINISH: dict[str, Finish] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_calls",
    "pause_turn": "length",  # the answer is not complete: the client is to ask for its continuation
    "refusal": "refusal",
    "model_context_window_exceeded": "context_length",
}
"""What a stop reason means. Source: Claude API reference, "Handling stop reasons"; others mean ``stop``."""


def read_answer(body: bytes) -> Chunk:
    """Decode a whole answer into the one chunk that it is."""
    try:
        message = _message.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _malformed(error) from error
    if message.type == "error":
        raise error_event(body)
    blocks = message.content or ()
    thoughts = [block for block in blocks if block.type in ("thinking", "redacted_thinking")]
    alone = len(thoughts) == 1  # of several, joined, no signature would be true
    tools = [block for block in blocks if block.type == "tool_use"]
    return Chunk(
        text="".join([block.text or "" for block in blocks if block.type == "text"]),
        reasoning="".join([block.thinking or "" for block in thoughts]),
        tool_calls=tuple(
            [
                ToolCall(index, tool.id or "", tool.name or "", _text_of(tool.input))
                for index, tool in enumerate(tools)
            ]
        ),
        finish=FINISH.get(message.stop_reason, "stop") if message.stop_reason else None,
        usage=message.usage.neutral() if message.usage else None,
        model=message.model,
        raw=body,
        wire=WIRE,
        signature=thoughts[0].signature or "" if alone else "",
        redacted=_encrypted(thoughts[0]) if alone else "",
        citations=tuple([citation for block in blocks for citation in block.citations or ()]),
        refusal=_explanation(message),
        stopped_by=message.stop_sequence or "",
    )


def _encrypted(block: _Block) -> str:
    return block.data if isinstance(block.data, str) else ""


def _text_of(raw: Raw) -> str:
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise _malformed(error) from error


def _explanation(said: _Message | _Delta) -> str:
    return (said.stop_details and said.stop_details.explanation) or ""


def _malformed(error: Exception) -> UpstreamProtocolError:
    return UpstreamProtocolError(f"The target's answer is not the JSON that was expected: {error}")


class StreamReader(sse.EventReader):
    """Reads a streamed answer.

    Memory besides the events: the position of each tool call among the blocks.
    """

    wire = WIRE

    def __init__(self) -> None:
        super().__init__()
        self._tools: dict[int, int] = {}
        self._usage = Usage()

    def feed(self, received: bytes) -> Chunk | None:
        """See `firsttoken.wire.codec.StreamReader.feed`; one piece of text alone goes straight."""
        if (
            received.startswith(_TEXT_EVENT)
            and received.find(b"\n", len(_TEXT_EVENT)) == len(received) - 2
            and received.endswith(b"\n\n")
            and not (self._pieces or self._held or self._failure or self.done)
        ):
            try:
                event = _text_event.decode(received[len(_EVENT) :])
            except (msgspec.DecodeError, UnicodeDecodeError):
                return super().feed(received)  # which says what is wrong with it
            return Chunk(event.delta.text, "", (), None, None, "", received, WIRE)
        return super().feed(received)

    def read_event(self, payload: bytes) -> Chunk | None:
        """Read one event. Unknown kinds of events and deltas are read over, as the API asks for."""
        try:
            event = _event.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _malformed(error) from error
        match event.type:
            case "content_block_delta":
                return self._delta(event.delta, event.index) if event.delta else None
            case "content_block_start":
                return self._start(event.content_block, event.index) if event.content_block else None
            case "message_start" if event.message:
                if event.message.usage:
                    self._usage = event.message.usage.neutral()
                return Chunk(model=event.message.model, usage=self._usage)
            case "message_delta":
                return self._finish(event)
            case "message_stop":
                self.done = True
            case "error":
                raise error_event(payload)
        return None

    def _delta(self, delta: _Delta, index: int) -> Chunk | None:
        match delta.type:
            case "text_delta":
                return Chunk(delta.text)
            case "input_json_delta" if index in self._tools:
                return Chunk(tool_calls=(ToolCall(self._tools[index], arguments=delta.partial_json),))
            case "thinking_delta":
                return Chunk(reasoning=delta.thinking)
            case "signature_delta":
                return Chunk(signature=delta.signature)
            case "citations_delta" if delta.citation:
                return Chunk(citations=(delta.citation,))
        return None

    def _start(self, block: _Block, index: int) -> Chunk | None:
        match block.type:
            case "tool_use":
                self._tools[index] = len(self._tools)
                begun = _text_of(block.input)
                arguments = "" if begun == "{}" else begun
                return Chunk(
                    tool_calls=(ToolCall(self._tools[index], block.id or "", block.name or "", arguments),)
                )
            case "redacted_thinking":
                return Chunk(redacted=_encrypted(block))
            case "text" if block.text:
                return Chunk(block.text)
            case "thinking" if block.thinking or block.signature:
                return Chunk(reasoning=block.thinking or "", signature=block.signature or "")
        return None

    def _finish(self, event: _Event) -> Chunk:
        delta = event.delta or _Delta()
        if event.usage:
            self._usage = event.usage.neutral(self._usage)
        if delta.stop_reason:
            self.finished = True
        return Chunk(
            finish=FINISH.get(delta.stop_reason, "stop") if delta.stop_reason else None,
            usage=self._usage,
            refusal=_explanation(delta),
            stopped_by=delta.stop_sequence or "",
        )


open_reader = StreamReader

__all__ = ["FINISH", "STREAM_TYPE", "StreamReader", "open_reader", "read_answer"]
