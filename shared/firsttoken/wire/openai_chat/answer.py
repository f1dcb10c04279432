"""Answers of OpenAI Chat Completions, whole and streamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from firsttoken.errors import FirstTokenError, UpstreamProtocolError
from firsttoken.model import Call, Chunk, Finish, ToolCall, Usage
from firsttoken.wire import sse
from firsttoken.wire.chunks import whole
from firsttoken.wire.openai_chat.errors import IN_STREAM, error_from, write_error
from firsttoken.wire.openai_chat.request import WIRE
from firsttoken.wire.openai_chat.template import Template

STREAM_TYPE = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.encode


class _Details(Struct, frozen=True):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None

    def neutral(self) -> Usage:
        read = self.prompt_tokens_details or _Details()
        wrote = self.completion_tokens_details or _Details()
        return Usage(
            input=self.prompt_tokens or 0,
            output=self.completion_tokens or 0,
            cached=read.cached_tokens or 0,
            cache_write=read.cache_write_tokens or 0,
            reasoning=wrote.reasoning_tokens or 0,
        )


class _Function(Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(Struct, frozen=True):
    index: int = 0
    id: str | None = None
    function: _Function | None = None
    signature: str | None = None


class _Part(Struct, frozen=True):
    """A message or a delta: the same fields in both. Those about reasoning are extensions (docs/wire.md)."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning_signature: str | None = None
    reasoning_encrypted: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    annotations: list[dict[str, Any]] | None = None


class _Choice(Struct, frozen=True):
    index: int = 0
    delta: _Part | None = None
    message: _Part | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    """vLLM's extension: the stop sequence that ended the answer."""


class _Envelope(Struct, frozen=True):
    id: str | None = None
    created: int = 0
    model: str | None = None


class _Answer(Struct, frozen=True):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_answer = msgspec.json.Decoder(_Answer)
_envelope = msgspec.json.Decoder(_Envelope)
_EMPTY = _Part()
_FINISH: dict[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_FINISH_WORDS = {"stop_sequence": "stop", "refusal": "content_filter", "context_length": "length"}
"""This format's word for a reason that has none of its own here; the others are the same word."""


def read_answer(body: bytes) -> Chunk:
    """Decode a whole answer into the one chunk that it is."""
    return _chunk(_decode(body), body, whole=True)


def _decode(data: bytes) -> _Answer:
    try:
        # Decoded first because msgspec leaves the fields that it skips unchecked, and clients do not.
        answer = _answer.decode(data.decode())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpstreamProtocolError(
            f"The target's answer is not the JSON that was expected: {error}"
        ) from error
    if answer.error is not None:
        raise error_from(IN_STREAM, {}, data)
    return answer


def _chunk(answer: _Answer, raw: bytes, *, whole: bool = False) -> Chunk:
    choice = answer.choices[0] if answer.choices else None
    part = (choice.message if whole else choice.delta) or _EMPTY if choice else _EMPTY
    finish: Finish | None = None
    stopped = ""
    if choice and choice.finish_reason:
        finish = _FINISH.get(choice.finish_reason, "stop")
        if finish == "stop" and isinstance(choice.stop_reason, str):
            finish, stopped = "stop_sequence", choice.stop_reason
    return Chunk(
        text=part.content or "",
        reasoning=part.reasoning_content or "",
        tool_calls=_tool_calls(part, whole=whole) if part.tool_calls else (),
        finish=finish,
        usage=answer.usage.neutral() if answer.usage else None,
        model=answer.model or "",
        raw=raw,
        wire=WIRE if raw else "",
        signature=part.reasoning_signature or "",
        redacted=part.reasoning_encrypted or "",
        citations=tuple(part.annotations or ()),
        refusal=part.refusal or "",
        stopped_by=stopped,
    )


def _tool_calls(part: _Part, *, whole: bool) -> tuple[ToolCall, ...]:
    empty = _Function()
    return tuple(
        [
            ToolCall(
                index=position if whole else call.index,
                id=call.id or "",
                name=(call.function or empty).name or "",
                arguments=(call.function or empty).arguments or "",
                signature=call.signature or "",
            )
            for position, call in enumerate(part.tool_calls or ())
        ]
    )


def _event(payload: bytes) -> Chunk:
    return _chunk(_decode(payload), b"")


class StreamReader(sse.EventReader):
    """Reads a streamed answer."""

    wire = WIRE

    def __init__(self) -> None:
        super().__init__()
        self._template = Template(_event)

    def feed(self, received: bytes) -> Chunk | None:
        """See `firsttoken.wire.codec.StreamReader.feed`; one event of plain text takes a short way."""
        if (
            received.startswith(b"data: ")
            and received.endswith(b"\n\n")
            and not (self._pieces or self._held or self._failure or self.done)
        ):
            text = self._template.text(received[6:-2])
            if text is not None:
                return Chunk(text, "", (), None, None, self._template.model, received, WIRE)
        return super().feed(received)

    def read_event(self, payload: bytes) -> Chunk | None:
        """Read one chunk object, or the end mark."""
        if payload == b"[DONE]":
            self.done = True
            return None
        text = self._template.text(payload)
        if text is not None:
            return Chunk(text, model=self._template.model)
        chunk = _event(payload)
        if chunk.finish:
            self.finished = True
        else:
            self._template.learn(payload, chunk)
        return chunk


open_reader = StreamReader


class StreamWriter:
    """Turns chunks into the bytes of a streamed answer."""

    def __init__(self, call: Call, created: int) -> None:
        self._call = call
        self._created = created
        self._head = b""
        self._text = b""
        self._usage: Usage | None = None
        self._passed = False

    def write(self, chunk: Chunk) -> bytes:
        """Return the events of one chunk: the target's own bytes where it speaks this format."""
        if chunk.wire == WIRE:
            self._passed = True
            return chunk.raw
        events = b"" if self._head else self._begin(chunk.model)
        if chunk.usage:
            self._usage = chunk.usage
        if chunk.reasoning or chunk.signature or chunk.redacted:
            events += self._event(_thoughts(chunk))
        if chunk.text:
            events += self._text + _encode(chunk.text) + _TEXT_END
        if chunk.tool_calls or chunk.refusal or chunk.citations:
            events += self._event(_rare(chunk))
        return events + self._event({}, chunk) if chunk.finish else events

    def end(self) -> bytes:
        """Return the closing events: token counts when the client asked for them, then the end mark."""
        if self._passed or not self._usage or not self._call.request.include_usage:
            return DONE
        return self._head + b',"choices":[],"usage":' + _encode(_usage(self._usage)) + b"}\n\n" + DONE

    def adopt(self, raw: bytes) -> None:
        """See `firsttoken.wire.codec.StreamWriter.adopt`."""
        payloads = [payload for event in sse.events(raw) if (payload := sse.data(event)) is not None]
        found = [_envelope.decode(payload) for payload in payloads if payload != b"[DONE]"]
        first = next((envelope for envelope in found if envelope.id), None)  # Azure's first one has none
        if first is not None:
            self._name(first.id or "", first.created or self._created, first.model or "")

    def error(self, error: FirstTokenError, request_id: str) -> bytes:
        """Return the event that ends a broken answer. No end mark follows: the answer is not complete."""
        return b"data: " + write_error(error, request_id) + b"\n\n"

    def heartbeat(self) -> bytes:
        """Return a comment."""
        return sse.HEARTBEAT

    def _begin(self, model: str) -> bytes:
        self._name(f"chatcmpl-{self._call.id}", self._created, model)
        return self._event({"role": "assistant", "content": ""})

    def _name(self, id_: str, created: int, model: str) -> None:
        envelope = {
            "id": id_,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model or self._call.request.model,
        }
        self._head = b"data: " + _encode(envelope)[:-1]
        self._text = self._head + b',"choices":[{"index":0,"delta":{"content":'

    def _event(self, delta: dict[str, Any], last: Chunk | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, **_finish(last or _NOT_THE_LAST)}
        return self._head + b',"choices":[' + _encode(choice) + b"]}\n\n"


open_writer = StreamWriter
_TEXT_END = b'},"logprobs":null,"finish_reason":null}]}\n\n'


_NOT_THE_LAST = Chunk()


def _finish(chunk: Chunk) -> dict[str, Any]:
    reason = _FINISH_WORDS.get(chunk.finish, chunk.finish) if chunk.finish else None
    stop = {"stop_reason": chunk.stopped_by} if chunk.stopped_by else {}
    return {"finish_reason": reason, **stop}


def _thoughts(chunk: Chunk) -> dict[str, Any]:
    said = {
        "reasoning_content": chunk.reasoning,
        "reasoning_signature": chunk.signature,
        "reasoning_encrypted": chunk.redacted,
    }
    return {name: value for name, value in said.items() if value}


def _annotation(citation: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a citation as this format nests it; Responses says the same flat."""
    if citation.get("type") != "url_citation" or "url_citation" in citation:
        return citation
    inner = {name: value for name, value in citation.items() if name != "type"}
    return {"type": "url_citation", "url_citation": inner}


def _rare(chunk: Chunk) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if chunk.tool_calls:
        delta["tool_calls"] = [_tool_call(call, fragment=True) for call in chunk.tool_calls]
    if chunk.refusal:
        delta["refusal"] = chunk.refusal
    if chunk.citations:
        delta["annotations"] = [_annotation(citation) for citation in chunk.citations]
    return delta


def write_answer(call: Call, chunks: list[Chunk], created: int) -> bytes:
    """Return the body of a whole answer: the target's own bytes where it speaks this format."""
    if len(chunks) == 1 and chunks[0].wire == WIRE:
        return chunks[0].raw
    answer = whole(chunks)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text or (None if answer.tool_calls or answer.refusal else ""),
        "refusal": answer.refusal or None,
    }
    message.update(_thoughts(answer))
    if answer.tool_calls:
        message["tool_calls"] = [_tool_call(tool, fragment=False) for tool in answer.tool_calls]
    if answer.citations:
        message["annotations"] = [_annotation(citation) for citation in answer.citations]
    return _encode(
        {
            "id": f"chatcmpl-{call.id}",
            "object": "chat.completion",
            "created": created,
            "model": answer.model or call.request.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, **_finish(answer)}],
            "usage": _usage(answer.usage) if answer.usage else None,
        }
    )


def _tool_call(call: ToolCall, *, fragment: bool) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": call.arguments}
    if call.name:
        function = {"name": call.name, **function}
    written: dict[str, Any] = {"index": call.index} if fragment else {}
    if call.id:
        written |= {"id": call.id, "type": "function"}
    written["function"] = function
    return written | {"signature": call.signature} if call.signature else written


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": 0},
    }
