"""One HTTP exchange over ASGI: read the body within limits, answer once, notice who leaves."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from firsttoken.errors import (
    BodyTooLargeError,
    FirstTokenError,
    MethodNotAllowedError,
    RequestError,
    UnsupportedEncodingError,
)
from firsttoken.telemetry.record import Record
from firsttoken.wire import openai_chat
from firsttoken.wire.codec import Codec, StreamWriter

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON = [(b"content-type", b"application/json")]
_DRAIN_FACTOR = 8
"""So many times the limit is read and thrown away: who is still sending can then read the refusal."""


class ClientGoneError(Exception):
    """The client went away before its request was complete: nobody is left to answer."""


class Exchange:
    """A request and the one answer to it."""

    __slots__ = (
        *("_receive", "_send", "beat", "codec", "headers", "id", "last_write"),
        *("record", "scope", "started", "status", "writer"),
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.scope = scope
        self.id = request_id
        self.headers: dict[str, str] = {
            k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]
        }
        self.started = False
        self.status = 0
        self.record = Record(id=request_id)
        self.codec: Codec = openai_chat
        """The format that the client speaks."""
        self.writer: StreamWriter | None = None
        """Writes the answer, once it is a stream."""
        self._receive = receive
        self._send = send
        self.last_write = 0.0
        self.beat: asyncio.Task[None] | None = None
        """A heartbeat that is being sent: what comes next waits for it."""

    async def body(self, limit: int) -> bytes:
        """Return the request's body. Raises BodyTooLargeError over ``limit`` bytes and ClientGoneError."""
        if self.headers.get("content-encoding", "identity") != "identity":
            raise UnsupportedEncodingError("content-encoding: expected a body that is not compressed.")
        parts: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            size += len(message.get("body", b""))
            if size <= limit:
                parts.append(message.get("body", b""))
            elif size > limit * _DRAIN_FACTOR:
                break
            more = message.get("more_body", False)
        if size > limit:
            raise BodyTooLargeError(f"The body is larger than {limit} bytes.")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def watch(self, on_gone: Callable[[], object]) -> asyncio.Task[None]:
        """Call ``on_gone`` when the client leaves.

        The caller cancels the returned task when the answer is complete.
        """

        async def wait() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            on_gone()

        return asyncio.get_running_loop().create_task(wait())

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send status and headers. They leave with the first bytes of the body."""
        self.started = True
        self.status = status
        headers = [*headers, (b"x-request-id", self.id.encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, *, waits: bool = True) -> None:
        """Send a part of the body at once."""
        if waits and self.beat is not None:
            await self.beat
        self.last_write = asyncio.get_running_loop().time()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        if self.beat is not None:
            await self.beat
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def answer(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]] = _JSON) -> None:
        """Send a whole answer."""
        await self.start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self.end(b"" if self.scope["method"] == "HEAD" else body)

    async def fail(self, error: FirstTokenError) -> None:
        """Answer with an error: as the status before the first byte, as the last event after it."""
        if self.started:
            await self.end(self.writer.error(error, self.id) if self.writer else b"")
            return
        headers = list(_JSON)
        if self.record.cache:
            headers.append((b"x-firsttoken-cache", self.record.cache.encode()))
        if error.retry_after is not None:
            headers.append((b"retry-after", str(math.ceil(error.retry_after)).encode()))
        if isinstance(error, MethodNotAllowedError):
            headers.append((b"allow", error.allow.encode()))
        if error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if isinstance(error, BodyTooLargeError | UnsupportedEncodingError):
            headers.append((b"connection", b"close"))
        await self.answer(error.status, self.codec.write_error(error, self.id), headers)


class Heartbeat:
    """Sends a comment after each ``interval`` seconds of silence, starting the answer if need be.

    Proxies close connections that are idle (Azure's after 230 s). One timer a call, none a chunk; none at all
    where ``interval`` is infinite.
    """

    def __init__(self, exchange: Exchange, interval: float, head: list[tuple[bytes, bytes]]) -> None:
        self._exchange = exchange
        self._interval = interval
        self._head = head
        self._loop = asyncio.get_running_loop()
        exchange.last_write = self._loop.time()
        self._timer = self._loop.call_later(interval, self._tick) if interval < math.inf else None

    def stop(self) -> None:
        """Send no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        exchange = self._exchange
        idle = self._loop.time() - exchange.last_write
        if idle >= self._interval and (exchange.beat is None or exchange.beat.done()):
            exchange.beat = self._loop.create_task(self._send())
            idle = 0.0
        self._timer = self._loop.call_later(max(self._interval - idle, 0.001), self._tick)

    async def _send(self) -> None:
        if not self._exchange.started:
            await self._exchange.start(200, self._head)
        await self._exchange.write(
            self._exchange.writer.heartbeat() if self._exchange.writer else b"", waits=False
        )


def header_seconds(headers: dict[str, str], name: str) -> float | None:
    """Return a header that holds seconds. Raises RequestError when it is not a positive number."""
    value = headers.get(name)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise RequestError(f"{name}: expected a positive number of seconds, got {value[:40]!r}.", param=name)
    return seconds
