"""OpenAI Chat Completions, read and written: requests, whole answers and streams.

One codec serves both directions: an endpoint reads requests and writes answers, a provider writes requests
and reads answers. Source: the OpenAI API reference, "Chat Completions"; Azure's deviations (a first chunk
without choices, annotation chunks without a delta) are accepted.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from msgspec import Raw, Struct

from firsttoken.chat import ChatRequest, Role
from firsttoken.errors import FirstTokenError, RequestError, UpstreamClosedError, UpstreamProtocolError
from firsttoken.model import Call, Chunk, Source, ToolCall, Usage
from firsttoken.wire import sse
from firsttoken.wire.openai_errors import error_from, write_error

WIRE = "openai-chat"
DONE = b"data: [DONE]\n\n"

_KNOWN = frozenset(ChatRequest.__struct_fields__)
_fields = msgspec.json.Decoder(dict[str, Raw])
_request = msgspec.json.Decoder(ChatRequest)
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


class _Part(Struct, frozen=True):
    """A message or a delta: the same fields in both."""

    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(Struct, frozen=True):
    index: int = 0
    delta: _Part | None = None
    message: _Part | None = None
    finish_reason: str | None = None


class _Answer(Struct, frozen=True):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_answer = msgspec.json.Decoder(_Answer)
_EMPTY = _Part()


def read_request(body: bytes) -> tuple[ChatRequest, Source]:
    """Decode a request's body. Raises RequestError naming the field and what was expected."""
    try:
        fields = _fields.decode(body)
        request = _request.decode(body)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        if what.startswith("Invalid enum value"):
            what += f"; expected one of {', '.join(get_args(Role))}"
        name = path.rstrip("`").removeprefix(".") or _quoted(what)
        raise RequestError(
            f"{name}: {what}" if name else what, param=name or None, code="invalid_value"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(
            f"The body is not valid JSON: {error}. Expected a JSON object.", code="invalid_json"
        ) from error
    except RecursionError as error:
        raise RequestError("The body is nested too deep.", code="nested_too_deep") from error
    return request, Source(WIRE, body, tuple(name for name in fields if name not in _KNOWN))


def _quoted(what: str) -> str:
    parts = what.split("`")
    return parts[1] if what.startswith("Object missing required field") and len(parts) > 2 else ""


def write_request(call: Call, model: str) -> bytes:
    """Return the body to send to a target: the client's own bytes, only the model's name replaced."""
    if call.source.wire != WIRE:
        raise NotImplementedError(call.source.wire)
    if call.request.model == model:
        return call.source.body
    fields = _fields.decode(call.source.body)
    fields["model"] = Raw(_encode(model))
    return _encode(fields)


def read_answer(body: bytes) -> Chunk:
    """Decode a whole answer into the one chunk that it is."""
    return _chunk(_decode(body), body, whole=True)


def _decode(data: bytes) -> _Answer:
    try:
        answer = _answer.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpstreamProtocolError(
            f"The target's answer is not the JSON that was expected: {error}"
        ) from error
    if answer.error is not None:
        raise error_from(502, {}, data)
    return answer


def _chunk(answer: _Answer, raw: bytes, *, whole: bool = False) -> Chunk:
    choice = answer.choices[0] if answer.choices else None
    part = (choice.message if whole else choice.delta) or _EMPTY if choice else _EMPTY
    return Chunk(
        text=part.content or "",
        reasoning=part.reasoning_content or "",
        tool_calls=_tool_calls(part, whole=whole) if part.tool_calls else (),
        finish=choice.finish_reason if choice else None,
        usage=answer.usage.neutral() if answer.usage else None,
        model=answer.model or "",
        raw=raw,
        wire=WIRE,
    )


def _tool_calls(part: _Part, *, whole: bool) -> tuple[ToolCall, ...]:
    empty = _Function()
    return tuple(
        ToolCall(
            index=position if whole else call.index,
            id=call.id or "",
            name=(call.function or empty).name or "",
            arguments=(call.function or empty).arguments or "",
        )
        for position, call in enumerate(part.tool_calls or ())
    )


class StreamReader:
    """Turns the bytes of a streamed answer into chunks, one for whatever arrived together.

    Every event is decoded, so that a malformed one is an error and never reaches the client. Memory: one
    incomplete event, at most `sse.MAX_EVENT_BYTES`.
    """

    def __init__(self) -> None:
        self._tail = b""
        self.done = False
        """Whether the end mark was read: whatever follows it is no part of the answer."""
        self._finished = False
        self._failure: FirstTokenError | None = None

    def feed(self, received: bytes) -> Chunk | None:
        """Return what the complete events among the bytes so far hold, or None when there is none yet.

        Raises UpstreamProtocolError for bytes that are not what was agreed on, UpstreamError for an error
        event. An error behind good events of the same read is raised by the next call, so that nothing good
        is lost.
        """
        if self._failure:
            raise self._failure
        buffer = self._tail + received if self._tail else received
        end = sse.last_boundary(buffer)
        self._tail = buffer[end:] if end else buffer
        if len(self._tail) > sse.MAX_EVENT_BYTES:
            raise UpstreamProtocolError(
                f"One event of the target's stream is over {sse.MAX_EVENT_BYTES} bytes."
            )
        return self._read(buffer[:end]) if end and not self.done else None

    def _read(self, block: bytes) -> Chunk | None:
        answers: list[_Answer] = []
        good = 0
        events = sse.events(block)
        for event in events:
            data = sse.data(event)
            if data == b"[DONE]":
                self.done = True
                break
            if data is not None:
                try:
                    answers.append(_decode(data))
                except FirstTokenError as error:
                    self._failure = error
                    break
            good += 1
        if not answers:
            if self._failure:
                raise self._failure
            return None
        raw = block if good == len(events) else b"".join([event + b"\n\n" for event in events[:good]])
        chunk = (
            _chunk(answers[0], raw) if len(answers) == 1 else _join([_chunk(a, b"") for a in answers], raw)
        )
        self._finished = self._finished or chunk.finish is not None
        return chunk

    def close(self) -> None:
        """Check at the end of the stream that the answer is whole.

        Raises UpstreamClosedError when it is not.
        """
        if self._failure:
            raise self._failure
        if not self.done and not self._finished:
            raise UpstreamClosedError("The target's stream ended before the answer was complete.")


def _join(chunks: list[Chunk], raw: bytes) -> Chunk:
    return Chunk(
        text="".join([chunk.text for chunk in chunks]),
        reasoning="".join([chunk.reasoning for chunk in chunks]),
        tool_calls=tuple([call for chunk in chunks for call in chunk.tool_calls]),
        finish=next((chunk.finish for chunk in reversed(chunks) if chunk.finish), None),
        usage=next((chunk.usage for chunk in reversed(chunks) if chunk.usage), None),
        model=chunks[0].model,
        raw=raw,
        wire=WIRE,
    )


class StreamWriter:
    """Turns chunks into the bytes of a streamed answer."""

    media_type = b"text/event-stream; charset=utf-8"

    def __init__(self, call: Call, created: int) -> None:
        self._call = call
        self._created = created
        self._head = b""
        self._usage: Usage | None = None
        self._model = call.request.model
        self._passed = False

    def write(self, chunk: Chunk) -> bytes:
        """Return the events of one chunk: the target's own bytes where it speaks this format."""
        if chunk.wire == WIRE:
            self._passed = True
            return chunk.raw
        events = b""
        if not self._head:
            self._model = chunk.model or self._model
            self._head = b"data: " + _encode(self._envelope())[:-1]
            events = self._event({"role": "assistant", "content": ""}, None)
        self._usage = chunk.usage or self._usage
        delta: dict[str, Any] = {}
        if chunk.text:
            delta["content"] = chunk.text
        if chunk.reasoning:
            delta["reasoning_content"] = chunk.reasoning
        if chunk.tool_calls:
            delta["tool_calls"] = [_tool_call(call, fragment=True) for call in chunk.tool_calls]
        if delta:
            events += self._event(delta, None)
        return events + self._event({}, chunk.finish) if chunk.finish else events

    def end(self) -> bytes:
        """Return the closing events: token counts when the client asked for them, then the end mark."""
        if self._passed or not self._usage or not self._call.request.wants_usage:
            return DONE
        return self._head + b',"choices":[],"usage":' + _encode(_usage(self._usage)) + b"}\n\n" + DONE

    @staticmethod
    def error(error: FirstTokenError, request_id: str) -> bytes:
        """Return the event that ends a broken answer. No end mark follows: the answer is not complete."""
        return b"data: " + write_error(error, request_id) + b"\n\n"

    def _envelope(self) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._call.id}",
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
        }

    def _event(self, delta: dict[str, Any], finish: str | None) -> bytes:
        tail = b',"logprobs":null,"finish_reason":' + _encode(finish) + b"}]}\n\n"
        return self._head + b',"choices":[{"index":0,"delta":' + _encode(delta) + tail


def write_answer(call: Call, chunks: list[Chunk], created: int) -> bytes:
    """Return the body of a whole answer: the target's own bytes where it speaks this format."""
    if len(chunks) == 1 and chunks[0].wire == WIRE:
        return chunks[0].raw
    usage = next((chunk.usage for chunk in reversed(chunks) if chunk.usage), None)
    calls = _whole_tool_calls(chunks)
    reasoning = "".join(chunk.reasoning for chunk in chunks)
    text = "".join(chunk.text for chunk in chunks)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text or (None if calls else ""),
        "refusal": None,
    }
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [_tool_call(call, fragment=False) for call in calls]
    finish = next((chunk.finish for chunk in reversed(chunks) if chunk.finish), None)
    return _encode(
        {
            "id": f"chatcmpl-{call.id}",
            "object": "chat.completion",
            "created": created,
            "model": next((chunk.model for chunk in chunks if chunk.model), call.request.model),
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": _usage(usage) if usage else None,
        }
    )


def _whole_tool_calls(chunks: list[Chunk]) -> list[ToolCall]:
    parts: dict[int, list[ToolCall]] = {}
    for chunk in chunks:
        for call in chunk.tool_calls:
            parts.setdefault(call.index, []).append(call)
    return [
        ToolCall(
            index=index,
            id=next((part.id for part in same if part.id), ""),
            name=next((part.name for part in same if part.name), ""),
            arguments="".join(part.arguments for part in same),
        )
        for index, same in sorted(parts.items())
    ]


def _tool_call(call: ToolCall, *, fragment: bool) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": call.arguments}
    if call.name:
        function = {"name": call.name, **function}
    named = {"id": call.id, "type": "function"} if call.id else {}
    return (
        {"index": call.index, **named, "function": function} if fragment else {**named, "function": function}
    )


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": 0},
    }


def decoded(chunk: Chunk) -> Chunk:
    """Return ``chunk`` without its bytes, for a client that must get it in another shape than it came in."""
    return msgspec.structs.replace(chunk, raw=b"", wire="")
