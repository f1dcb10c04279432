"""Reads streamed answers of OpenAI Responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from firsttoken.errors import UpstreamProtocolError
from firsttoken.model import Chunk, ToolCall
from firsttoken.wire import sse
from firsttoken.wire.openai_responses.answer import Answer, Item, call_of, finish_of
from firsttoken.wire.openai_responses.errors import error_in_stream
from firsttoken.wire.openai_responses.items import WIRE


class _Event(Struct, frozen=True):
    """All events as one: fields that differ between kinds are checked where they are used."""

    type: str
    delta: Any = None
    output_index: int = 0
    summary_index: int = 0
    item: Item | None = None
    response: Answer | None = None
    annotation: Any = None
    arguments: Any = None
    error: Any = None
    code: Any = None
    message: Any = None
    param: Any = None


class _Delta(Struct, frozen=True, gc=False):
    """What a piece of text holds, without what nobody reads of it."""

    type: str
    delta: str


_event = msgspec.json.Decoder(_Event)
_delta = msgspec.json.Decoder(_Delta)
_TEXT = "response.output_text.delta"
_TEXT_HEAD = b"event: response.output_text.delta\ndata: "


class StreamReader(sse.EventReader):
    """Reads a streamed answer. Memory: one number per item of the answer."""

    wire = WIRE

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[int, int] = {}
        """The index of a tool call, by that of its item."""
        self._argued: set[int] = set()
        """Items whose arguments came as deltas."""
        self._kinds: dict[str, Callable[[_Event], Chunk | None]] = {
            "response.refusal.delta": lambda event: Chunk(refusal=_text(event)),
            "response.reasoning_summary_text.delta": _reasoning,
            "response.reasoning_text.delta": _reasoning,
            "response.reasoning_summary_part.added": _next_thought,
            "response.output_item.added": self._item_added,
            "response.function_call_arguments.delta": self._arguments,
            "response.function_call_arguments.done": self._all_arguments,
            "response.output_text.annotation.added": _citation,
            "response.output_item.done": self._item_done,
            "response.created": lambda event: Chunk(model=_answer(event).model or ""),
            "response.completed": self._end,
            "response.incomplete": self._end,
            "response.failed": self._failed,
            "error": self._failed,
        }

    def feed(self, received: bytes) -> Chunk | None:
        """See `firsttoken.wire.codec.StreamReader.feed`; one event of plain text takes a short way."""
        if (
            received.startswith(_TEXT_HEAD)
            and received.endswith(b"\n\n")
            and received.count(b"\n") == 3
            and not (self._pieces or self._held or self._failure or self.done)
        ):
            try:
                event = _delta.decode(received[len(_TEXT_HEAD) :].decode())
            except (msgspec.DecodeError, UnicodeDecodeError):
                return super().feed(received)
            if event.type == _TEXT:
                return Chunk(event.delta, "", (), None, None, "", received, WIRE)
        return super().feed(received)

    def read_event(self, payload: bytes) -> Chunk | None:
        """Read one event. The one that ends the answer is no end mark of the format: it is passed on."""
        try:
            # Decoded first because msgspec leaves the fields that it skips unchecked, and clients do not.
            event = _event.decode(payload.decode())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if payload == b"[DONE]":  # sent by servers that are compatible with more than one format
                self.done = True
                return None
            raise UpstreamProtocolError(
                f"The target's event is not the JSON that was expected: {error}"
            ) from error
        if event.type == _TEXT:
            return Chunk(_text(event))
        read = self._kinds.get(event.type)
        return read(event) if read else None

    def _item_added(self, event: _Event) -> Chunk | None:
        if event.item is None or event.item.type != "function_call":
            return None
        call = call_of(event.item, self._calls.setdefault(event.output_index, len(self._calls)))
        if call.arguments:
            self._argued.add(event.output_index)
        # Its signature is read where the item is done.
        return Chunk(tool_calls=(ToolCall(call.index, call.id, call.name, call.arguments),))

    def _arguments(self, event: _Event) -> Chunk:
        self._argued.add(event.output_index)
        return Chunk(tool_calls=(ToolCall(self._call(event), arguments=_text(event)),))

    def _all_arguments(self, event: _Event) -> Chunk | None:
        """Read the arguments as a whole, from those who send no deltas."""
        if event.output_index in self._argued or not isinstance(event.arguments, str):
            return None
        self._argued.add(event.output_index)
        return Chunk(tool_calls=(ToolCall(self._call(event), arguments=event.arguments),))

    def _call(self, event: _Event) -> int:
        index = self._calls.get(event.output_index)
        if index is None:
            raise UpstreamProtocolError("The target sent arguments of a function call that did not begin.")
        return index

    def _item_done(self, event: _Event) -> Chunk | None:
        item = event.item
        if item is None:
            return None
        if item.type == "function_call":
            return self._call_done(event, item)
        if item.type != "reasoning":
            return None
        signature = item.signature if isinstance(item.signature, str) else ""
        encrypted = item.encrypted_content if isinstance(item.encrypted_content, str) else ""
        return Chunk(signature=signature, redacted=encrypted) if signature or encrypted else None

    def _call_done(self, event: _Event, item: Item) -> Chunk | None:
        """Read what of a call was not said before: all of it from those who send it in one event."""
        begun = event.output_index in self._calls
        call = call_of(item, self._calls.setdefault(event.output_index, len(self._calls)))
        if begun:
            late = "" if event.output_index in self._argued else call.arguments
            call = ToolCall(call.index, arguments=late, signature=call.signature)
        self._argued.add(event.output_index)
        return Chunk(tool_calls=(call,)) if call != ToolCall(call.index) else None

    def _end(self, event: _Event) -> Chunk:
        answer = _answer(event)
        self.finished = True
        return Chunk(
            finish=finish_of(answer, called=bool(self._calls)),
            usage=answer.usage.neutral() if answer.usage else None,
            model=answer.model or "",
        )

    def _failed(self, event: _Event) -> Chunk:
        if event.response is not None:
            raise error_in_stream(event.response.error)
        flat = {"code": event.code, "message": event.message, "param": event.param}
        raise error_in_stream(event.error if isinstance(event.error, dict) else flat)


open_reader = StreamReader


def _text(event: _Event) -> str:
    if not isinstance(event.delta, str):
        raise UpstreamProtocolError(f"The target's event {event.type} has no text.")
    return event.delta


def _reasoning(event: _Event) -> Chunk:
    return Chunk(reasoning=_text(event))


def _next_thought(event: _Event) -> Chunk | None:
    return Chunk(reasoning="\n\n") if event.summary_index else None


def _answer(event: _Event) -> Answer:
    if event.response is None:
        raise UpstreamProtocolError(f"The target's event {event.type} has no response.")
    return event.response


def _citation(event: _Event) -> Chunk | None:
    return Chunk(citations=(event.annotation,)) if isinstance(event.annotation, dict) else None
