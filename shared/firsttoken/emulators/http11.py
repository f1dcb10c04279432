"""Just enough of an HTTP/1.1 server for the AWS emulator: streamed request bodies and trailers, over asyncio.

Written here because the Runtime API needs request trailers, which no ASGI server hands over. It serves this
machine only and reads what well-behaved clients send; anything else ends the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from http import HTTPStatus

LIMIT = 1 << 18
LAST_CHUNK = b"0\r\n\r\n"


class BrokenRequestError(Exception):
    """The other side broke the connection or does not speak HTTP/1.1."""


class Request:
    """One request; ``trailers`` are filled in when a chunked body has been read to its end."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        self.method, self.target, self.version = first.split(" ")
        self.header_list = _fields(lines)
        self.headers = dict(self.header_list)
        self.trailers: dict[str, str] = {}
        self._reader = reader
        self._writer = writer
        self._consumed = False

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may carry another request."""
        return self.headers.get("connection", "").lower() != "close" and self.version == "HTTP/1.1"

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; yield nothing the second time.

        Raises `BrokenRequestError` when it ends too early.
        """
        if self._consumed:
            return
        self._consumed = True
        if self.headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                async for piece in self._chunks():
                    yield piece
                return
            left = int(self.headers.get("content-length", 0))
            while left:
                piece = await self._reader.readexactly(min(left, LIMIT))
                left -= len(piece)
                yield piece
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise BrokenRequestError from error

    async def read(self, limit: int) -> bytes | None:
        """Return the whole body, or None (without reading further) when it is longer than ``limit`` bytes."""
        if int(self.headers.get("content-length", 0)) > limit:
            return None
        pieces, size = [], 0
        async for piece in self.body():
            size += len(piece)
            if size > limit:
                return None
            pieces.append(piece)
        return b"".join(pieces)

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        lines = []
        while (line := await self._reader.readuntil(b"\r\n")) != b"\r\n":
            lines.append(line[:-2].decode("latin-1"))
        self.trailers = dict(_fields(lines))


Handler = Callable[[Request, asyncio.StreamWriter], Awaitable[bool]]
"""Answers one request; returns whether the connection may carry another."""


async def serve_connection(
    handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve the requests of one connection, one after the other, until either side ends it."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            try:
                request = Request(head, reader, writer)
            except ValueError:
                writer.write(response(400, b'{"message":"Bad Request"}', Connection="close"))
                break
            if not await handler(request, writer) or not request.keep_alive:
                break
            async for _ in request.body():  # what the handler left unread stands before the next request
                pass
    except (OSError, EOFError, ValueError, BrokenRequestError, asyncio.LimitOverrunError):
        pass  # nobody is left to answer to
    finally:
        writer.close()


async def start_server(
    handler: Handler, host: str, port: int, connections: set[asyncio.Task[None]]
) -> asyncio.Server:
    """Listen; each connection is a task in ``connections`` for the caller to cancel at the end."""

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve_connection(handler, reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    return await asyncio.start_server(connected, host, port, limit=LIMIT)


async def stop_server(server: asyncio.Server | None, connections: set[asyncio.Task[None]]) -> None:
    """Stop listening and end every connection."""
    if server is not None:
        server.close()
    for task in list(connections):
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*connections, return_exceptions=True)


def head(status: int, fields: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a response."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {status} {phrase}\r\n{lines}\r\n".encode("latin-1", "replace")


def response(status: int, body: bytes, content_type: str = "application/json", **fields: str) -> bytes:
    """Return a whole response; underscores in the names of ``fields`` stand for hyphens."""
    extra = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return head(status, [("Content-Type", content_type), ("Content-Length", str(len(body))), *extra]) + body


def _fields(lines: Iterable[str]) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in lines)
    return [(name.lower(), value.strip()) for name, _, value in pairs]
