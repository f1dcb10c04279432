"""Requests and answers of OpenAI Embeddings, read and written."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from typing import Any

import pytest

from firsttoken.embedding import EmbedCall, Embeddings, EmbedRequest, pack, unpack
from firsttoken.errors import RequestError, UpstreamProtocolError
from firsttoken.wire import openai_embeddings as wire

ONE, TWO = pack([0.5, -1.0]), pack([0.25, 2.0])


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def call(**fields: Any) -> EmbedCall:
    request, source = wire.read_request(body(**fields))
    return EmbedCall(request=request, deadline=0.0, source=source)


def answer(*items: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"object": "list", "data": items, "model": "big", **fields}).encode()


@pytest.mark.parametrize(
    ("sent", "texts", "tokens"),
    [
        ("one", ("one",), ()),
        (["one", "zwei"], ("one", "zwei"), ()),
        ([1, 2, 3], (), ((1, 2, 3),)),
        ([[1, 2], [3]], (), ((1, 2), (3,))),
    ],
)
def test_inputs(sent: Any, texts: tuple[str, ...], tokens: tuple[tuple[int, ...], ...]) -> None:
    """A text, texts, a list of tokens and lists of tokens are all understood."""
    request, source = wire.read_request(body(input=sent))
    assert (request.inputs, request.tokens) == (texts, tokens)
    assert source.unknown == ()


def test_fields() -> None:
    """Dimensions, encoding, user and purpose have neutral words; what is null was not asked for."""
    sent = body(input="x", dimensions=8, encoding_format="base64", user="u", input_type="search_query")
    request, _ = wire.read_request(sent)
    assert (request.dimensions, request.encoding, request.user) == (8, "base64", "u")
    assert request.input_type == "query"
    request, source = wire.read_request(body(input="x", dimensions=None, user=None, future=None))
    assert (request.dimensions, request.encoding, request.user, source.unknown) == (None, "float", "", ())


@pytest.mark.parametrize("more", [{"future": 1}, {"input_type": "clustering"}])
def test_what_has_no_word_is_named(more: dict[str, Any]) -> None:
    """A field that only some server knows is named, so that another target can refuse it."""
    assert wire.read_request(body(input="x", **more))[1].unknown == tuple(more)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [[1], "a"]}, "input[1]"),
        ({"input": ["x"] * 2049}, "input"),
        ({"input": 5}, "input"),
        ({"input": [None]}, "input[0]"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "x", "model": ""}, "model"),
    ],
)
def test_wrong_requests(fields: dict[str, Any], param: str) -> None:
    """A wrong request names the field, and of several texts the one that is wrong."""
    with pytest.raises(RequestError) as caught:
        wire.read_request(body(**fields))
    assert caught.value.param == param
    assert caught.value.code == "invalid_value"


def test_the_most_inputs() -> None:
    """As many texts as OpenAI takes are taken."""
    assert wire.read_request(body(input=["x"] * 2048))[0].count() == 2048


def test_requests_pass_byte_by_byte() -> None:
    """A target of the same format gets the client's bytes, only the model replaced."""
    sent = body(input=[1, 2], future=[1.50])
    request, source = wire.read_request(sent)
    passed = EmbedCall(request=request, deadline=0.0, source=source)
    assert wire.write_request(passed, "m") == sent
    assert json.loads(wire.write_request(passed, "big")) == {**json.loads(sent), "model": "big"}


def test_requests_of_our_own() -> None:
    """A request that no client sent is written with what it asks for, and with vectors as base64."""
    request = EmbedRequest(model="x", inputs=("a", "b"), dimensions=2, user="u", input_type="query")
    written = json.loads(wire.write_request(EmbedCall(request=request, deadline=0.0), "big"))
    assert written == {
        "model": "big",
        "input": ["a", "b"],
        "dimensions": 2,
        "encoding_format": "base64",
        "user": "u",
    }


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_answers_come_back(encoding: str) -> None:
    """What is written is read again, in either encoding."""
    written = wire.write_answer(
        call(input=["a", "b"], encoding_format=encoding), Embeddings((ONE, TWO), tokens=7, model="big")
    )
    read = wire.read_answer(written, EmbedRequest(model="m", inputs=("a", "b"), encoding=encoding))
    assert (read.vectors, read.tokens, read.estimated, read.model) == ((ONE, TWO), 7, False, "big")
    assert read.raw == written


def test_the_shape_of_an_answer() -> None:
    """An answer has the shape of the API reference; counts that are ours are marked."""
    said = json.loads(wire.write_answer(call(input="a"), Embeddings((ONE,), tokens=3, estimated=True)))
    assert said == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}],
        "model": "m",
        "usage": {"prompt_tokens": 3, "total_tokens": 3, "estimated": True},
    }


def test_answers_pass_byte_by_byte() -> None:
    """A client gets the target's own bytes where both speak this format."""
    sent = answer({"index": 0, "embedding": [0.5, -1.0]}, usage={"prompt_tokens": 1}, extra=1)
    asked = call(input="a")
    assert wire.write_answer(asked, wire.read_answer(sent, asked.request)) == sent


def test_a_target_that_answers_in_the_other_encoding() -> None:
    """A client gets the encoding that it asked for, whatever the target made of that."""
    asked = call(input="a", encoding_format="base64")
    read = wire.read_answer(answer({"index": 0, "embedding": [0.5, -1.0]}), asked.request)
    item = json.loads(wire.write_answer(asked, read))["data"][0]
    assert item["embedding"] == b64encode(ONE).decode()


def test_vectors_are_put_in_order() -> None:
    """The index of a vector counts, not its place; without indices the place counts."""
    mixed = answer({"index": 1, "embedding": [0.25, 2]}, {"index": 0, "embedding": b64encode(ONE).decode()})
    request = EmbedRequest(model="m", inputs=("a", "b"))
    assert wire.read_answer(mixed, request).vectors == (ONE, TWO)
    plain = answer({"embedding": [0.5, -1]}, {"embedding": [0.25, 2]})
    assert wire.read_answer(plain, request).vectors == (ONE, TWO)


def test_missing_counts_are_estimated() -> None:
    """A target that counts no tokens leaves an estimate, which says that it is one."""
    read = wire.read_answer(answer({"embedding": [1]}), EmbedRequest(model="m", inputs=("eight by",)))
    assert (read.tokens, read.estimated) == (3, True)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{}",
        b"<html>",
        b'{"data": [{"embedding": "\xff"}]}',
        answer(),
        answer({"embedding": [1.0]}),
        answer({"embedding": []}, {"embedding": []}),
        answer({"embedding": [1.0]}, {"embedding": [1.0, 2.0]}),
        answer({"embedding": [1e300]}, {"embedding": [1.0]}),
        answer({"embedding": "!"}, {"embedding": "AAAA"}),
        answer({"embedding": "AAA="}, {"embedding": "AAA="}),
        answer({"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}),
        answer({"index": 0, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}),
        answer({"embedding": [None]}, {"embedding": [1.0]}),
    ],
)
def test_broken_answers(broken: bytes) -> None:
    """An answer that is not one good vector a text is an error of the target, never a wrong vector."""
    with pytest.raises(UpstreamProtocolError):
        wire.read_answer(broken, EmbedRequest(model="m", inputs=("a", "b")))


def test_packing() -> None:
    """A vector is four bytes a number, little-endian, on every machine."""
    assert pack([1.0, -2.0]) == struct.pack("<2f", 1, -2)
    assert unpack(pack([1.0, -2.0])) == (1.0, -2.0)
    with pytest.raises(ValueError, match="32-bit"):
        pack([1e300])
