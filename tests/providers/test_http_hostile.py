"""The upstream HTTP client against broken and hostile servers: what must not pass."""

from __future__ import annotations

import asyncio
import itertools
import re

import pytest

from firsttoken.errors import (
    UpstreamClosedError,
    UpstreamProtocolError,
)
from firsttoken.providers.http import Timeouts
from firsttoken.providers.http_request import split_url
from tests.providers.clients import Run, cases, client_of, collect, fetch
from tests.providers.hostile import (
    BROKEN_BODIES,
    CUT_BODIES,
    NOT_HTTP,
    OK,
    PLAIN,
    Peer,
    answer,
    until,
)


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
            connection = await client._connect(split_url(server.url())[0], 5.0, float("inf"))
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
