"""OpenAI Embeddings, requests and answers in both directions; errors are those of Chat Completions.

Source: the OpenAI API reference, "Embeddings". ``input_type`` is an extension that many compatible servers
know: it says whether the texts are queries or documents.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from firsttoken.embedding import (
    MAX_INPUTS,
    EmbedCall,
    Embeddings,
    EmbedRequest,
    Purpose,
    checked,
    estimate_tokens,
    pack,
    unpack,
)
from firsttoken.errors import RequestError, UpstreamProtocolError
from firsttoken.model import Source
from firsttoken.wire import json_body
from firsttoken.wire.openai_chat import error_from, write_error

WIRE = "openai-embeddings"

_PURPOSES: dict[str, Purpose] = {
    "query": "query",
    "search_query": "query",
    "document": "document",
    "search_document": "document",
    "passage": "document",
}
"""What compatible servers (NVIDIA, Voyage AI, Cohere) call the two purposes."""
_EXPECTED = "expected a text, a list of texts, a list of tokens, or a list of lists of tokens"


class _Request(Struct, frozen=True):
    """The body, as the API reference describes it."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | list[str | int | list[int]]
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    input_type: str | None = None
    user: str | None = None


class _Item(Struct, frozen=True):
    embedding: list[float] | str
    index: int = -1


class _Usage(Struct, frozen=True):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Answer(Struct, frozen=True):
    data: list[_Item]
    model: str = ""
    usage: _Usage | None = None


_decoder = msgspec.json.Decoder(_Request)
_answer = msgspec.json.Decoder(_Answer)
_encode = msgspec.json.encode
_ENUMS = {"encoding_format": "float, base64"}


def read_request(body: bytes) -> tuple[EmbedRequest, Source]:
    """Decode a request's body. Raises RequestError naming the field and what was expected."""
    wire = json_body.decode(_decoder, body, _ENUMS)
    purpose: Purpose = _PURPOSES.get(wire.input_type or "", "")
    known = set(_Request.__struct_fields__) - ({"input_type"} if wire.input_type and not purpose else set())
    unknown = [n for n, raw in json_body.fields(body).items() if n not in known and bytes(raw) != b"null"]
    texts, tokens = _inputs(wire.input)
    request = EmbedRequest(
        model=wire.model,
        inputs=texts,
        tokens=tokens,
        dimensions=wire.dimensions,
        encoding=wire.encoding_format or "float",
        input_type=purpose,
        user=wire.user or "",
    )
    return request, Source(WIRE, body, tuple(unknown))


def _inputs(wire: str | list[Any]) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Return the texts, or the lists of tokens, that an ``input`` holds: all of one kind, none empty."""
    listed = isinstance(wire, list) and not (wire and isinstance(wire[0], int))
    items: list[Any] = list(wire) if listed else [wire]
    if not items:
        raise _wrong("input", "is empty")
    if len(items) > MAX_INPUTS:
        raise _wrong("input", f"holds {len(items)} items, and {MAX_INPUTS} are possible in one request")
    kind = type(items[0])
    for position, item in enumerate(items):
        where = f"input[{position}]" if listed else "input"
        if type(item) is not kind:
            raise _wrong(where, "is of another kind than what comes before it")
        if not item:
            raise _wrong(where, "is empty")
        if kind is list and not all(type(token) is int for token in item):
            raise _wrong(where, "mixes tokens with something else")
    if kind is str:
        return tuple(items), ()
    return (), tuple([tuple(item) for item in items])


def _wrong(where: str, what: str) -> RequestError:
    return RequestError(f"{where} {what}; {_EXPECTED}.", param=where, code="invalid_value")


def write_request(call: EmbedCall, model: str) -> bytes:
    """Return the body to send: the client's own, only the model replaced, if it speaks this format."""
    request = call.request
    if call.source.wire == WIRE:
        return call.source.body if request.model == model else json_body.with_model(call.source.body, model)
    json_body.refuse_unknown(call.source, WIRE)
    body = {
        "model": model,
        "input": request.tokens or request.inputs,
        "dimensions": request.dimensions,
        "encoding_format": "base64",
        "user": request.user or None,
    }
    return _encode({name: value for name, value in body.items() if value is not None})


def read_answer(body: bytes, request: EmbedRequest) -> Embeddings:
    """Decode the answer to ``request``. Raises UpstreamProtocolError unless it is a vector for each text."""
    expected = request.count()
    try:
        answer = _answer.decode(body)
        vectors = _in_order(answer.data, expected)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise UpstreamProtocolError(f"The target's answer holds no embeddings: {error}") from error
    used = answer.usage or _Usage()
    tokens = used.total_tokens if used.prompt_tokens is None else used.prompt_tokens
    as_asked = all(isinstance(item.embedding, str) is (request.encoding == "base64") for item in answer.data)
    return Embeddings(
        vectors=checked(vectors, expected),
        tokens=estimate_tokens(request.inputs) if tokens is None else tokens,
        estimated=tokens is None,
        model=answer.model,
        raw=body if as_asked else b"",
        wire=WIRE if as_asked else "",
    )


def _in_order(items: Sequence[_Item], expected: int) -> list[bytes]:
    """Return the vectors by their ``index``; as they come where the target numbers none of them."""
    numbers = [item.index for item in items]
    if any(number >= 0 for number in numbers):
        if sorted(numbers) != list(range(expected)):
            raise ValueError(f"its indices are not 0 to {expected - 1}")
        items = sorted(items, key=lambda item: item.index)
    return [
        b64decode(item.embedding, validate=True) if isinstance(item.embedding, str) else pack(item.embedding)
        for item in items
    ]


def write_answer(call: EmbedCall, answer: Embeddings) -> bytes:
    """Return the body of an answer: the target's own where it speaks this format and asked for no other."""
    if answer.raw and answer.wire == WIRE == call.source.wire:
        return answer.raw
    usage: dict[str, Any] = {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens}
    if answer.estimated:
        usage["estimated"] = True
    return _encode(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": _write(vector, call.request.encoding)}
                for index, vector in enumerate(answer.vectors)
            ],
            "model": answer.model or call.request.model,
            "usage": usage,
        }
    )


def _write(vector: bytes, encoding: str) -> str | tuple[float, ...]:
    return b64encode(vector).decode("ascii") if encoding == "base64" else unpack(vector)


__all__ = [
    "WIRE",
    "error_from",
    "read_answer",
    "read_request",
    "write_answer",
    "write_error",
    "write_request",
]
