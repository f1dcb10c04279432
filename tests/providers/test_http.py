"""The upstream HTTP client against good, broken and hostile servers, on both event loops."""

from __future__ import annotations

import asyncio
import gc
import itertools
import re
import socket
import ssl
import subprocess
import sys
import weakref
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop

from firsttoken.errors import (
    DeadlineError,
    FirstTokenError,
    RequestError,
    UpstreamClosedError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from firsttoken.providers import http
from firsttoken.providers.http import HttpClient, Response, Timeouts
from tests.providers.hostile import (
    BROKEN_BODIES,
    CHUNKED,
    CUT_BODIES,
    NOT_HTTP,
    OK,
    PLAIN,
    Authority,
    Handler,
    Peer,
    Server,
    answer,
    in_order,
    run_on,
    serve,
    until,
)

Run = Callable[[Coroutine[Any, Any, None]], None]

SHORT = Timeouts(connect=0.05, first_byte=0.05, gap=0.05)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a test on each of the two loops that serve."""
    return partial(run_on, request.param)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a certificate authority."""
    return Authority(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def client_of(handler: Handler, tls: ssl.SSLContext | None = None, **options: Any):
    """Serve a script to a client of its own; nothing may be left open by either."""
    async with serve(handler, tls) as server:
        client = HttpClient(**options)
        try:
            yield client, server
        finally:
            await client.aclose()
        for peer in server.peers:
            await until(peer.left.is_set)


async def fetch(client: HttpClient, url: str, method: str = "POST", **options: Any) -> tuple[int, bytes]:
    """Send a request and read the answer."""
    response = await client.request(method, url, **options)
    return response.status, await response.read(1 << 24)


async def collect(response: Response) -> tuple[list[bytes], FirstTokenError | None]:
    """Read the chunks until the end or the error."""
    items = []
    try:
        async for data in response.chunks():
            items.append(data)  # noqa: PERF401 - what came before the error counts
    except FirstTokenError as error:
        return items, error
    return items, None


async def sent_all(server: Server) -> None:
    """Wait until the scripts ask for the next request, and for what they sent to arrive."""
    await until(lambda: all(peer.waiting or peer.left.is_set() for peer in server.peers))
    for _ in range(3):
        await asyncio.sleep(0)


# What is sent


def test_head_and_body_leave_together(run: Run) -> None:
    """A request is one write: our headers first, then the caller's, then the body."""

    async def main() -> None:
        first_read = asyncio.get_running_loop().create_future()

        async def handler(peer: Peer) -> None:
            first_read.set_result(await peer.reader.read(65536))
            await peer.send(PLAIN)

        async with client_of(handler) as (client, server):
            headers = [("Content-Type", "application/json"), ("X-Name", "\xfcmlaut\ttab")]
            await fetch(client, server.url("/v1/chat?a=b"), headers=headers, body=b'{"a":1}')
            assert await first_read == (
                b"POST /v1/chat?a=b HTTP/1.1\r\nhost: 127.0.0.1:%d\r\naccept-encoding: identity\r\n"
                b"content-length: 7\r\nContent-Type: application/json\r\nX-Name: \xfcmlaut\ttab\r\n\r\n"
                b'{"a":1}' % server.port
            )

    run(main())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_without_a_body_announces_none(run: Run, method: str) -> None:
    """GET and HEAD carry no Content-Length; POST carries one even when it is 0."""

    async def main() -> None:
        async with client_of(answer(OK + b"Content-Length: 0\r\n\r\n")) as (client, server):
            await fetch(client, server.url(), method)
            await fetch(client, server.url())
            assert [b"content-length" in request for request in server.requests] == [False, True]

    run(main())


@pytest.mark.parametrize(
    "header",
    [
        ("X", "a\r\nEvil: 1"), ("X", "a\nb"), ("X", "a\rb"), ("X", "a\0b"), ("X", "a\x1bb"), ("X", "a\x7f"),
        ("X", "\u20ac"), ("X\r\nEvil", "1"), ("X:", "1"), ("X Y", "1"),
        ("", "1"), ("\xfc", "1"), ("X\0", "1"),
        ("Host", "elsewhere"), ("content-length", "5"), ("Transfer-Encoding", "chunked"),
        ("Connection", "close"),
        ("Accept-Encoding", "gzip"), ("Expect", "100-continue"), ("Upgrade", "h2c"),
    ],
)  # fmt: skip
def test_headers_cannot_be_injected(run: Run, header: tuple[str, str]) -> None:
    """A header that would change the framing, or is none, is refused before anything is sent."""

    async def main() -> None:
        async with client_of(answer(PLAIN)) as (client, server):
            with pytest.raises(RequestError, match="cannot be sent upstream"):
                await client.request("POST", server.url(), headers=[("Fine", "1"), header])
            assert server.peers == []

    run(main())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a.example", (("http", "a.example", 80), "a.example", "/")),
        ("https://a.example/b?c=d%20e", (("https", "a.example", 443), "a.example", "/b?c=d%20e")),
        ("https://a.example:8443?q", (("https", "a.example", 8443), "a.example:8443", "/?q")),
        ("http://[::1]:81/x", (("http", "[::1]", 81), "[::1]:81", "/x")),
        ("https://[2001:db8::1]/", (("https", "[2001:db8::1]", 443), "[2001:db8::1]", "/")),
    ],
)
def test_urls_are_taken_apart(url: str, expected: object) -> None:
    """Scheme, host and port name the connection; the Host header is what the URL says."""
    assert http._split(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "", "a.example", "ftp://a.example/", "http://", "http:///x", "http://user:secret@a.example/",
        "http://a.example:99999/", "http://a.example:x/", "http://a b/", "http://a.example/a b",
        "http://a.example/\r\nEvil: 1", "http://a.example/\n",
        "http://a.example/\u20ac", "http://\xfc.example/", "http://a.example/#part", "http://[::1", "HTTP://a.example\0/",
    ],
)  # fmt: skip
def test_bad_urls_are_refused(url: str) -> None:
    """A URL that could smuggle, or that is none, is refused; the message does not repeat it."""
    with pytest.raises(RequestError, match="must look like") as caught:
        http._split(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("method", ["", "get", "GET /x HTTP/1.1\r\nEvil: 1\r\nX:", "G T", "GET\n", "\xc9T"])
def test_methods_cannot_inject(method: str) -> None:
    """A method is upper-case letters, nothing else."""
    with pytest.raises(RequestError, match="method"):
        http._encode(method, "/", "a.example", (), b"")


# What is read


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([PLAIN], b"ok"),
        ([OK + b"Content-Length: 0\r\n\r\n"], b""),
        ([CHUNKED + b"2\r\nok\r\n0\r\n\r\n"], b"ok"),
        ([CHUNKED + b"2;ext=1\r\nok\r\n0\r\nTrailer: dropped\r\n\r\n"], b"ok"),
        ([CHUNKED + b"00000002\r\nok\r\n000\r\n\r\n"], b"ok"),
        ([OK + b"Empty:\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"], b"ok"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + PLAIN], b"ok"),
        ([b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"], b"ok"),
        ([OK + b"Content-Encoding: Identity\r\nContent-Length: 2\r\n\r\nok"], b"ok"),
        (
            [CHUNKED + b"1\r\n\xf0\r\n", b"2\r\n\x9f\x98\r\n1\r", b"\n\x80\r\n0\r\n\r\n"],
            "\N{GRINNING FACE}".encode(),
        ),
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_bodies_arrive_whole(run: Run, pieces: list[bytes], body: bytes, *, bytewise: bool) -> None:
    """However a good answer is cut into packets, its bytes come out unchanged and the connection is kept."""
    sent = [bytes([byte]) for byte in b"".join(pieces)] if bytewise else pieces

    async def main() -> None:
        async with client_of(answer(*sent)) as (client, server):
            for _ in range(2):
                response = await client.request("POST", server.url(), body=b"{}")
                items, error = await collect(response)
                assert (response.status, b"".join(items), error) == (200, body, None)
                assert b"" not in items
                assert not {"link", "trailer"} & set(response.headers)
            assert len(server.peers) == 1

    run(main())


def test_headers_are_lower_case_and_joined(run: Run) -> None:
    """Names are lower-case, repeated values joined, white space around them dropped, Latin-1 kept."""

    async def main() -> None:
        head = b"X-A: 1 \r\nx-a:  2\t\r\nX-Empty:\r\nX-L: \xfc\r\n"
        async with client_of(answer(OK + head + b"Content-Length: 0\r\n\r\n")) as (client, server):
            response = await client.request("GET", server.url())
            response.close()
            expected = {"x-a": "1, 2", "x-empty": "", "x-l": "\xfc", "content-length": "0"}
            assert response.headers == expected

    run(main())


def test_what_arrives_together_is_one_item(run: Run) -> None:
    """Chunks of one packet are one item of the stream; a chunk on its own is handed on at once."""

    async def main() -> None:
        taken = asyncio.Event()

        async def handler(peer: Peer) -> None:
            await peer.read_request()
            await peer.send(CHUNKED + b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n")
            await taken.wait()
            await peer.send(b"1\r\nd\r\n0\r\n\r\n")

        async with client_of(handler) as (client, server):
            items = []
            async for data in (await client.request("POST", server.url())).chunks():
                items.append(data)
                taken.set()
            assert items == [b"abc", b"d"]

    run(main())


@pytest.mark.parametrize(("limit", "fits"), [(2, True), (1, False), (0, False)])
def test_a_body_is_read_up_to_a_limit(run: Run, limit: int, *, fits: bool) -> None:
    """A body larger than its reader wants is an error that names the limit, and ends the connection."""

    async def main() -> None:
        async with client_of(answer(PLAIN)) as (client, server):
            response = await client.request("GET", server.url())
            if fits:
                assert await response.read(limit) == b"ok"
            else:
                with pytest.raises(UpstreamProtocolError, match=f"exceeds {limit} bytes"):
                    await response.read(limit)
            with pytest.raises(UpstreamClosedError, match="read before"):
                await response.read(limit)

    run(main())


def test_an_endless_body_is_read_up_to_a_limit(run: Run) -> None:
    """What is beyond the limit is not collected first."""

    async def main() -> None:
        async def handler(peer: Peer) -> None:
            await peer.read_request()
            await peer.flood(itertools.chain([CHUNKED], itertools.repeat(b"1\r\na\r\n")))

        async with client_of(handler) as (client, server):
            response = await client.request("GET", server.url())
            with pytest.raises(UpstreamProtocolError, match="exceeds 10 bytes"):
                await response.read(10)
            await until(server.peers[0].left.is_set)

    run(main())


@pytest.mark.parametrize("status", [200, 204, 304, 301, 404, 429, 500, 599])
def test_any_final_status_is_an_answer(run: Run, status: int) -> None:
    """Redirects are not followed and errors are not raised: the caller decides."""
    length = b"" if status in {204, 304} else b"Content-Length: 0\r\n"

    async def main() -> None:
        script = answer(b"HTTP/1.1 %d X\r\nLocation: /elsewhere\r\n%s\r\n" % (status, length))
        async with client_of(script) as (client, server):
            assert await fetch(client, server.url()) == (status, b"")
            assert await fetch(client, server.url()) == (status, b"")
            assert len(server.peers) == 1

    run(main())


# What must not pass


def cases(table: dict[str, bytes]) -> pytest.MarkDecorator:
    """Parametrise with a table whose keys are names."""
    return pytest.mark.parametrize("sent", list(table.values()), ids=list(table))


@cases(NOT_HTTP)
@pytest.mark.parametrize("bytewise", [False, True])
def test_what_is_not_http_is_refused(run: Run, sent: bytes, *, bytewise: bool) -> None:
    """A head that readers could understand differently, or that is none, fails and ends the connection."""
    if bytewise and len(sent) > 1000:
        pieces = [sent[at : at + 1000] for at in range(0, len(sent), 1000)]
    else:
        pieces = [bytes([byte]) for byte in sent] if bytewise else [sent]

    async def main() -> None:
        async with client_of(answer(*pieces, then="hang")) as (client, server):
            with pytest.raises(UpstreamProtocolError, match="the target ") as caught:
                await fetch(client, server.url(), headers=[("Authorization", "Bearer secret")])
            assert not re.search(r"secret|127\.0\.0\.1", str(caught.value))
            assert caught.value.__notes__ == [f"upstream 127.0.0.1:{server.port}"]
            await until(server.peers[0].left.is_set)
            assert (len(server.peers), client._idle) == (1, [])

    run(main())


@cases(BROKEN_BODIES)
def test_a_broken_body_is_an_error_after_its_good_part(run: Run, sent: bytes) -> None:
    """The reader gets what was in order, then the error; never a clean end."""

    async def main() -> None:
        head, first, rest = sent.partition(b"2\r\nok")
        async with client_of(answer(head + first, rest, then="hang")) as (client, server):
            items, error = await collect(await client.request("POST", server.url()))
            assert b"".join(items).startswith(b"ok")
            assert isinstance(error, UpstreamProtocolError)
            await until(server.peers[0].left.is_set)

    run(main())


@cases(CUT_BODIES)
@pytest.mark.parametrize("then", ["close", "reset"])
def test_a_cut_body_is_never_a_clean_end(run: Run, sent: bytes, then: str) -> None:
    """A body without its end raises after the part that came, however the connection went away."""

    async def main() -> None:
        async with client_of(answer(sent, then=then)) as (client, server):
            items, error = await collect(await client.request("POST", server.url()))
            assert (b"".join(items), type(error)) == (b"ok", UpstreamClosedError)
            assert str(error).startswith("the target closed before its answer ended: ")
            assert len(server.peers) == 1

    run(main())


@pytest.mark.parametrize("sent", [b"", b"H", b"HTTP/1.1 200", OK, OK + b"Content-Length: 2\r\n"])
@pytest.mark.parametrize("then", ["close", "reset"])
def test_a_connection_that_goes_before_the_head_is_complete(run: Run, sent: bytes, then: str) -> None:
    """It is an error, and a request on a fresh connection is not sent again."""

    async def main() -> None:
        async with client_of(answer(sent, then=then)) as (client, server):
            with pytest.raises(UpstreamClosedError):
                await client.request("POST", server.url())
            assert len(server.requests) == 1

    run(main())


def test_a_server_that_closes_at_once(run: Run) -> None:
    """A connection that is closed right after it was accepted is an error of the upstream."""

    async def main() -> None:
        async def handler(peer: Peer) -> None:
            peer.writer.close()

        async with client_of(handler) as (client, server):
            with pytest.raises(UpstreamClosedError):
                await client.request("POST", server.url())

    run(main())


def test_a_server_that_speaks_first(run: Run) -> None:
    """Bytes before a request cannot be its answer, even if they look like one."""

    async def main() -> None:
        sent = asyncio.Event()

        async def handler(peer: Peer) -> None:
            await peer.send(PLAIN)
            sent.set()
            await peer.wait_until_left()

        async with client_of(handler) as (client, server):
            connection = await client._connect(http._split(server.url())[0], 5.0, float("inf"))
            await until(sent.is_set)
            await until(connection.transport.is_closing)
            with pytest.raises(UpstreamProtocolError, match="do not answer a request"):
                await connection.exchange("GET", b"GET / HTTP/1.1\r\n\r\n", Timeouts(), float("inf"))

    run(main())


def test_an_endless_head_is_cut_off(run: Run) -> None:
    """A server that never ends its head is left after a bounded number of bytes."""

    async def main() -> None:
        async def handler(peer: Peer) -> None:
            await peer.read_request()
            await peer.flood(itertools.chain([OK], itertools.repeat(b"X: " + b"y" * 1000)))

        async with client_of(handler) as (client, server):
            with pytest.raises(UpstreamProtocolError):
                await client.request("POST", server.url())

    run(main())


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_body_without_a_length_ends_with_the_connection(run: Run, version: bytes, then: str) -> None:
    """Without a length the end of the connection is the end of the body, unless it was reset."""

    async def main() -> None:
        async with client_of(answer(b"HTTP/%s 200 OK\r\n\r\na" % version, b"b", then=then)) as (
            client,
            server,
        ):
            items, error = await collect(await client.request("POST", server.url()))
            assert b"".join(items) == b"ab"
            assert type(error) is (UpstreamClosedError if then == "reset" else type(None))

    run(main())


# Which connections are used again


@pytest.mark.parametrize(
    ("sent", "connections"),
    [
        ([PLAIN], 1),
        ([CHUNKED, b"1\r\na\r\n", b"0\r\n\r\n"], 1),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], 1),
        ([b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"], 1),
        ([b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"], 2),
        ([OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok"], 2),
        ([OK + b"Connection: keep-alive, close\r\nContent-Length: 2\r\n\r\nok"], 2),
        ([PLAIN + b"extra"], 2),
        ([PLAIN + PLAIN], 2),
        ([PLAIN + b"HTTP/1.1 2"], 2),
        ([CHUNKED + b"0\r\n\r\nextra"], 2),
        ([b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nextra"], 2),
        ([PLAIN, b"extra"], 2),
    ],
)
def test_a_connection_is_kept_only_after_a_clean_end(run: Run, sent: list[bytes], connections: int) -> None:
    """What says that it closes, or sends more than its answer, carries no second request."""

    async def main() -> None:
        async with client_of(answer(*sent)) as (client, server):
            for _ in range(2):
                response = await client.request("POST", server.url())
                await until(lambda connection=response._connection: connection._complete)
                await sent_all(server)
                response.close()
                for connection in client._idle:
                    assert connection._timer.cancelled()
            assert len(server.peers) == connections

    run(main())


@pytest.mark.parametrize("length", [b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_head_request_has_no_body(run: Run, length: bytes) -> None:
    """The answer to HEAD ends with its head, whatever length it announces."""

    async def main() -> None:
        async with client_of(answer(OK + length + b"\r\n")) as (client, server):
            assert await fetch(client, server.url(), "HEAD") == (200, b"")
            assert client._idle == []

    run(main())


@pytest.mark.parametrize("stray", [b"\r\n", PLAIN.replace(b"ok", b"no")])
@pytest.mark.parametrize("idle", [False, True])
def test_stray_bytes_end_the_connection(run: Run, stray: bytes, *, idle: bool) -> None:
    """Bytes that come after an answer, read or not, cannot become the answer to the next request."""

    async def main() -> None:
        complete, sent = asyncio.Event(), asyncio.Event()

        async def first(peer: Peer) -> None:
            await peer.read_request()
            await peer.send(PLAIN)
            await complete.wait()
            with peer.socket() as connection:
                connection.send(stray)
            sent.set()
            await peer.wait_until_left()

        async with client_of(in_order(first, answer(PLAIN))) as (client, server):
            response = await client.request("POST", server.url())
            connection = response._connection
            await until(lambda: connection._complete)
            if idle:
                assert await response.read(2) == b"ok"
            complete.set()
            await sent.wait()
            if not idle:
                await until(connection.transport.is_closing)
                assert await response.read(2) == b"ok"
            assert await fetch(client, server.url()) == (200, b"ok")
            assert len(server.peers) == 2

    run(main())


def test_a_connection_that_ended_unnoticed_is_not_used(run: Run) -> None:
    """The end of an idle connection is seen before it is used, even if the loop had no turn since."""

    async def main() -> None:
        async with client_of(answer(PLAIN)) as (client, server):
            await fetch(client, server.url())
            server.peers[0].cut()
            assert await fetch(client, server.url()) == (200, b"ok")
            assert [len(peer.requests) for peer in server.peers] == [1, 1]

    run(main())


@pytest.mark.parametrize("then", ["close", "reset"])
def test_a_dead_pooled_connection_is_replaced_once(run: Run, then: str) -> None:
    """A request that dies on a reused connection before any byte is sent again, once, on a fresh one."""

    async def main() -> None:
        async def dies_later(peer: Peer) -> None:
            await peer.read_request()
            await peer.send(PLAIN)
            await peer.read_request()
            if then == "reset":
                peer.reset()

        closes = answer(then="close")
        async with client_of(in_order(dies_later, answer(PLAIN, then="hang"), dies_later, closes)) as (
            client,
            server,
        ):
            assert await fetch(client, server.url(), body=b"1") == (200, b"ok")
            assert await fetch(client, server.url(), body=b"2") == (200, b"ok")
            assert [len(peer.requests) for peer in server.peers] == [2, 1]
            assert server.peers[0].requests[1] == server.peers[1].requests[0]
            await client.aclose()

    run(main())


def test_a_retry_is_not_retried(run: Run) -> None:
    """When the fresh connection dies as well, the error is the caller's."""

    async def main() -> None:
        async def dies_later(peer: Peer) -> None:
            await peer.read_request()
            await peer.send(PLAIN)
            await peer.read_request()

        async with client_of(in_order(dies_later, answer(then="close"))) as (client, server):
            await fetch(client, server.url())
            with pytest.raises(UpstreamClosedError):
                await fetch(client, server.url())
            assert [len(peer.requests) for peer in server.peers] == [2, 1]

    run(main())


@pytest.mark.parametrize("sent", [b"H", OK, CHUNKED + b"2\r\nok\r\n"])
def test_an_answer_that_began_is_not_asked_for_again(run: Run, sent: bytes) -> None:
    """After the first byte of an answer nothing is sent twice, on a reused connection either."""

    async def main() -> None:
        async def dies_late(peer: Peer) -> None:
            await peer.read_request()
            await peer.send(PLAIN)
            await peer.read_request()
            await peer.send(sent)

        async with client_of(in_order(dies_late, answer(PLAIN))) as (client, server):
            await fetch(client, server.url())
            with pytest.raises(UpstreamClosedError):
                await fetch(client, server.url())
            assert len(server.peers) == 1

    run(main())


def test_an_early_refusal_ends_the_connection(run: Run) -> None:
    """An answer that came before the request was read is delivered; the rest of the request is not sent."""

    async def main() -> None:
        async def refuse(peer: Peer) -> None:
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.writer.transport.pause_reading()
            await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
            await until(lambda: client._idle or finished.is_set())
            peer.writer.transport.resume_reading()
            await peer.wait_until_left()

        finished = asyncio.Event()
        async with client_of(in_order(refuse, answer(PLAIN))) as (client, server):
            assert await fetch(client, server.url(), body=b"x" * (32 << 20)) == (413, b"big")
            assert client._idle == []
            finished.set()
            assert await fetch(client, server.url()) == (200, b"ok")
            assert len(server.peers) == 2

    run(main())


# The pool


async def hold(client: HttpClient, url: str, count: int) -> list[Response]:
    """Open several connections at once."""
    return await asyncio.gather(*(client.request("GET", url) for _ in range(count)))


def test_the_pool_is_bounded_and_last_in_first_out(run: Run) -> None:
    """At most ``max_idle`` connections are kept: those used last, and the last of them is used first."""

    async def main() -> None:
        async with client_of(answer(PLAIN), max_idle=3) as (client, server):
            responses = await hold(client, server.url(), 8)
            assert len(server.peers) == 8
            connections = [response._connection for response in responses]
            for response in responses:
                response.close()
            assert client._idle == connections[-3:]
            again = await client.request("GET", server.url())
            assert again._connection is connections[-1]
            again.close()
            await until(lambda: sum(peer.left.is_set() for peer in server.peers) == 5)

    run(main())


def test_idle_connections_expire(run: Run) -> None:
    """A connection that was idle too long is closed when it would be used, or when another one is kept."""

    async def main() -> None:
        async with client_of(answer(PLAIN), idle_seconds=0.01) as (client, server):
            loop = asyncio.get_running_loop()
            first, second = await hold(client, server.url(), 2)
            first.close()
            start = loop.time()
            await until(lambda: loop.time() > start + 0.02)
            second.close()
            assert len(client._idle) == 1
            await until(lambda: loop.time() > start + 0.05)
            await fetch(client, server.url())
            assert len(server.peers) == 3
            await until(server.peers[0].left.is_set)
            await until(server.peers[1].left.is_set)

    run(main())


def test_connections_are_shared_by_address_only(run: Run) -> None:
    """A connection is used again for the same scheme, host and port, and for nothing else."""

    async def main() -> None:
        async with client_of(answer(PLAIN)) as (client, server), serve(answer(PLAIN)) as other:
            for url in (
                server.url(),
                other.url(),
                server.url("/b"),
                other.url(),
                server.url(host="localhost"),
            ):
                await fetch(client, url)
            assert (len(server.peers), len(other.peers)) == (2, 1)
            await client.aclose()

    run(main())


def test_closing_the_client_closes_what_is_idle(run: Run) -> None:
    """After ``aclose`` nothing is kept; an answer that is still being read is read to its end."""

    async def main() -> None:
        async with client_of(answer(PLAIN)) as (client, server):
            reading, idle = await hold(client, server.url(), 2)
            idle.close()
            await client.aclose()
            await until(lambda: sum(peer.left.is_set() for peer in server.peers) == 1)
            assert await reading.read(10) == b"ok"
            await until(lambda: all(peer.left.is_set() for peer in server.peers))

    run(main())


def test_a_client_outlives_its_loop() -> None:
    """Connections of a loop that ended are not offered to the next one, and may be let go without it."""
    client = HttpClient()
    kept: list[Response] = []
    accepted: list[socket.socket] = []

    async def first() -> None:
        loop = asyncio.get_running_loop()
        listener.setblocking(False)  # noqa: FBT003 - its own signature
        task = asyncio.create_task(hold(client, f"http://127.0.0.1:{listener.getsockname()[1]}/", 2))
        for _ in range(2):
            accepted.append((await loop.sock_accept(listener))[0])
            await loop.sock_recv(accepted[-1], 65536)
            await loop.sock_sendall(accepted[-1], PLAIN)
        kept.extend(await task)
        kept.pop().close()

    async def second() -> None:
        async with serve(answer(PLAIN)) as server:
            assert await fetch(client, server.url()) == (200, b"ok")
            assert len(client._idle) == 1
            await client.aclose()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        run_on(asyncio.new_event_loop, first())
        transports = [connection.transport for connection in (kept[0]._connection, *client._idle)]
        run_on(uvloop.new_event_loop, second())
    kept.pop().close()
    for transport in transports:
        transport._sock.close()
        transport._sock = None
    for connection in accepted:
        connection.close()


def test_nothing_waits_for_the_garbage_collector(run: Run) -> None:
    """A connection is freed as soon as it is closed: what refers to it is cut."""

    async def main() -> None:
        async with client_of(answer(PLAIN), max_idle=0) as (client, server):
            response = await client.request("GET", server.url())
            connection = weakref.ref(response._connection)
            assert await response.read(2) == b"ok"
            await until(lambda: connection() is None)

    gc.collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_a_peer_that_vanished_is_given_up(run: Run) -> None:
    """TCP itself has a limit for data that nobody acknowledges, far below the first-byte limit."""

    async def main() -> None:
        async with client_of(answer(PLAIN)) as (client, server):
            response = await client.request("GET", server.url())
            connection = response._connection.transport.get_extra_info("socket")
            assert (
                connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == http.UNACKNOWLEDGED_MS
            )
            response.close()

    run(main())


def test_two_hundred_at_once(run: Run) -> None:
    """Each of many concurrent requests gets its own answer, and the second round needs no new connection."""

    async def main() -> None:
        async def echo(peer: Peer) -> None:
            while True:
                body = (await peer.read_request()).partition(b"\r\n\r\n")[2]
                await peer.send(CHUNKED, b"%x\r\n%s\r\n" % (len(body), body), b"0\r\n\r\n")

        async with client_of(echo, max_idle=200) as (client, server):
            for _ in range(2):
                bodies = [b"request %d" % number for number in range(200)]
                got = await asyncio.gather(*(fetch(client, server.url(), body=body) for body in bodies))
                assert got == [(200, body) for body in bodies]
            assert len(server.peers) == 200

    run(main())


# Time


@pytest.mark.parametrize(
    ("sent", "timeouts", "message"),
    [
        ([], Timeouts(first_byte=0.05), r"sent nothing for 0.05 s \(first byte\)"),
        ([b"HTTP/1.1 200", b" OK\r\n"], Timeouts(first_byte=0.05), r"\(first byte\)"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"], Timeouts(first_byte=0.05), r"\(first byte\)"),
        ([CHUNKED], Timeouts(gap=0.05), r"sent nothing for 0.05 s \(gap\)"),
        ([CHUNKED, b"2\r\nok\r\n"], Timeouts(gap=0.05), r"\(gap\)"),
        ([CHUNKED, b"2\r\nok\r\n", b"0\r\n"], Timeouts(gap=0.05, first_byte=0.05), r"\(gap\)"),
        ([OK + b"\r\nok"], Timeouts(gap=0.05), r"\(gap\)"),
    ],
)
def test_silence_has_a_limit(run: Run, sent: list[bytes], timeouts: Timeouts, message: str) -> None:
    """The error names the phase and its limit, and the connection is closed."""

    async def main() -> None:
        async with client_of(answer(*sent, then="hang")) as (client, server):
            with pytest.raises(UpstreamTimeoutError, match=message):
                await fetch(client, server.url(), timeouts=timeouts)
            await until(server.peers[0].left.is_set)

    run(main())


def test_a_busy_reader_is_no_gap(run: Run) -> None:
    """Time that the reader spends elsewhere is not counted as the server's silence."""

    async def main() -> None:
        resumed = asyncio.Event()

        async def handler(peer: Peer) -> None:
            await peer.read_request()
            await peer.send(CHUNKED, b"1\r\na\r\n")
            await resumed.wait()
            await peer.send(b"1\r\nb\r\n0\r\n\r\n")

        async with client_of(handler) as (client, server):
            loop = asyncio.get_running_loop()
            items = []
            response = await client.request("POST", server.url(), timeouts=Timeouts(first_byte=5.0, gap=0.2))
            async for data in response.chunks():
                items.append(data)
                start = loop.time()
                await until(lambda start=start: loop.time() > start + 0.5)
                resumed.set()
            assert items == [b"a", b"b"]

    run(main())


def test_connecting_has_a_limit_that_includes_tls(run: Run) -> None:
    """A server that accepts and then says nothing fails the connect limit of an https request."""

    async def main() -> None:
        async with client_of(Peer.wait_until_left) as (client, server):
            url = server.url().replace("http", "https")
            with pytest.raises(
                UpstreamTimeoutError, match=r"no connection to the target in 0.05 s \(connect\)"
            ):
                await client.request("POST", url, timeouts=SHORT)
            with pytest.raises(DeadlineError):
                await client.request("POST", url, deadline=asyncio.get_running_loop().time() + 0.05)

    run(main())


@pytest.mark.parametrize("sent", [[], [CHUNKED, b"2\r\nok\r\n"]])
@pytest.mark.parametrize("timeouts", [Timeouts(), Timeouts(first_byte=0.05, gap=0.05)])
def test_the_deadline_wins(run: Run, sent: list[bytes], timeouts: Timeouts) -> None:
    """At the deadline the call ends with its own error, and the connection is closed."""

    async def main() -> None:
        async with client_of(answer(*sent, then="hang")) as (client, server):
            loop = asyncio.get_running_loop()
            with pytest.raises(DeadlineError):
                await fetch(client, server.url(), timeouts=timeouts, deadline=loop.time() + 0.03)
            await until(server.peers[0].left.is_set)
            with pytest.raises(DeadlineError):
                await fetch(client, server.url(), deadline=loop.time())
            assert len(server.peers) == 1

    run(main())


@pytest.mark.parametrize("sent", [CHUNKED + b"2\r\nok\r\n", OK + b"\r\nok"])
def test_the_deadline_does_not_wait_for_the_reader(run: Run, sent: bytes) -> None:
    """The connection is closed at the deadline even if nobody reads; what had arrived is still delivered."""

    async def main() -> None:
        async with client_of(answer(sent, then="hang")) as (client, server):
            deadline = asyncio.get_running_loop().time() + 0.05
            response = await client.request("POST", server.url(), deadline=deadline)
            await until(server.peers[0].left.is_set)
            items, error = await collect(response)
            assert (items, type(error)) == ([b"ok"], DeadlineError)

    run(main())


# Leaving early


@pytest.mark.parametrize("sent", [[], [OK], [CHUNKED], [CHUNKED, b"2\r\nok\r\n"]])
def test_cancelling_closes_the_connection(run: Run, sent: list[bytes]) -> None:
    """The upstream sees at once that a cancelled caller left, whether it waited for the head or the body."""

    async def main() -> None:
        async with client_of(answer(*sent, then="hang")) as (client, server):
            task = asyncio.create_task(fetch(client, server.url()))
            await until(lambda: server.requests)
            for _ in range(20):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(server.peers[0].left.is_set)

    run(main())


def test_cancelling_while_connecting_closes_the_connection(run: Run) -> None:
    """A caller that leaves during the TLS handshake leaves no socket behind."""

    async def main() -> None:
        async with client_of(Peer.wait_until_left) as (client, server):
            task = asyncio.create_task(client.request("GET", server.url().replace("http", "https")))
            await until(lambda: server.peers)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(server.peers[0].left.is_set)

    run(main())


@pytest.mark.parametrize("how", ["break", "close", "close while reading", "forget"])
def test_leaving_a_body_closes_the_connection(run: Run, how: str) -> None:
    """However a reader leaves an incomplete body, the upstream sees it, and a reader that waits is told."""

    async def main() -> None:
        async with client_of(answer(CHUNKED, b"2\r\nok\r\n", then="hang")) as (client, server):
            response = await client.request("POST", server.url())
            if how == "break":
                async for _ in response.chunks():
                    break
            elif how == "close while reading":
                connection = response._connection
                task = asyncio.create_task(collect(response))
                await until(lambda: connection._buffered == 0 and connection._waiter)
                response.close()
                assert isinstance((await task)[1], UpstreamClosedError)
            elif how == "close":
                response.close()
                response.close()
                assert isinstance((await collect(response))[1], UpstreamClosedError)
            del response
            gc.collect()
            await until(server.peers[0].left.is_set)

    run(main())


def test_leaving_a_complete_body_keeps_the_connection(run: Run) -> None:
    """A body that had arrived needs no reader for its connection to be used again."""

    async def main() -> None:
        async with client_of(answer(PLAIN)) as (client, server):
            for _ in range(3):
                (await client.request("GET", server.url())).close()
            assert len(server.peers) == 1

    run(main())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_slow_reader_holds_the_server_back(run: Run, authority: Authority, scheme: str) -> None:
    """Memory is bounded: the server's send blocks while nobody reads, and goes on when somebody does."""
    piece, count = b"10000\r\n" + b"x" * 65536 + b"\r\n", 400

    async def main() -> None:
        async def handler(peer: Peer) -> None:
            await peer.read_request()
            await peer.flood(itertools.chain([CHUNKED], itertools.repeat(piece, count), [b"0\r\n\r\n"]))
            await peer.wait_until_left()

        tls = authority.server("127.0.0.1") if scheme == "https" else None
        async with client_of(handler, tls, ssl_context=authority.client()) as (client, server):
            response = await client.request("POST", server.url())
            connection = response._connection
            await until(lambda: connection._buffered > http.MAX_BUFFERED)
            await until(server.peers[0].writer.transport.get_write_buffer_size)
            assert not connection.transport.is_reading()
            assert connection._buffered <= 2 * http.MAX_BUFFERED + 65536
            size = 0
            async for data in response.chunks():
                size += len(data)
                assert len(data) <= 2 * http.MAX_BUFFERED
            assert size == 65536 * count
            assert client._idle == [connection]

    run(main())


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("how", ["deadline", "close"])
def test_a_reader_that_was_too_slow_gets_what_had_arrived(
    run: Run, authority: Authority, scheme: str, how: str
) -> None:
    """An exchange that ends while the server is held back still delivers what was buffered."""

    async def main() -> None:
        async def handler(peer: Peer) -> None:
            await peer.read_request()
            await peer.flood(
                itertools.chain([CHUNKED], itertools.repeat(b"10000\r\n" + b"x" * 65536 + b"\r\n"))
            )

        tls = authority.server("127.0.0.1") if scheme == "https" else None
        async with client_of(handler, tls, ssl_context=authority.client()) as (client, server):
            loop = asyncio.get_running_loop()
            deadline = loop.time() + 1.0 if how == "deadline" else None
            response = await client.request("POST", server.url(), deadline=deadline)
            connection = response._connection
            await until(lambda: connection._buffered > http.MAX_BUFFERED)
            if how == "deadline":
                await until(server.peers[0].left.is_set)
                items, error = await collect(response)
                assert len(b"".join(items)) >= http.MAX_BUFFERED - 1024
                assert isinstance(error, DeadlineError)
            else:
                response.close()
            await until(server.peers[0].left.is_set)

    run(main())


# Connecting and TLS


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://[::1]:1/", f"http://{'x' * 64}.invalid/"])
def test_no_connection_names_the_server(run: Run, url: str) -> None:
    """A refused connection or a name that cannot be looked up says why, and where to only in a note."""

    async def main() -> None:
        with pytest.raises(UpstreamConnectError, match=r"^cannot connect to the target: \w+$") as caught:
            await HttpClient().request("GET", url, headers=[("Authorization", "Bearer secret")])
        assert "secret" not in str(caught.value)
        assert any(note.startswith("upstream ") for note in caught.value.__cause__.__notes__)

    run(main())


def test_tls_is_verified_and_kept_alive(run: Run, authority: Authority) -> None:
    """Over TLS the same connection carries the next request; the name is sent and verified."""

    async def main() -> None:
        names: list[str | None] = []
        context = authority.server("localhost", "127.0.0.1")
        context.sni_callback = lambda _connection, name, _context: names.append(name)
        script = answer(CHUNKED, b"2\r\nok\r\n", b"0\r\n\r\n")
        async with client_of(script, context, ssl_context=authority.client()) as (client, server):
            for _ in range(3):
                assert await fetch(client, server.url(host="localhost"), body=b"x" * 100_000) == (200, b"ok")
            assert (len(server.peers), names) == (1, ["localhost"])
            assert await fetch(client, server.url()) == (200, b"ok")

    run(main())


@pytest.mark.parametrize(
    ("name", "trusted", "reason"),
    [("other.example", True, "mismatch"), ("localhost", False, "verify failed")],
)
def test_a_wrong_certificate_is_refused(
    run: Run, authority: Authority, name: str, reason: str, *, trusted: bool
) -> None:
    """A certificate for another name, or from nobody we trust, is no connection."""

    async def main() -> None:
        context = authority.client() if trusted else ssl.create_default_context()
        async with client_of(answer(PLAIN), authority.server(name), ssl_context=context) as (client, server):
            with pytest.raises(UpstreamConnectError, match="SSLCertVerificationError") as caught:
                await fetch(client, server.url(host="localhost"))
            assert server.requests == []
            assert reason in str(caught.value.__cause__)

    run(main())


@pytest.mark.parametrize("then", ["hang", "close"])
def test_a_server_without_tls_is_no_connection(run: Run, then: str) -> None:
    """Https to a port that answers in plain text, or not at all, fails while connecting."""

    async def main() -> None:
        async def handler(peer: Peer) -> None:
            if then == "hang":
                await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                await peer.wait_until_left()

        async with client_of(handler) as (client, server):
            with pytest.raises(UpstreamConnectError):
                await client.request("GET", server.url().replace("http", "https"))

    run(main())


@cases(CUT_BODIES)
def test_a_body_cut_under_tls(run: Run, authority: Authority, sent: bytes) -> None:
    """A connection that is torn down without TLS's own goodbye is as cut as any other."""

    async def main() -> None:
        async def handler(peer: Peer) -> None:
            await peer.read_request()
            await peer.send(sent)
            await until(lambda: not peer.writer.transport.get_write_buffer_size())
            peer.cut()

        context = authority.server("127.0.0.1")
        async with client_of(handler, context, ssl_context=authority.client()) as (client, server):
            items, error = await collect(await client.request("POST", server.url()))
            assert b"".join(items) == b"ok"
            assert isinstance(error, UpstreamClosedError)

    run(main())


@pytest.mark.parametrize("sent", [[], [CHUNKED, b"2\r\nok\r\n"]])
def test_timeouts_hold_under_tls(run: Run, authority: Authority, sent: list[bytes]) -> None:
    """Silence over TLS has the same limits."""

    async def main() -> None:
        context = authority.server("127.0.0.1")
        script = answer(*sent, then="hang")
        async with client_of(script, context, ssl_context=authority.client()) as (client, server):
            with pytest.raises(UpstreamTimeoutError):
                await fetch(client, server.url(), timeouts=Timeouts(first_byte=0.5, gap=0.05))
            await until(server.peers[0].left.is_set)

    run(main())


def test_the_default_context_verifies() -> None:
    """The context made when https is first used verifies chain and name, with TLS 1.2 or newer."""

    async def main() -> None:
        client = HttpClient()
        for url in ("http://127.0.0.1:1/", "https://127.0.0.1:1/"):
            assert client._ssl_context is None
            with pytest.raises(UpstreamError):
                await client.request("GET", url)
        context = client._ssl_context
        assert context is not None
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2

    run_on(asyncio.new_event_loop, main())


def test_the_import_is_light() -> None:
    """The client adds nothing heavy to asyncio, httptools and msgspec."""
    code = (
        "import asyncio, httptools, msgspec, sys; before = set(sys.modules);"
        "import firsttoken.providers.http;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    assert set(done.stdout.split()) <= {
        "firsttoken", "firsttoken.errors", "firsttoken.providers", "firsttoken.providers.http", "math",
    }  # fmt: skip


def environment() -> dict[str, str]:
    """Return the environment of a child that imports this checkout."""
    return {"PYTHONPATH": str(Path(http.__file__).parents[2])}
