"""The upstream HTTP client's limits: time, cancellation, slow readers."""

from __future__ import annotations

import asyncio
import gc
import itertools

import pytest

from firsttoken.errors import (
    DeadlineError,
    UpstreamClosedError,
    UpstreamTimeoutError,
)
from firsttoken.providers import http
from firsttoken.providers.http import Timeouts
from tests.providers.clients import SHORT, Run, client_of, collect, fetch
from tests.providers.hostile import (
    CHUNKED,
    OK,
    PLAIN,
    Authority,
    Peer,
    answer,
    until,
)


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
