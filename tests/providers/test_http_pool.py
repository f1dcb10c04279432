"""The upstream HTTP client's connections: which are used again, and which never."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref

import pytest
import uvloop

from firsttoken.errors import (
    UpstreamClosedError,
)
from firsttoken.providers import http
from firsttoken.providers.http import HttpClient, Response
from tests.providers.clients import Run, client_of, fetch, sent_all
from tests.providers.hostile import (
    CHUNKED,
    OK,
    PLAIN,
    Peer,
    answer,
    in_order,
    run_on,
    serve,
    until,
)


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
