"""Random answers and requests in the neutral vocabulary, and what each format cannot say of them.

`LOST` is the table of docs/wire.md in code: `as_said_by` turns an answer into what a client of a format can
know of it.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import Struct

from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.errors import (
    AuthenticationError,
    BodyTooLargeError,
    DeadlineError,
    FirstTokenError,
    InternalError,
    NotFoundError,
    RequestError,
    UnsupportedFieldError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from firsttoken.model import Call, Chunk, Finish, Source, ToolCall, Usage
from firsttoken.wire import chunks as joining
from firsttoken.wire.codec import Codec

CODECS = ("openai_chat", "openai_responses", "anthropic", "gemini", "bedrock")


class Loss(Struct, frozen=True):
    """What a format has no word for: fields of an answer, kinds of token counts, and reasons to end."""

    fields: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    finish: dict[Finish, Finish] = {}
    unnamed_stop: bool = False
    """Whether a stop sequence that is not named is lost."""


LOST = {
    "openai_chat": Loss(finish={"refusal": "content_filter", "context_length": "length"}, unnamed_stop=True),
    "openai_responses": Loss(
        fields=("stopped_by",),
        finish={"stop_sequence": "stop", "refusal": "content_filter", "context_length": "length"},
    ),
    "anthropic": Loss(finish={"content_filter": "refusal"}),
    "gemini": Loss(fields=("stopped_by",), counts=("cache_write",)),
    "bedrock": Loss(finish={"refusal": "content_filter"}),
}

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)
names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
ids = st.from_regex(r"[a-zA-Z0-9_]{1,16}", fullmatch=True)
signatures = st.binary(min_size=3, max_size=12).map(lambda data: b64encode(data).decode())
scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)
objects = st.dictionaries(names, values, max_size=4)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Return counts that fit each other."""
    cached, wrote, rest = (draw(st.integers(0, 10**6)) for _ in range(3))
    reasoning, spoken = (draw(st.integers(0, 10**6)) for _ in range(2))
    return Usage(cached + wrote + rest, reasoning + spoken, cached, wrote, reasoning)


@st.composite
def pieces(draw: st.DrawFn, whole: str) -> list[str]:
    """Cut a text anywhere."""
    at = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    return [whole[a:b] for a, b in zip([0, *at], [*at, len(whole)], strict=True) if b > a]


@st.composite
def answers(draw: st.DrawFn) -> list[Chunk]:
    """Return the chunks of one answer as a provider may send them: thoughts, then words, then tool calls."""
    chunks: list[Chunk] = []
    if draw(st.booleans()):
        chunks += [Chunk(reasoning=text) for text in draw(st.lists(texts, min_size=1, max_size=3))]
        chunks.append(Chunk(signature=draw(signatures)))
    chunks += [Chunk(text=text) for text in draw(st.lists(texts, max_size=6))]
    calls = draw(st.lists(st.tuples(ids, names, objects), max_size=3, unique_by=lambda call: call[0]))
    for index, (identity, name, arguments) in enumerate(calls):
        chunks.append(Chunk(tool_calls=(ToolCall(index, identity, name),)))
        cut = draw(pieces(json.dumps(arguments, ensure_ascii=False)))
        chunks += [Chunk(tool_calls=(ToolCall(index, arguments=piece),)) for piece in cut]
    finish: Finish = "tool_calls" if calls else draw(st.sampled_from(FINISHES))
    stopped = draw(names) if finish == "stop_sequence" else ""
    chunks.append(Chunk(finish=finish, usage=draw(usages()), stopped_by=stopped))
    chunks[0] = msgspec.structs.replace(chunks[0], model="big")
    return chunks


@st.composite
def interleaved(draw: st.DrawFn) -> list[Chunk]:
    """Return an answer in which thoughts, words and tool calls follow each other in any order."""
    chunks: list[Chunk] = []
    called = 0
    for kind in draw(st.lists(st.sampled_from(("thought", "words", "call")), min_size=1, max_size=6)):
        if kind == "thought":
            chunks += [Chunk(reasoning=draw(texts)), Chunk(signature=draw(signatures))]
        elif kind == "words":
            chunks.append(Chunk(text=draw(texts)))
        else:
            arguments = json.dumps(draw(objects), ensure_ascii=False)
            chunks.append(Chunk(tool_calls=(ToolCall(called, draw(ids), draw(names)),)))
            chunks.append(Chunk(tool_calls=(ToolCall(called, arguments=arguments),)))
            called += 1
    return [*chunks, Chunk(finish="tool_calls" if called else "stop", usage=Usage(1, 1))]


def runs(chunks: list[Chunk]) -> list[tuple[str, str]]:
    """Return what an answer says in its order, each kind of content that goes on as one."""
    found: list[tuple[str, str]] = []
    for chunk in chunks:
        said = [("thought", chunk.reasoning), ("signature", chunk.signature), ("words", chunk.text)]
        calls = [(f"call {call.index}", call.arguments) for call in chunk.tool_calls]
        for kind, content in [*(pair for pair in said if pair[1]), *calls]:
            if found and found[-1][0] == kind:
                found[-1] = (kind, found[-1][1] + content)
            else:
                found.append((kind, content))
    return [
        (kind, json.dumps(json.loads(content), sort_keys=True) if kind.startswith("call") else content)
        for kind, content in found
    ]


FINISHES: tuple[Finish, ...] = (
    "stop",
    "length",
    "content_filter",
    "stop_sequence",
    "refusal",
    "context_length",
)


def as_said_by(format_name: str, answer: Chunk) -> Chunk:
    """Return what a client of a format can know of an answer; arguments of tools in one way to write them."""
    lost = LOST[format_name]
    calls = [
        msgspec.structs.replace(
            call,
            arguments=json.dumps(json.loads(call.arguments), sort_keys=True),
        )
        for call in answer.tool_calls
    ]
    usage = answer.usage and msgspec.structs.replace(answer.usage, **dict.fromkeys(lost.counts, 0))
    finish = lost.finish.get(answer.finish, answer.finish) if answer.finish else None
    if lost.unnamed_stop and finish == "stop_sequence" and not answer.stopped_by:
        finish = "stop"
    empty = {name: getattr(Chunk(), name) for name in lost.fields}
    changed = {
        "tool_calls": tuple(calls),
        "usage": usage,
        "finish": finish,
        "raw": b"",
        "wire": "",
        "model": "",
    }
    return msgspec.structs.replace(answer, **{**changed, **empty})


def errors() -> list[FirstTokenError]:
    """Return one error of each kind that an endpoint answers with."""
    return [
        RequestError("messages: expected something else", param="messages", code="invalid_value"),
        UnsupportedFieldError("seed: not here", param="seed"),
        AuthenticationError("no such key"),
        NotFoundError("no such model", code="model_not_found"),
        BodyTooLargeError("too large"),
        DeadlineError("no time left"),
        UpstreamError("it failed"),
        UpstreamError("it is overloaded", status=503, retry_after=2.0),
        UpstreamTimeoutError("too slow"),
        UpstreamRateLimitError("please wait", retry_after=7.0),
        UpstreamRefusedError("the prompt is odd", status=400),
        InternalError("a defect"),
    ]


def status_class(error: FirstTokenError) -> int:
    """Return 4 or 5; a refused key is no matter of the client behind the endpoint."""
    return 5 if error.status == 401 else error.status // 100


def policy(error: FirstTokenError) -> tuple[bool, bool]:
    """Return whether the same target may be tried again and whether another may: by the status alone."""
    if error.status == 401:
        return False, True
    again = error.status >= 500 or error.status == 429
    return again, again


def a_call(**fields: Any) -> Call:
    """Return a call whose client speaks a format that is none of ours: nothing passes through unread."""
    request = ChatRequest(
        model="m", messages=(Message("user", (Text("hi"),)),), stream=True, include_usage=True, **fields
    )
    return Call(request=request, source=Source("none", b"{}"), id="1", deadline=0.0)


def written(codec: Codec, chunks: list[Chunk]) -> bytes:
    """Return a streamed answer in a format."""
    writer = codec.open_writer(a_call(), 7)
    return b"".join([*map(writer.write, chunks), writer.end()])


def read(codec: Codec, received: list[bytes]) -> list[Chunk]:
    """Read a streamed answer that came in these pieces, as a provider does."""
    reader = codec.open_reader()
    chunks: list[Chunk] = []
    for piece in received:
        chunk = reader.feed(piece)
        while chunk is not None:
            chunks.append(chunk)
            chunk = reader.feed(b"")
        if reader.done:
            break
    reader.close()
    return chunks


def bare(chunks: list[Chunk]) -> list[Chunk]:
    """Return the chunks without the bytes that they came as, so that a writer must write them anew."""
    return [msgspec.structs.replace(chunk, raw=b"", wire="") for chunk in chunks]


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """Cut bytes at these places."""
    places = sorted({min(place, len(data)) for place in at})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def whole(chunks: list[Chunk]) -> Chunk:
    """Return the answer that these chunks are."""
    return joining.whole(chunks)
