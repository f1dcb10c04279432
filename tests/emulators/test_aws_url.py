import asyncio
import json
from itertools import pairwise

import pytest

from firsttoken.emulators.aws_environment import HTTP_INTEGRATION, FunctionError, Invocation
from firsttoken.emulators.aws_url import open_answer


def answer(*pieces, content_type="application/json", streaming=False):
    """Return status, headers and body of a function that answered with these pieces."""

    async def scenario():
        invocation = Invocation(b"{}", 1.0)
        invocation.streaming, invocation.content_type = streaming, content_type
        for piece in pieces:
            await invocation.put(piece)
        invocation.end()
        opened = await open_answer(invocation)
        return opened.status, opened.headers, b"".join([piece async for piece in opened.body])

    return asyncio.run(scenario())


JSON = [("content-type", "application/json")]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"statusCode": 201, "body": "made"}, (201, JSON, b"made")),
        ({"statusCode": "404"}, (404, JSON, b"")),
        ({"statusCode": 200, "body": "/wA=", "isBase64Encoded": True}, (200, JSON, b"\xff\x00")),
        (
            {"statusCode": 200, "headers": {"Content-Type": "a/b", "X": 1}},
            (200, [("Content-Type", "a/b"), ("X", "1")], b""),
        ),
        (
            {"statusCode": 200, "multiValueHeaders": {"Content-Type": ["a/b"], "set-cookie": ["a", "b"]}},
            (200, [("Content-Type", "a/b"), ("set-cookie", "a"), ("set-cookie", "b")], b""),
        ),
        ({"statusCode": 200, "cookies": ["a=1\r\nX: y"]}, (200, [("set-cookie", "a=1  X: y"), *JSON], b"")),
        ({"answer": 42}, (200, JSON, b'{"answer": 42}')),
        ({"statusCode": "soon"}, (200, JSON, b'{"statusCode": "soon"}')),
        ([1], (200, JSON, b"[1]")),
        (None, (200, JSON, b"null")),
    ],
)
def test_a_whole_answer_is_mapped_like_a_proxy_response(payload, expected):
    """An object with a status code is HTTP; anything else is the body of a 200."""
    assert answer(json.dumps(payload).encode()) == expected


@pytest.mark.parametrize("cuts", [(), (5,), (19, 22), (1, 2, 3)])
def test_a_prelude_may_be_cut_anywhere(cuts):
    """Pieces need not end where the prelude or its NUL bytes do."""
    whole = b'{"statusCode": 202}' + b"\0" * 8 + b"body\0\0"
    edges = [0, *cuts, len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(edges)]
    assert answer(*pieces, content_type=HTTP_INTEGRATION, streaming=True) == (202, [], b"body\0\0")


def test_a_stream_of_another_type_has_no_prelude():
    """Without the integration's content type the bytes are the body."""
    assert answer(b"a\0", b"b", content_type="a/b", streaming=True) == (
        200,
        [("content-type", "a/b")],
        b"a\0b",
    )


@pytest.mark.parametrize("start", [b"", b"{}" + b"\0" * 8, b'{"statusCode": 200}', b"text" + b"\0" * 8])
def test_a_broken_prelude_fails_the_invocation(start):
    """A streamed answer without a valid prelude is the function's error."""
    with pytest.raises(FunctionError, match="InvalidPrelude"):
        answer(start, content_type=HTTP_INTEGRATION, streaming=True)
