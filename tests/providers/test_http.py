"""The upstream HTTP client: what is sent, and what a good server's answer becomes."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from firsttoken.errors import (
    RequestError,
    UpstreamClosedError,
    UpstreamProtocolError,
)
from firsttoken.providers.http_request import encode_request, split_url
from tests.providers.clients import Run, client_of, collect, fetch
from tests.providers.hostile import (
    CHUNKED,
    OK,
    PLAIN,
    Peer,
    answer,
    until,
)


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
    assert split_url(url) == expected


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
        split_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("method", ["", "get", "GET /x HTTP/1.1\r\nEvil: 1\r\nX:", "G T", "GET\n", "\xc9T"])
def test_methods_cannot_inject(method: str) -> None:
    """A method is upper-case letters, nothing else."""
    with pytest.raises(RequestError, match="method"):
        encode_request(method, "/", "a.example", (), b"")


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
