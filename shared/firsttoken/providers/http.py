"""The one HTTP/1.1 client behind all providers: pooled, kept alive and sparing with CPU (docs/adr/0002).

`HttpClient` is the pool, a `_Connection` one socket with its parser, a `Response` what the caller reads.
Nothing runs per chunk but the parser and one wake-up of the reader: no task, no timer, no lock.

A request that dies on a *reused* connection before a byte of the answer came is sent once more, on a new one:
an instance that was frozen wakes up with dead sockets in its pool. Nothing else is ever sent twice.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from math import inf
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from msgspec import Struct

from firsttoken.errors import (
    DeadlineError,
    UpstreamClosedError,
    UpstreamConnectError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from firsttoken.providers.http_request import Origin, encode_request, split_url

MAX_BUFFERED = 256 * 1024  # bytes that wait for a slow reader before the socket is left unread
MAX_OVERHEAD = 64 * 1024  # bytes of all headers; also bytes in a row that bring no body (chunk extensions)
MAX_LINES = 128  # status and header lines of one answer: informational responses and trailers count
MAX_LENGTH_DIGITS = 15  # of a Content-Length: beyond that, readers differ in what it overflows to
UNACKNOWLEDGED_MS = 20_000  # TCP gives up on a peer that vanished without a word
_NO_TIME = "the time for this call is used up"
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class Timeouts(Struct, frozen=True):
    """Limits in seconds.

    ``connect`` ends when the connection (with TLS) stands, ``first_byte`` runs from sending the request until
    the head of the response is there, ``gap`` is any silence after that while the reader waits for the body.
    """

    connect: float = 5.0
    first_byte: float = 60.0
    gap: float = 30.0


class HttpClient:
    """A pool of kept-alive connections; share one per process. Not for several threads at once."""

    def __init__(
        self,
        *,
        max_idle: int = 64,
        idle_seconds: float = 50.0,
        ssl_context: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        """``resolve`` says which addresses a host is connected to; without it the system's resolver does."""
        self._resolve = resolve
        self._max_idle = max_idle
        self._idle_seconds = idle_seconds
        self._ssl_context = ssl_context
        self._idle: list[_Connection] = []  # the one used last comes last
        self._loop: asyncio.AbstractEventLoop | None = None

    async def request(  # noqa: PLR0913 - the parts of a request
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - immutable
        deadline: float | None = None,
    ) -> Response:
        """Send a request and return once the head of the response is there; redirects are not followed.

        ``deadline`` is a time of the running loop's clock and wins over every other limit. Raises a
        `RequestError` for a URL or a header that cannot be sent, a `DeadlineError` or an `UpstreamError`.
        """
        origin, authority, path = split_url(url)
        wire = encode_request(method, path, authority, headers, body)
        until = inf if deadline is None else deadline
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._idle = loop, []  # sockets are of no use but to the loop that opened them
        if loop.time() >= until:
            raise DeadlineError(_NO_TIME)
        if (connection := self._take(origin)) is not None:
            try:
                return await connection.exchange(method, wire, timeouts, until)
            except UpstreamClosedError:
                if connection.answered:
                    raise
        connection = await self._connect(origin, timeouts.connect, until)
        return await connection.exchange(method, wire, timeouts, until)

    async def aclose(self) -> None:
        """Close what is idle; a response that is still being read keeps its connection until it ends."""
        self._max_idle = 0
        while self._idle:
            self._idle.pop().abort()
        await asyncio.sleep(0)  # the loop closes the sockets in its next turn

    def _take(self, origin: Origin) -> _Connection | None:
        for connection in reversed(self._idle):  # the one used last is the least likely to be closed
            if connection.origin == origin:
                self._idle.remove(connection)
                if connection.is_usable(self._idle_seconds):
                    return connection
                connection.abort()
        return None

    def _keep(self, connection: _Connection) -> None:
        """Pool a connection whose exchange ended cleanly; what is idle too long, or too many, goes."""
        self._idle.append(connection)
        oldest = connection.idle_since - self._idle_seconds
        while self._idle and (len(self._idle) > self._max_idle or self._idle[0].idle_since < oldest):
            self._idle.pop(0).abort()

    async def _connect(self, origin: Origin, limit: float, deadline: float) -> _Connection:
        loop = asyncio.get_running_loop()
        scheme, host, port = origin
        if scheme == "https" and self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()  # verifies chain and name
            self._ssl_context.minimum_version = ssl.TLSVersion.TLSv1_2
        tls = self._ssl_context if scheme == "https" else None
        at = loop.time() + limit
        try:
            async with asyncio.timeout_at(min(at, deadline)) as timeout:
                connection = await self._open(origin, tls)
        except (OSError, UnicodeError) as error:
            if not timeout.expired():
                error.add_note(f"upstream {host}:{port}")  # where it is, is for the log, not for the client
                raise UpstreamConnectError(f"cannot connect to the target: {type(error).__name__}") from error
            if deadline <= at:
                raise DeadlineError(_NO_TIME) from None
            raise UpstreamTimeoutError(f"no connection to the target in {limit:g} s (connect)") from None
        return connection

    async def _open(self, origin: Origin, tls: ssl.SSLContext | None) -> _Connection:
        """Connect to the first address of the origin that takes it. Raises OSError, UnicodeError."""
        loop = asyncio.get_running_loop()
        host, port = origin[1].strip("[]"), origin[2]
        name = host if tls else None
        refused: OSError | None = None
        for address in await self._resolve(host, port) if self._resolve else [host]:
            try:
                _, connection = await loop.create_connection(
                    lambda: _Connection(origin, self._keep), address, port, ssl=tls, server_hostname=name
                )
            except OSError as error:
                refused = error
            else:
                return connection
        raise refused or OSError("the host has no address")


class Response:
    """The answer to one request: the body arrives while it is read, once. Names of headers are lower-case."""

    def __init__(self, connection: _Connection) -> None:
        self._connection: _Connection | None = connection
        self.status: int = connection.status
        self.headers: dict[str, str] = connection.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """Stream the body: each item is all that arrived since the last turn of the loop, never empty.

        Raises an `UpstreamClosedError` when the body was cut, another `UpstreamError` or a `DeadlineError`,
        always after what had arrived before. Leaving early closes the connection.
        """
        try:
            while data := await self._next():
                yield data
        finally:
            self.close()

    async def read(self, max_bytes: int) -> bytes:
        """Read the whole body; raises as `chunks`, and an `UpstreamProtocolError` above ``max_bytes``."""
        body = bytearray()
        try:
            while len(body) <= max_bytes and (data := await self._next()):
                body += data
        finally:
            self.close()
        if len(body) > max_bytes:
            raise UpstreamProtocolError(f"the body of the upstream's answer exceeds {max_bytes} bytes")
        return bytes(body)

    async def _next(self) -> bytes:
        if self._connection is None:
            raise UpstreamClosedError("the upstream's answer was closed, or read before")
        return await self._connection.read()

    def close(self) -> None:
        """Abort the connection at once when the body is incomplete, pool it otherwise; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    # A response that nobody holds (its task was cancelled just as it was done) must not keep a socket open.
    __del__ = close


class _Connection(asyncio.Protocol):
    """One socket with one exchange at a time: the reader on one side, the parser's callbacks on the other."""

    def __init__(self, origin: Origin, keep: Callable[[_Connection], None]) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self._note = f"upstream {origin[1]}:{origin[2]}"
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._poll: Callable[[float], object] = lambda _timeout: None
        self._error: Exception | None = None  # no connection survives its first error
        self._parser: HttpResponseParser | None = None  # while there is an exchange
        self._waiter: asyncio.Future[None] | None = None
        self._complete = self._until_eof = False

    async def exchange(self, method: str, wire: bytes, timeouts: Timeouts, deadline: float) -> Response:
        """Send a request, head and body in one write, and wait for the head of the response."""
        self.status = 0  # until the head is complete
        self.headers: dict[str, str] = {}
        self.answered = self._complete = self._reusable = self._until_eof = False
        self._is_head_request = method == "HEAD"
        self._buffered = self._overhead = self._head_bytes = self._lines = 0
        self._body: list[bytes] = []
        self.on_body = self._body.append  # the cheapest callback for what is called most
        self._parser = HttpResponseParser(self)
        self._timeouts, self._deadline = timeouts, deadline
        self._timer: asyncio.Handle = self._loop.call_soon(self._watch)
        try:
            if self._error is None:
                self.transport.write(wire)
            while not self.status:
                await self._wait()
        except BaseException:
            self.release()
            raise
        return Response(self)

    async def read(self) -> bytes:
        """Return what has arrived, waiting for it if need be; b"" at the end of the body."""
        while not self._body:
            if self._complete:
                return b""
            await self._wait()
        data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        if self._buffered > MAX_BUFFERED:
            self.transport.resume_reading()
        self._buffered = 0
        return data

    def release(self) -> None:
        """End the exchange: back to the pool after a complete response, closed otherwise."""
        self._parser = None  # it refers to this object: without the cycle, nothing waits for the collector
        self._timer.cancel()
        # A server that answers early (413) leaves part of the request unsent: nothing may follow that.
        if self._complete and self._reusable and not self.transport.get_write_buffer_size():
            self.idle_since = self._loop.time()
            self._keep(self)
        else:
            self.abort(UpstreamClosedError("the answer was closed by its reader"))

    def abort(self, error: Exception | None = None) -> None:
        """Close the socket at once; a reader gets the first error that was given, after what had arrived."""
        self._error = self._error or error
        self._wake()
        if not self._loop.is_closed():
            self.transport.abort()

    def is_usable(self, idle_seconds: float) -> bool:
        """Whether it is young and has nothing to read: neither stray bytes nor the other side's end."""
        young = self._loop.time() - self.idle_since <= idle_seconds
        return young and not self.transport.is_closing() and not self._poll(0)

    async def _wait(self) -> None:
        if self._error is not None:
            self._error.add_note(self._note)
            raise self._error
        self._waiting_since = self._loop.time()
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None

    def _watch(self) -> None:
        """Compare timestamps: one timer per exchange, set to when a limit can be reached at the earliest."""
        now, gap = self._loop.time(), self._timeouts.gap
        limit, phase = (gap, "gap") if self.status else (self._timeouts.first_byte, "first byte")
        late = inf if self._waiter is None else self._waiting_since + limit
        if now >= self._deadline:
            self.abort(DeadlineError(_NO_TIME))
        elif now >= late:
            self.abort(UpstreamTimeoutError(f"the target sent nothing for {limit:g} s ({phase})"))
        else:
            at = min(late, now + gap, self._deadline)  # a reader that comes later has its whole gap
            self._timer = self._loop.call_at(at, self._watch)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if sys.platform == "linux":  # what functions run on; elsewhere only the one retry covers dead sockets
            connection, poll = transport.get_extra_info("socket"), select.poll()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
            poll.register(connection.fileno(), select.POLLIN)
            self._poll = poll.poll

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._complete or not (self.answered or data.startswith(b"H")):
            # The parser would also take RTSP, ICE and empty lines for the beginning of an answer.
            self.abort(UpstreamProtocolError("the target sent bytes that do not answer a request"))
            return
        self.answered = True
        had_head, parts = self.status, len(self._body)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._reusable = False
            if not self._complete:
                # What a callback raised arrives as the context of the parser's own error.
                cause = error.__context__ if isinstance(error.__context__, UpstreamProtocolError) else error
                self.abort(UpstreamProtocolError(f"the target does not speak HTTP as it should: {cause}"))
                return
        self._buffered += len(data)
        self._overhead = 0 if len(self._body) > parts else self._overhead + len(data)
        if self._overhead > MAX_OVERHEAD:
            self.abort(UpstreamProtocolError(f"the target sent {self._overhead} bytes that are no body"))
        elif self._buffered > MAX_BUFFERED and not self._complete:
            self.transport.pause_reading()
        if self._body or self._complete or self.status != had_head:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._complete |= self._until_eof and exc is None and self._error is None
        self.abort(UpstreamClosedError(f"the target closed before its answer ended: {exc or EOFError()!r}"))

    # The parser has checked syntax and lengths; what it lets through but must not pass fails here.

    def on_message_begin(self) -> None:
        if self._complete:
            raise UpstreamProtocolError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name, value)
        if not self.status:  # otherwise a trailer: it must not change what the head said
            key, text = name.decode("latin-1").lower(), value.decode("latin-1").rstrip(" \t")
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        parser = cast("HttpResponseParser", self._parser)
        status, version = parser.get_status_code(), parser.get_http_version()
        coding, length = self.headers.get("transfer-encoding"), self.headers.get("content-length")
        if version not in {"1.0", "1.1"} or not 100 <= status <= 599:
            raise UpstreamProtocolError(f"HTTP version {version} with status {status}")
        if coding is not None and (coding.lower() != "chunked" or version == "1.0"):
            raise UpstreamProtocolError("a transfer-encoding other than chunked over HTTP/1.1")
        if length is not None and len(length) > MAX_LENGTH_DIGITS:
            raise UpstreamProtocolError("a content-length beyond reason")
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise UpstreamProtocolError("a compressed body, although only identity was accepted")
        if status < 200:
            self._count()
            self.headers.clear()
            return
        self.status = status
        self._reusable = parser.should_keep_alive()
        self._until_eof = coding is None and length is None
        if self._is_head_request:
            self._complete = True
            raise UpstreamProtocolError("the parser knows nothing of HEAD and would wait for a body")

    def on_message_complete(self) -> None:
        self._complete = self.status > 0

    def _count(self, *parts: bytes) -> None:
        self._lines += 1
        self._head_bytes += sum(map(len, parts))
        if self._lines > MAX_LINES or self._head_bytes > MAX_OVERHEAD:
            raise UpstreamProtocolError(f"a head of more than {MAX_LINES} lines or {MAX_OVERHEAD} bytes")

    on_status = _count
