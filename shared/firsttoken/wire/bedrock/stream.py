"""Streams of ``ConverseStream``: each event is a frame of `firsttoken.wire.eventstream`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from firsttoken.errors import FirstTokenError, InternalError, UpstreamClosedError, UpstreamProtocolError
from firsttoken.model import Call, Chunk, ToolCall, Usage
from firsttoken.wire.bedrock.answer import (
    TokenUsage,
    Trace,
    finish_of,
    metrics,
    stop_reason_of,
    stopped_by,
    tool_head,
    write_citation,
    write_usage,
)
from firsttoken.wire.bedrock.content import WIRE, Camel
from firsttoken.wire.bedrock.errors import error_in_stream, exception_of
from firsttoken.wire.chunks import cuts, join
from firsttoken.wire.eventstream import Frame, Framer, FrameReader

STREAM_TYPE = "application/vnd.amazon.eventstream"

_encode = msgspec.json.encode


class _ToolStart(Camel, frozen=True):
    tool_use_id: str
    name: str
    type: str | None = None
    signature: str = ""


class _Start(Camel, frozen=True):
    tool_use: _ToolStart | None = None


class _StartEvent(Camel, frozen=True):
    start: _Start
    content_block_index: int = 0


class _Input(Camel, frozen=True):
    input: str = ""


class _Thought(Camel, frozen=True):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class _Delta(Camel, frozen=True):
    text: str | None = None
    tool_use: _Input | None = None
    reasoning_content: _Thought | None = None
    citation: dict[str, Any] | None = None


class _DeltaEvent(Camel, frozen=True):
    delta: _Delta
    content_block_index: int = 0


class _Place(Camel, frozen=True):
    content_block_index: int | None = None
    delta: _Delta | None = None

    def kind(self) -> str:
        """Return what the block holds; only those of tools begin with an event of their own."""
        if self.delta is None or self.delta.tool_use is not None:
            return "tool"
        return "reasoning" if self.delta.reasoning_content is not None else "text"


class _StopEvent(Camel, frozen=True):
    stop_reason: str
    additional_model_response_fields: Any = None


class _Metadata(Camel, frozen=True):
    usage: TokenUsage | None = None
    trace: Trace | None = None


_start = msgspec.json.Decoder(_StartEvent)
_delta = msgspec.json.Decoder(_DeltaEvent)
_stop = msgspec.json.Decoder(_StopEvent)
_metadata = msgspec.json.Decoder(_Metadata)
_place = msgspec.json.Decoder(_Place)


class StreamReader:
    """Reads a streamed answer. Every frame is checked and decoded, so that a broken one reaches nobody."""

    def __init__(self) -> None:
        self.done = False
        """Never set: the format has no end mark, and who reads to the end can use the connection again."""
        self._frames = FrameReader()
        self._finished = False
        self._tools: dict[int, int] = {}
        self._held: list[Chunk] = []
        self._later = b""
        self._failure: FirstTokenError | None = None
        self._events: dict[str, Callable[[Frame], Chunk | None]] = {
            "contentBlockDelta": self._delta,
            "contentBlockStart": self._start,
            "messageStop": self._stop,
            "metadata": self._metadata,
        }

    def feed(self, received: bytes) -> Chunk | None:
        """See `firsttoken.wire.codec.StreamReader.feed`."""
        if self._held:
            self._later += received
            return self._held.pop(0)
        if self._failure:
            raise self._failure
        if self._later:
            received, self._later = self._later + received, b""
        if not received:
            return None
        frames = self._frames.feed(received)
        chunks: list[Chunk] = []
        places: list[int] = []
        good = 0
        try:
            for frame in frames:
                chunk = self._read(frame)
                if chunk is not None:
                    chunks.append(chunk)
                    places.append(good)
                good += 1
            self._failure = self._frames.failure
        except FirstTokenError as error:
            self._failure = error
        return self._joined(frames[:good], chunks, places)

    def _joined(self, frames: list[Frame], chunks: list[Chunk], places: list[int]) -> Chunk | None:
        if not frames:
            if self._failure:
                raise self._failure
            return None
        if len(frames) == 1 and chunks and chunks[0].raw:
            return chunks[0]
        start, place = 0, 0
        for end in [*cuts(chunks), len(chunks)]:
            end_place = places[end] if end < len(chunks) else len(frames)
            raw = b"".join([frame.raw for frame in frames[place:end_place]])
            part = chunks[start:end]
            self._held.append(join(part, raw, WIRE) if part else Chunk(raw=raw, wire=WIRE))
            start, place = end, end_place
        return self._held.pop(0)

    def close(self) -> None:
        """See `firsttoken.wire.codec.StreamReader.close`."""
        if self._held:
            raise InternalError("A part of the target's answer was not taken from its reader.")
        if self._failure:
            raise self._failure
        if not self._finished:
            raise UpstreamClosedError("The target's stream ended before the answer was complete.")

    def _read(self, frame: Frame) -> Chunk | None:
        headers = frame.headers
        kind = headers.get(":message-type")
        if kind == "event":
            read = self._events.get(headers.get(":event-type", ""))
            if read is None:
                return None
            try:
                return read(frame)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                message = f"An event of the target's stream is not the JSON that was expected: {error}"
                raise UpstreamProtocolError(message) from error
        if kind == "exception":
            raise error_in_stream(headers.get(":exception-type", ""), frame.payload)
        if kind == "error":
            words = _encode({"message": headers.get(":error-message", "")})
            raise error_in_stream(headers.get(":error-code", ""), words)
        raise UpstreamProtocolError("A frame of the target's stream says not what it is.")

    def _start(self, frame: Frame) -> Chunk | None:
        event = _start.decode(frame.payload)
        tool = event.start.tool_use
        if tool is None:
            return None
        if tool.type:
            self._tools[event.content_block_index] = -1  # a tool of the provider's own: not for the client
            return None
        index = sum(known >= 0 for known in self._tools.values())
        self._tools[event.content_block_index] = index
        return Chunk(tool_calls=(ToolCall(index, tool.tool_use_id, tool.name, "", tool.signature),))

    def _delta(self, frame: Frame) -> Chunk | None:
        event = _delta.decode(frame.payload)
        delta = event.delta
        if delta.text is not None:
            return Chunk(
                delta.text, raw=frame.raw, wire=WIRE
            )  # by far the most frequent: joined with nothing
        if delta.tool_use is not None:
            index = self._tools.get(event.content_block_index)
            if index is None:
                raise UpstreamProtocolError(
                    "The target's stream continues a tool call that it did not begin."
                )
            return (
                Chunk(tool_calls=(ToolCall(index, arguments=delta.tool_use.input),)) if index >= 0 else None
            )
        if delta.reasoning_content is not None:
            thought = delta.reasoning_content
            return Chunk(
                reasoning=thought.text or "",
                signature=thought.signature or "",
                redacted=thought.redacted_content or "",
            )
        return Chunk(citations=(delta.citation,)) if delta.citation else None

    def _stop(self, frame: Frame) -> Chunk:
        event = _stop.decode(frame.payload)
        finish = finish_of(event.stop_reason)
        self._finished = True
        return Chunk(finish=finish, stopped_by=stopped_by(event.additional_model_response_fields))

    def _metadata(self, frame: Frame) -> Chunk:
        event = _metadata.decode(frame.payload)
        return Chunk(
            usage=event.usage.neutral() if event.usage else None,
            model=event.trace.model() if event.trace else "",
        )


open_reader = StreamReader


def _framer(name: str) -> Framer:
    return Framer({":event-type": name, ":content-type": "application/json", ":message-type": "event"})


_write_delta = _framer("contentBlockDelta")
_write_start = _framer("contentBlockStart")
_write_block_stop = _framer("contentBlockStop")
_write_stop = _framer("messageStop")
_write_metadata = _framer("metadata")
_MESSAGE_START = _framer("messageStart")(b'{"role":"assistant"}')
HEARTBEAT = _framer("keepAlive")(b"{}")
"""AWS's clients read over events that they do not know."""


class StreamWriter:
    """Turns chunks into the frames of a streamed answer: blocks one after the other, each with its number."""

    def __init__(self, call: Call, created: int) -> None:  # noqa: ARG002 - the format has no field for it
        self._call = call
        self._started = self._passed = self._stopped = False
        self._usage: Usage | None = None
        self._block = -1
        self._kind = ""
        """What the open block holds; empty when none is open."""
        self._text = b""
        """What stands before the text of the open block."""
        self._tools: dict[int, int] = {}

    def write(self, chunk: Chunk) -> bytes:
        """Return the frames of one chunk: the target's own bytes where it speaks this format."""
        if chunk.wire == WIRE:
            self._passed = True
            return chunk.raw
        frames = b"" if self._started else _MESSAGE_START
        self._started = True
        if chunk.usage:
            self._usage = chunk.usage
        if chunk.reasoning or chunk.signature or chunk.redacted:
            frames += self._reason(chunk)
        if chunk.text:
            frames += self._say(chunk.text)
        if chunk.refusal or chunk.citations:
            frames += self._rare(chunk)
        for call in chunk.tool_calls:
            frames += self._call_tool(call)
        return frames + self._stop(chunk) if chunk.finish else frames

    def end(self) -> bytes:
        """Return the closing frames: none where the target's own have passed."""
        if self._passed:
            return b""
        frames = b"" if self._started else _MESSAGE_START
        if not self._stopped:
            frames += self._stop(Chunk())
        if self._usage is None:
            return frames
        return frames + _write_metadata(
            _encode({"metrics": metrics(self._call), "usage": write_usage(self._usage)})
        )

    def adopt(self, raw: bytes) -> None:
        """See `firsttoken.wire.codec.StreamWriter.adopt`: the last frame of a block tells what is open."""
        for frame in FrameReader().feed(raw):
            place = _place.decode(frame.payload)
            index = place.content_block_index
            if index is None:
                continue
            shift, self._block = index - self._block, index
            self._tools = {tool: block + shift for tool, block in self._tools.items()}
            stopped = frame.headers.get(":event-type") == "contentBlockStop"
            self._kind = "" if stopped else place.kind()
        self._write_text_here()

    def error(self, error: FirstTokenError, request_id: str) -> bytes:
        """Return the exception that ends a broken answer."""
        kind = exception_of(error)
        said: dict[str, Any] = {"message": str(error), "requestId": request_id}
        if kind == "modelStreamErrorException":
            said |= {"originalStatusCode": error.status, "originalMessage": str(error)}
        headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
        return Framer(headers)(_encode(said))

    def heartbeat(self) -> bytes:
        """Return an event of an unknown type."""
        return HEARTBEAT

    def _say(self, text: str) -> bytes:
        opened = b"" if self._kind == "text" else self._open("text")
        return opened + _write_delta(self._text + _encode(text) + b"}}")

    def _reason(self, chunk: Chunk) -> bytes:
        frames = b""
        if chunk.reasoning or chunk.signature:
            frames = b"" if self._kind == "reasoning" else self._open("reasoning")
        if chunk.reasoning:
            frames += self._write({"reasoningContent": {"text": chunk.reasoning}})
        if chunk.signature:
            frames += self._write({"reasoningContent": {"signature": chunk.signature}}) + self._close()
        if chunk.redacted:
            frames += self._open("redacted")
            frames += self._write({"reasoningContent": {"redactedContent": chunk.redacted}}) + self._close()
        return frames

    def _rare(self, chunk: Chunk) -> bytes:
        frames = b"" if self._kind == "text" else self._open("text")
        for citation in chunk.citations:
            frames += self._write({"citation": write_citation(citation)})
        return frames + self._say(chunk.refusal) if chunk.refusal else frames

    def _call_tool(self, call: ToolCall) -> bytes:
        frames = b""
        if call.index not in self._tools:
            frames = self._open("tool")
            self._tools[call.index] = self._block
            start = {"start": {"toolUse": tool_head(self._call, call)}, "contentBlockIndex": self._block}
            frames += _write_start(_encode(start))
        if not call.arguments:
            return frames
        delta = {"toolUse": {"input": call.arguments}}
        return frames + _write_delta(_encode({"contentBlockIndex": self._tools[call.index], "delta": delta}))

    def _write(self, delta: dict[str, Any]) -> bytes:
        return _write_delta(_encode({"contentBlockIndex": self._block, "delta": delta}))

    def _open(self, kind: str) -> bytes:
        closed = self._close()
        self._block += 1
        self._kind = kind
        self._write_text_here()
        return closed

    def _write_text_here(self) -> None:
        self._text = b'{"contentBlockIndex":%d,"delta":{"text":' % self._block

    def _close(self) -> bytes:
        if not self._kind:
            return b""
        self._kind = ""
        return _write_block_stop(b'{"contentBlockIndex":%d}' % self._block)

    def _stop(self, chunk: Chunk) -> bytes:
        self._stopped = True
        event: dict[str, Any] = {"stopReason": stop_reason_of(chunk.finish)}
        if chunk.stopped_by:
            event["additionalModelResponseFields"] = {"stop_sequence": chunk.stopped_by}
        return self._close() + _write_stop(_encode(event))


open_writer = StreamWriter
