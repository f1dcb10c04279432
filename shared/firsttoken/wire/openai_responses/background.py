"""Background responses of OpenAI Responses: answers that are fetched, or streamed, after their call.

Source: the API reference and the guide "Background mode", and the types of the official Python SDK 3.54.
Every event of a stream has a number that is the same whenever it is streamed, so that a client goes on behind
the last one it saw.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from firsttoken.errors import FirstTokenError
from firsttoken.model import Call, Chunk
from firsttoken.wire import json_body, sse
from firsttoken.wire.openai_responses.answer import envelope
from firsttoken.wire.openai_responses.errors import event_of
from firsttoken.wire.openai_responses.writer import open_writer

_encode = msgspec.json.encode
_OPENING = {b'"response.created"', b'"response.queued"', b'"response.in_progress"'}


def response(call: Call, created: int, status: str, error: dict[str, Any] | None = None) -> bytes:
    """Return a response object without an answer. Its id is that of ``call``."""
    return _encode({**_response(call, created, status), "error": error})


def finished(call: Call, created: int, answer: bytes) -> bytes:
    """Return a whole answer, as `write_answer` made it, as the response object that was waited for."""
    return _encode({**json_body.fields(answer), **_ours(call, created)})


def _ours(call: Call, created: int) -> dict[str, Any]:
    return {"id": f"resp_{call.id}", "created_at": created, "background": True, "store": True}


def _response(call: Call, created: int, status: str) -> dict[str, Any]:
    return {**envelope(call, created, ""), **_ours(call, created), "status": status}


class BackgroundWriter:
    """Turns chunks into numbered events, leaving out those up to number ``after``.

    Memory: the answer, which the last event repeats.
    """

    def __init__(self, call: Call, created: int, after: int = -1) -> None:
        self._call = call
        self._created = created
        self._after = after
        self._number = 0
        self._running = False
        self._inner = open_writer(call, created)
        self.completed = created
        """When the answer was there, Unix seconds."""

    def queued(self) -> bytes:
        """Return the events with which every stream begins."""
        waiting = _response(self._call, self._created, "queued")
        return self._event("response.created", response=waiting) + self._event(
            "response.queued", response=waiting
        )

    def running(self) -> bytes:
        """Return the event that says that a model was called, once."""
        if self._running:
            return b""
        self._running = True
        return self._event(
            "response.in_progress", response=_response(self._call, self._created, "in_progress")
        )

    def write(self, chunk: Chunk) -> bytes:
        """Return the events of one chunk; see `firsttoken.wire.codec.StreamWriter`."""
        return self.running() + self._renumbered(self._inner.write(chunk))

    def end(self) -> bytes:
        """Return the closing events."""
        return self.running() + self._renumbered(self._inner.end())

    def failed(self, status: str, error: dict[str, Any] | None) -> bytes:
        """Return the event that ends a response without an answer: it failed or was cancelled."""
        ended = {**_response(self._call, self._created, status), "error": error}
        return self._event("response.failed", response=ended)

    def adopt(self, raw: bytes) -> None:
        """See `firsttoken.wire.codec.StreamWriter.adopt`."""
        self._inner.adopt(raw)

    def error(self, error: FirstTokenError, request_id: str) -> bytes:
        """Return an event that ends this stream, but not the response. The next event has its number, too."""
        said = {"type": "error", "sequence_number": self._number, **event_of(error, request_id)}
        return b"event: error\ndata: %b\n\n" % _encode(said)

    def heartbeat(self) -> bytes:
        """Return a comment."""
        return sse.HEARTBEAT

    def _event(self, kind: str, **fields: Any) -> bytes:
        number = self._number
        self._number += 1
        if number <= self._after:
            return b""
        data = _encode({"type": kind, "sequence_number": number, **fields})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _renumbered(self, events: bytes) -> bytes:
        payloads = [payload for event in sse.events(events) if (payload := sse.data(event)) is not None]
        return b"".join([self._again(json_body.fields(data)) for data in payloads if data != b"[DONE]"])

    def _again(self, fields: dict[str, Raw]) -> bytes:
        """Return an event with our number; nothing for one that begins an answer."""
        kind = bytes(fields.pop("type", b'""'))
        if kind in _OPENING:
            return b""
        fields.pop("sequence_number", None)
        told: dict[str, Any] = dict(fields)
        if "response" in fields:
            answer: dict[str, Any] = {**json_body.fields(bytes(fields["response"]))}
            if bytes(answer.get("completed_at", b"null")) != b"null":
                answer["completed_at"] = self.completed
            told["response"] = {**answer, **_ours(self._call, self._created)}
        return self._event(msgspec.json.decode(kind, type=str), **told)


__all__ = ["BackgroundWriter", "finished", "response"]
