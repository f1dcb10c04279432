"""Writes streamed answers of OpenAI Responses: a state machine over the items of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from firsttoken.errors import FirstTokenError
from firsttoken.model import Call, Chunk, Finish, ToolCall, Usage
from firsttoken.wire import sse
from firsttoken.wire.openai_responses.answer import (
    annotation,
    call_item,
    closing,
    envelope,
    message_item,
    reasoning_item,
    status_of,
    text_part,
)
from firsttoken.wire.openai_responses.errors import event_of
from firsttoken.wire.openai_responses.items import WIRE

STREAM_TYPE = "text/event-stream; charset=utf-8"

_encode = msgspec.json.encode
_TEXT_DELTA = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":'
)
_DELTA_END = b',"logprobs":[]}\n\n'


class _Thoughts(Struct):
    """The reasoning item that is open."""

    id: str
    index: int
    text: list[str] = field(default_factory=list)
    signature: str = ""

    def where(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index, "summary_index": 0}


class _Words(Struct):
    """The message that is open, and the part of it that is being written."""

    id: str
    index: int
    kind: Literal["text", "refusal"]
    parts: list[dict[str, Any]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    annotations: list[Mapping[str, Any]] = field(default_factory=list)

    def where(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index, "content_index": len(self.parts)}

    def part(self) -> dict[str, Any]:
        text = "".join(self.text)
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return text_part(text, self.annotations)


class _Called(Struct):
    """A function call. All stay open to the end: fragments of parallel calls may be mixed."""

    id: str
    index: int
    call_id: str
    name: str
    arguments: list[str] = field(default_factory=list)
    signature: str = ""


class _Item(Struct, frozen=True):
    type: str = ""
    id: str = ""


class _Place(Struct, frozen=True):
    """Where an event belongs: the index of its item, and that item where it begins; or the whole answer."""

    type: str = ""
    output_index: int | None = None
    item: _Item | None = None
    response: dict[str, Any] | None = None


_place = msgspec.json.Decoder(_Place)
_ADDED = "response.output_item.added"
_DONE = "response.output_item.done"


class StreamWriter:
    """Turns chunks into the events of a streamed answer. Memory: the answer, which the last event repeats."""

    def __init__(self, call: Call, created: int) -> None:
        self._call = call
        self._created = created
        self._sequence = 0
        self._events: list[bytes] = []
        self._envelope: dict[str, Any] = {}
        self._opened = 0
        self._done: dict[int, dict[str, Any]] = {}
        """The items that are complete, by the index that each took when it opened."""
        self._thoughts: _Thoughts | None = None
        self._words: _Words | None = None
        self._calls: dict[int, _Called] = {}
        self._finish: Finish | None = None
        self._usage: Usage | None = None
        self._passed = b""
        self._text: list[str] | None = None
        """The text that is open, and below what stands before the next piece of it in a delta."""
        self._delta = b""

    def write(self, chunk: Chunk) -> bytes:
        """Return the events of one chunk: the target's own bytes where it speaks this format."""
        if chunk.wire == WIRE:
            self._passed = chunk.raw or self._passed
            return chunk.raw
        if self._text is not None and chunk.text and not (
            chunk.finish or chunk.tool_calls or chunk.usage or chunk.reasoning or chunk.citations
            or chunk.signature or chunk.redacted or chunk.refusal
        ):  # fmt: skip
            return self._text_delta(self._text, chunk.text)
        self._begin(chunk.model)
        if chunk.reasoning or chunk.signature or chunk.redacted:
            self._think(chunk)
        if chunk.text:
            words = self._speak("text")
            self._events.append(self._text_delta(words.text, chunk.text))
        self._speak_rarely(chunk)
        for call in chunk.tool_calls:
            self._call_tool(call)
        self._usage = chunk.usage or self._usage
        if chunk.finish:
            self._finish = chunk.finish
            self._close()
        return self._flush()

    def _text_delta(self, open_text: list[str], text: str) -> bytes:
        number = self._sequence
        self._sequence = number + 1
        open_text.append(text)
        return b"%b%d%b%b%b" % (_TEXT_DELTA, number, self._delta, _encode(text), _DELTA_END)

    def end(self) -> bytes:
        """Return the closing events: what is still open, and the whole answer with its token counts."""
        if self._passed:
            return b""
        self._begin("")
        if not self._opened:
            self._speak("text")
        self._close()
        answer = {
            **self._envelope,
            **closing(self._finish, self._usage, self._created),
            "output": self._output(),
        }
        self._emit(f"response.{status_of(self._finish)}", response=answer)
        return self._flush()

    def adopt(self, raw: bytes) -> None:
        """See `firsttoken.wire.codec.StreamWriter.adopt`: clients check that items keep their ids."""
        payloads = [payload for event in sse.events(raw) if (payload := sse.data(event)) is not None]
        last = _Place()
        added: dict[int, _Item] = {}
        for place in [_place.decode(payload) for payload in payloads if payload != b"[DONE]"]:
            if place.response is not None:
                self._envelope |= place.response
            if place.output_index is not None:
                last = place
                if place.type == _ADDED and place.item is not None:
                    added[place.output_index] = place.item
        self._adopt_items(added)
        self._opened = max([self._opened - 1, *added]) + 1
        if last.type == _DONE:
            self._close()
        self._events.clear()
        self._sequence = _sequence_after(raw) or self._sequence

    def _adopt_items(self, added: Mapping[int, _Item]) -> None:
        """Give the items of each kind the places of the target's, from the last one back."""
        places: dict[str, list[tuple[int, str]]] = {"message": [], "reasoning": [], "function_call": []}
        for index, item in sorted(added.items()):
            places.setdefault(item.type, []).append((index, item.id))
        calls = [("function_call", call) for call in reversed(self._calls.values())]
        for kind, ours in (("message", self._words), ("reasoning", self._thoughts), *calls):
            if ours is not None and places[kind]:
                ours.index, ours.id = places[kind].pop()
        done: dict[int, dict[str, Any]] = {}
        for place, whole in sorted(self._done.items(), reverse=True):
            index, id_ = places[whole["type"]].pop() if places[whole["type"]] else (place, whole["id"])
            done[index] = {**whole, "id": id_}
        self._done = done
        if self._words is not None and self._text is not None:
            self._write_text_to(self._words)

    def error(self, error: FirstTokenError, request_id: str) -> bytes:
        """Return the events that end a broken answer: an error, and the failed answer if it had begun."""
        if self._passed:
            self._sequence = _sequence_after(self._passed)
        self._emit("error", **event_of(error, request_id))
        if self._envelope:
            said = {"code": error.code or error.type, "message": str(error)}
            answer = {**self._envelope, "status": "failed", "error": said, "output": self._output()}
            self._emit("response.failed", response=answer)
        return self._flush()

    def heartbeat(self) -> bytes:
        """Return a comment."""
        return sse.HEARTBEAT

    def _emit(self, kind: str, **fields: Any) -> None:
        data = _encode({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        self._events.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), data))

    def _flush(self) -> bytes:
        events, self._events = b"".join(self._events), []
        return events

    def _begin(self, model: str) -> None:
        if not self._envelope:
            self._envelope = envelope(self._call, self._created, model)
            self._emit("response.created", response=self._envelope)
            self._emit("response.in_progress", response=self._envelope)

    def _open(self, kind: str) -> tuple[str, int]:
        """Return id and index of a new item."""
        self._opened += 1
        return f"{kind}_{self._call.id}_{self._opened - 1}", self._opened - 1

    def _added(self, index: int, item: dict[str, Any]) -> None:
        self._emit("response.output_item.added", output_index=index, item=item)

    def _completed(self, index: int, item: dict[str, Any]) -> None:
        self._done[index] = item
        self._emit("response.output_item.done", output_index=index, item=item)

    def _output(self) -> list[dict[str, Any]]:
        return [item for _, item in sorted(self._done.items())]

    def _think(self, chunk: Chunk) -> None:
        if self._thoughts is not None and self._thoughts.signature and (chunk.reasoning or chunk.signature):
            self._close_thoughts()  # what was signed is complete: more is an item of its own
        thoughts = self._open_thoughts()
        if chunk.reasoning:
            if not thoughts.text:
                part = {"type": "summary_text", "text": ""}
                self._emit("response.reasoning_summary_part.added", **thoughts.where(), part=part)
            thoughts.text.append(chunk.reasoning)
            self._emit("response.reasoning_summary_text.delta", **thoughts.where(), delta=chunk.reasoning)
        thoughts.signature = thoughts.signature or chunk.signature
        for block in chunk.redacted.split("\n"):
            if block:
                self._open_thoughts()
                self._close_thoughts(block)

    def _open_thoughts(self) -> _Thoughts:
        if self._thoughts is None:
            self._close_words()
            self._thoughts = _Thoughts(*self._open("rs"))
            self._added(self._thoughts.index, reasoning_item(self._thoughts.id, ""))
        return self._thoughts

    def _close_thoughts(self, encrypted: str = "") -> None:
        thoughts, self._thoughts = self._thoughts, None
        if thoughts is None:
            return
        text = "".join(thoughts.text)
        if text:
            part = {"type": "summary_text", "text": text}
            self._emit("response.reasoning_summary_text.done", **thoughts.where(), text=text)
            self._emit("response.reasoning_summary_part.done", **thoughts.where(), part=part)
        item = reasoning_item(thoughts.id, text, encrypted, thoughts.signature)
        self._completed(thoughts.index, item)

    def _speak(self, kind: Literal["text", "refusal"]) -> _Words:
        """Return the message with a part of this kind open."""
        words = self._words
        if words is not None and words.kind == kind:
            return words
        if words is None:
            self._close_thoughts()
            words = self._words = _Words(*self._open("msg"), kind)
            self._added(words.index, message_item(words.id, [], "in_progress"))
        else:
            self._close_part(words)
            words.kind = kind
        if kind == "text":
            self._text = words.text
            self._write_text_to(words)
        self._emit("response.content_part.added", **words.where(), part=words.part())
        return words

    def _write_text_to(self, words: _Words) -> None:
        self._delta = b"," + _encode(words.where())[1:-1] + b',"delta":'

    def _speak_rarely(self, chunk: Chunk) -> None:
        for citation in chunk.citations:
            words = self._speak("text")
            words.annotations.append(annotation(citation))
            self._emit(
                "response.output_text.annotation.added",
                **words.where(),
                annotation_index=len(words.annotations) - 1,
                annotation=words.annotations[-1],
            )
        if chunk.refusal:
            words = self._speak("refusal")
            words.text.append(chunk.refusal)
            self._emit("response.refusal.delta", **words.where(), delta=chunk.refusal)

    def _close_part(self, words: _Words) -> None:
        self._text = None
        where, part = words.where(), words.part()
        if words.kind == "text":
            self._emit("response.output_text.done", **where, text=part["text"], logprobs=[])
        else:
            self._emit("response.refusal.done", **where, refusal=part["refusal"])
        self._emit("response.content_part.done", **where, part=part)
        words.parts.append(part)
        words.text, words.annotations = [], []

    def _close_words(self) -> None:
        words, self._words = self._words, None
        if words is not None:
            self._close_part(words)
            self._completed(words.index, message_item(words.id, words.parts, status_of(self._finish)))

    def _call_tool(self, call: ToolCall) -> None:
        called = self._calls.get(call.index)
        if called is None:
            self._close_thoughts()
            self._close_words()
            called = self._calls[call.index] = _Called(*self._open("fc"), call.id, call.name)
            item = call_item(called.id, ToolCall(id=call.id, name=call.name), "in_progress")
            self._added(called.index, item)
        called.signature += call.signature
        if call.arguments:
            called.arguments.append(call.arguments)
            self._emit(
                "response.function_call_arguments.delta",
                item_id=called.id,
                output_index=called.index,
                delta=call.arguments,
            )

    def _close(self) -> None:
        self._close_thoughts()
        self._close_words()
        for called in self._calls.values():
            if called.index in self._done:
                continue
            whole = ToolCall(0, called.call_id, called.name, "".join(called.arguments), called.signature)
            where = {"item_id": called.id, "output_index": called.index, "name": called.name}
            self._emit("response.function_call_arguments.done", **where, arguments=whole.arguments)
            self._completed(called.index, call_item(called.id, whole, status_of(self._finish)))


open_writer = StreamWriter


def _sequence_after(raw: bytes) -> int:
    """Return the number that follows the last one in events that were passed on."""
    _, found, rest = raw.rpartition(b'"sequence_number":')
    digits = rest[:12].split(b",")[0].split(b"}")[0].strip()
    return int(digits) + 1 if found and digits.isdigit() else 0
