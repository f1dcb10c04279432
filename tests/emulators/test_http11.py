import asyncio

import pytest

from firsttoken.emulators.http11 import response, start_server, stop_server


def talk(*parts, limit=1 << 20):
    """Send raw bytes to a server that echoes bodies and trailers; return all that it answers."""

    async def echo(request, writer):
        body = await request.read(limit)
        text = b"too large" if body is None else body + repr(sorted(request.trailers.items())).encode()
        writer.write(response(200, text, "text/plain"))
        return body is not None

    async def scenario():
        tasks = set()
        server = await start_server(echo, "127.0.0.1", 0, tasks)
        try:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
                writer.write(b"".join(parts))
                writer.write_eof()
                try:
                    return await reader.read()
                except ConnectionResetError:  # closed with some of our bytes unread
                    return b""
                finally:
                    writer.close()
        finally:
            await stop_server(server, tasks)

    return asyncio.run(scenario())


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


def test_requests_follow_each_other_on_one_connection():
    """A connection is kept, whatever the form of a body, and trailers are read."""
    answer = talk(
        HEAD + b"Content-Length: 3\r\n\r\none",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\ntw\r\n1\r\no\r\n0\r\nX-Late: yes\r\n\r\n",
        HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nthree",
    )
    assert b"one[]" in answer
    assert b"two[('x-late', 'yes')]" in answer
    assert b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200" in answer
    assert answer.endswith(b"three[]")


@pytest.mark.parametrize("body", [b"Content-Length: 5\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\n"])
def test_a_body_above_the_limit_is_not_read(body):
    """A handler learns that a body is too large, and the connection ends."""
    assert talk(HEAD + body + b"12345\r\n0\r\n\r\n", limit=4).endswith(b"too large")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost",
        HEAD + b"Content-Length: 9\r\n\r\nshort",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        HEAD + b"Content-Length: many\r\n\r\n",
        HEAD + b"X: " + b"x" * (1 << 19),
    ],
)
def test_a_broken_request_ends_the_connection(raw):
    """What is not HTTP, or is cut, gets no answer and breaks nothing."""
    assert talk(raw) == b""


def test_a_malformed_first_line_is_a_400():
    """A request line that has no three words is told so."""
    assert talk(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
