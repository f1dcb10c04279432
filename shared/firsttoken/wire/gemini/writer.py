"""Answers of ``generateContent`` and events of ``streamGenerateContent``, written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from firsttoken.errors import FirstTokenError
from firsttoken.model import Call, Chunk, Finish, ToolCall, Usage
from firsttoken.wire import sse
from firsttoken.wire.chunks import whole, whole_tool_calls
from firsttoken.wire.gemini import finish
from firsttoken.wire.gemini.contents import WIRE
from firsttoken.wire.gemini.errors import write_error
from firsttoken.wire.gemini.signatures import pack, pack_redacted

STREAM_TYPE = "text/event-stream"
HEARTBEAT = b"\r\n"
"""An empty line: Google's SDK takes a comment for broken JSON, and all readers skip empty lines."""

_encode = msgspec.json.encode


class _Envelope(Struct, frozen=True, rename="camel"):
    model_version: str | None = None
    response_id: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_object = msgspec.json.Decoder(dict[str, Raw])
_HEAD = b'data: {"candidates":[{"content":{"parts":['
_ROLE = b'],"role":"model"}'
_TEXT_HEAD = _HEAD + b'{"text":'
_END = b"}\r\n\r\n"


class StreamWriter:
    """Turns chunks into the bytes of a streamed answer.

    A call of a function is written once its arguments are complete, as this format has no pieces of them; the
    reason to finish waits for the token counts, which belong into the same event.
    """

    def __init__(self, call: Call, created: int) -> None:  # noqa: ARG002 - the format has no time of creation
        self._call = call
        self._tail = b""
        self._text_tail = b""
        self._calls: list[ToolCall] = []
        self._finish: Finish = "stop"
        self._stopped_by = ""
        self._lost: list[str] = []
        self._usage: Usage | None = None
        self._passed = False

    def write(self, chunk: Chunk) -> bytes:
        """Return the events of one chunk: the target's own bytes where it speaks this format."""
        if chunk.wire == WIRE:
            self._passed = True
            return chunk.raw
        if not self._tail:
            self._begin(chunk.model)
        if chunk.usage:
            self._usage = chunk.usage
        if chunk.finish:
            self._finish, self._stopped_by = chunk.finish, chunk.stopped_by
        said = chunk.reasoning or chunk.signature or chunk.redacted
        events = b""
        if self._calls and (chunk.text or said):
            events = self._event(self._pending())
        if said:
            events += self._event(_thoughts(chunk))
        if chunk.text:
            events += _TEXT_HEAD + _encode(chunk.text) + self._text_tail
        if chunk.refusal or chunk.citations:
            events += self._event([{"text": chunk.refusal}], _cited(chunk.citations))
        self._calls.extend(chunk.tool_calls)
        return events

    def end(self) -> bytes:
        """Return the last event: calls, the reason to finish and the token counts."""
        if self._passed:
            return b""
        if not self._tail:
            self._begin("")
        parts = self._pending() or [{"text": ""}]
        word, message = finish.said(self._finish, self._stopped_by, self._lost)
        told = b',"finishReason":' + _encode(word)
        if message:
            told += b',"finishMessage":' + _encode(message)
        counts = b',"usageMetadata":' + _encode(_usage(self._usage)) if self._usage else b""
        return self._event(parts, told, counts)

    def adopt(self, raw: bytes) -> None:
        """See `firsttoken.wire.codec.StreamWriter.adopt`. The target's calls were whole."""
        self._calls.clear()
        payload = next((data for event in sse.events(raw) if (data := sse.data(event))), b"{}")
        envelope = _envelope.decode(payload)
        self._begin(envelope.model_version or "", envelope.response_id or "")

    def error(self, error: FirstTokenError, request_id: str) -> bytes:
        """Return the event that ends a broken answer: clients raise it, and no reason to finish came."""
        return b"data: " + write_error(error, request_id) + b"\r\n\r\n"

    def heartbeat(self) -> bytes:
        """Return an empty line."""
        return HEARTBEAT

    def _begin(self, model: str, id_: str = "") -> None:
        version = _encode(model or self._call.request.model)
        self._tail = b',"modelVersion":' + version + b',"responseId":' + _encode(id_ or self._call.id) + _END
        self._text_tail = b"}" + _ROLE + b',"index":0}]' + self._tail

    def _event(self, parts: Sequence[Mapping[str, Any]], told: bytes = b"", counts: bytes = b"") -> bytes:
        written = b",".join([_encode(part) for part in parts])
        return _HEAD + written + _ROLE + told + b',"index":0}]' + counts + self._tail

    def _pending(self) -> list[dict[str, Any]]:
        parts, lost = _calls(whole_tool_calls(self._calls))
        self._calls.clear()
        self._lost += lost
        return parts


open_writer = StreamWriter


def write_answer(call: Call, chunks: list[Chunk], created: int) -> bytes:  # noqa: ARG001
    """Return the body of a whole answer: the target's own bytes where it speaks this format."""
    if len(chunks) == 1 and chunks[0].wire == WIRE:
        return chunks[0].raw
    answer = whole(chunks)
    calls, lost = _calls(answer.tool_calls)
    texts = [{"text": text} for text in (answer.text, answer.refusal) if text]
    parts = [*_thoughts(answer), *texts, *calls]
    word, message = finish.said(answer.finish or "stop", answer.stopped_by, lost)
    candidate: dict[str, Any] = {
        "content": {"parts": parts or [{"text": ""}], "role": "model"},
        "finishReason": word,
        "index": 0,
    }
    if message:
        candidate["finishMessage"] = message
    if answer.citations:
        candidate["citationMetadata"] = {"citations": _citations(answer.citations)}
    written: dict[str, Any] = {"candidates": [candidate]}
    if answer.usage:
        written["usageMetadata"] = _usage(answer.usage)
    return _encode({**written, "modelVersion": answer.model or call.request.model, "responseId": call.id})


def _thoughts(chunk: Chunk) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if chunk.reasoning or chunk.signature:
        thought: dict[str, Any] = {"text": chunk.reasoning, "thought": True}
        if chunk.signature:
            thought["thoughtSignature"] = pack(chunk.signature)
        parts.append(thought)
    if chunk.redacted:
        parts.append({"text": "", "thought": True, "thoughtSignature": pack_redacted(chunk.redacted)})
    return parts


def _calls(calls: Sequence[ToolCall]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the parts of the calls whose arguments are an object, and the words for those that were cut."""
    parts: list[dict[str, Any]] = []
    lost: list[str] = []
    for call in calls:
        arguments = call.arguments.encode() or b"{}"
        try:
            _object.decode(arguments)
        except msgspec.DecodeError:
            lost.append(f"The call of {call.name} has no complete arguments: {call.arguments}")
            continue
        # Without line breaks between its parts, as those would end the event's line.
        args = Raw(msgspec.json.format(arguments, indent=-1))
        part: dict[str, Any] = {"functionCall": {"id": call.id, "name": call.name, "args": args}}
        if call.signature:
            part["thoughtSignature"] = pack(call.signature)
        parts.append(part)
    return parts, lost


def _cited(citations: Sequence[Mapping[str, Any]]) -> bytes:
    return b',"citationMetadata":' + _encode({"citations": _citations(citations)}) if citations else b""


def _citations(citations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the sources that other formats name as this format's citations: address, title and place."""
    return [_citation(citation) for citation in citations]


_NAMES = {
    "uri": ("uri", "url", "source", "document_title"),
    "title": ("title", "document_title"),
    "startIndex": ("startIndex", "start_index", "start_char_index"),
    "endIndex": ("endIndex", "end_index", "end_char_index"),
}


def _citation(citation: Mapping[str, Any]) -> dict[str, Any]:
    inner = citation.get("url_citation")
    fields = inner if isinstance(inner, dict) else citation
    found = {
        name: next((fields[key] for key in keys if isinstance(fields.get(key), str | int)), None)
        for name, keys in _NAMES.items()
    }
    return {name: value for name, value in found.items() if value is not None}


def _usage(usage: Usage) -> dict[str, int]:
    counts = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": usage.output - usage.reasoning,
        "totalTokenCount": usage.input + usage.output,
    }
    if usage.cached:
        counts["cachedContentTokenCount"] = usage.cached
    if usage.reasoning:
        counts["thoughtsTokenCount"] = usage.reasoning
    return counts


__all__ = ["HEARTBEAT", "STREAM_TYPE", "StreamWriter", "open_writer", "write_answer"]
