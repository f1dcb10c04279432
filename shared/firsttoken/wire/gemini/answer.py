"""Answers of ``generateContent`` and events of ``streamGenerateContent``, read; `writer` writes them."""

from __future__ import annotations

import re
from typing import Any
from zlib import crc32

import msgspec
from msgspec import Raw, Struct

from firsttoken.errors import FirstTokenError, UpstreamError, UpstreamProtocolError, UpstreamRefusedError
from firsttoken.model import Chunk, Finish, ToolCall, Usage
from firsttoken.wire import sse
from firsttoken.wire.chunks import join
from firsttoken.wire.gemini import finish
from firsttoken.wire.gemini.contents import MADE_ID, WIRE
from firsttoken.wire.gemini.errors import IN_STREAM, error_from


class _Usage(Struct, frozen=True, rename="camel", gc=False):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    cached_content_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None

    def neutral(self) -> Usage:
        thoughts = self.thoughts_token_count or 0
        return Usage(
            input=(self.prompt_token_count or 0) + (self.tool_use_prompt_token_count or 0),
            output=(self.candidates_token_count or 0) + thoughts,
            cached=self.cached_content_token_count or 0,
            reasoning=thoughts,
        )


class _FunctionCall(Struct, frozen=True, gc=False):
    name: str | None = None
    id: str | None = None
    args: Raw = Raw(b"{}")


class _Part(Struct, frozen=True, rename="camel", gc=False):
    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None


class _Content(Struct, frozen=True, gc=False):
    parts: list[_Part] | None = None


class _Citations(Struct, frozen=True, rename="camel"):
    citations: list[dict[str, Any]] | None = None
    citation_sources: list[dict[str, Any]] | None = None


class _Grounding(Struct, frozen=True, rename="camel"):
    grounding_chunks: list[dict[str, Any]] | None = None


class _Candidate(Struct, frozen=True, rename="camel", gc=False):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int = 0
    citation_metadata: _Citations | None = None
    grounding_metadata: _Grounding | None = None


class _Feedback(Struct, frozen=True, rename="camel", gc=False):
    block_reason: str | None = None


class _Answer(Struct, frozen=True, rename="camel", gc=False):
    candidates: list[_Candidate] | None = None
    usage_metadata: _Usage | None = None
    model_version: str | None = None
    response_id: str | None = None
    prompt_feedback: _Feedback | None = None
    error: Any = None


_answer = msgspec.json.Decoder(_Answer)
_answers = msgspec.json.Decoder(list[_Answer])
_object = msgspec.json.Decoder(dict[str, Any])
_NO_CANDIDATE = _Candidate()


def read_answer(body: bytes) -> Chunk:
    """Decode a whole answer into the one chunk that it is; the array that a stream can be is one, too."""
    if body.lstrip()[:1] == b"[":
        reader = StreamReader()
        return join([chunk for answer in _decode(_answers, body) if (chunk := reader.chunk(answer))])
    answer = _checked(_decode(_answer, body), body)
    return StreamReader().chunk(answer, body)


def _decode(decoder: msgspec.json.Decoder[Any], data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpstreamProtocolError(
            f"The target's answer is not the JSON that was expected: {error}"
        ) from error


def _checked(answer: _Answer, data: bytes) -> _Answer:
    if answer.error is not None:
        raise error_from(IN_STREAM, {}, data)
    return answer


class StreamReader(sse.EventReader):
    """Reads a streamed answer. There is no end mark: it is whole when its reason to finish came."""

    wire = WIRE

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0

    def feed(self, received: bytes) -> Chunk | None:
        """See `firsttoken.wire.codec.StreamReader.feed`; a read of one event goes straight."""
        alone = received.find(b"\n") == len(received) - 3 and received.startswith(b"data: {")
        if not alone or self._pieces or self._held or self._failure or not received.endswith(b"}\r\n\r\n"):
            return super().feed(received)
        try:
            return self.chunk(_checked(_decode(_answer, received[6:-4]), received[6:-4]), received)
        except FirstTokenError as error:
            self._failure = error
            raise

    def read_event(self, payload: bytes) -> Chunk | None:
        """Read one event: an answer in itself, with what is new."""
        return self.chunk(_checked(_decode(_answer, payload), payload))

    def _read(self, block: bytes) -> Chunk | None:
        """Read complete events, and the bare JSON of an error that may stand among them."""
        start = _bare(block)
        if start < 0:
            return super()._read(block)
        chunk = super()._read(block[:start]) if start else None
        self._failure = self._failure or error_from(IN_STREAM, {}, block[start:])
        if chunk is None:
            raise self._failure
        return chunk

    def close(self) -> None:
        """Check that the answer is whole; an error in bare JSON may be what is left."""
        rest = b"".join(self._pieces)
        start = _bare(rest)
        if start >= 0 and not self._held and not self._failure:
            raise error_from(IN_STREAM, {}, rest[start:])
        super().close()

    def chunk(self, answer: _Answer, raw: bytes = b"") -> Chunk:
        """Return what an answer, or an event of one, says. Raises UpstreamError where it cannot be used."""
        candidate = _first(answer.candidates)
        parts = candidate.content.parts if candidate.content else None
        reason = candidate.finish_reason
        if answer.prompt_feedback and answer.prompt_feedback.block_reason:
            reason = answer.prompt_feedback.block_reason
        text, reasoning, signature, calls = self._parts(parts, answer) if parts else ("", "", "", ())
        return Chunk(
            text=text,
            reasoning=reasoning,
            tool_calls=calls,
            finish=self._finish(reason, candidate.finish_message) if reason else None,
            usage=answer.usage_metadata.neutral() if answer.usage_metadata else None,
            model=answer.model_version or "",
            raw=raw,
            wire=WIRE if raw else "",
            signature=signature,
            citations=_citations(candidate),
        )

    def _parts(self, parts: list[_Part], answer: _Answer) -> tuple[str, str, str, tuple[ToolCall, ...]]:
        text = reasoning = signature = ""
        calls: tuple[ToolCall, ...] = ()
        for part in parts:
            if part.function_call is not None:
                calls += self._call(part.function_call, part.thought_signature or "", answer)
                continue
            if part.thought:
                reasoning += part.text or ""
            elif part.text:
                text += part.text
            if part.thought_signature:
                signature += part.thought_signature
        return text, reasoning, signature, calls

    def _call(self, call: _FunctionCall, signature: str, answer: _Answer) -> tuple[ToolCall, ...]:
        if not call.name:
            return ()  # a piece of arguments that are streamed, which only clients of this format can ask for
        arguments = bytes(call.args)
        _decode(_object, arguments)
        index, self._calls = self._calls, self._calls + 1
        id_ = call.id or made_id(answer.response_id or "", call.name.encode() + arguments, index)
        return (ToolCall(index, id_, call.name, arguments.decode(), signature),)

    def _finish(self, reason: str, message: str | None) -> Finish | None:
        if reason == "FINISH_REASON_UNSPECIFIED":
            return None
        if reason == "MISSING_THOUGHT_SIGNATURE":
            raise UpstreamRefusedError("The request lacks the signature of a thought.", param="contents")
        if reason in finish.UNUSABLE:
            raise UpstreamError(f"The model's answer cannot be used ({reason}).", code=reason.lower())
        self.finished = True
        meant = finish.meant(reason, message or "")
        return "tool_calls" if meant == "stop" and self._calls else meant


open_reader = StreamReader


def made_id(response: str, call: bytes, index: int) -> str:
    """Return an id for a call that has none: the same for the same answer, different in another one."""
    base = re.sub(r"[^A-Za-z0-9_-]", "", response)[:24] or f"{crc32(call):08x}"
    return f"{MADE_ID}{base}_{index}"


def _bare(block: bytes) -> int:
    """Return where JSON begins that is no event's data, or -1."""
    return 0 if block[:1] == b"{" else block.find(b"\n{") + 1 or -1


def _first(candidates: list[_Candidate] | None) -> _Candidate:
    if not candidates:
        return _NO_CANDIDATE
    only = candidates[0]
    if len(candidates) == 1 and not only.index:
        return only
    return next((candidate for candidate in candidates if not candidate.index), _NO_CANDIDATE)


def _citations(candidate: _Candidate) -> tuple[dict[str, Any], ...]:
    cited, grounding = candidate.citation_metadata, candidate.grounding_metadata
    if cited is None and grounding is None:
        return ()
    found = [*(cited.citations or cited.citation_sources or ())] if cited else []
    if grounding:
        found += grounding.grounding_chunks or ()
    return tuple(found)


__all__ = ["StreamReader", "open_reader", "read_answer"]
