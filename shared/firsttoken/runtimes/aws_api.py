"""A client of the Lambda Runtime API: one keep-alive HTTP/1.1 connection over asyncio.

Written by hand because every millisecond of import is a millisecond of cold start. The protocol is that of
AWS's own Node.js runtime: wait for an invocation, stream its answer in chunks, end a broken one in trailers.
"""

from __future__ import annotations

import asyncio
import binascii
import traceback

import msgspec
from msgspec import Struct

_PREFIX = "/2018-06-01/runtime"
_LIMIT = 1 << 20
_ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
_ERROR_BODY = "Lambda-Runtime-Function-Error-Body"

HTTP_INTEGRATION = "application/vnd.awslambda.http-integration-response"
"""Content type of a streamed answer that starts with a prelude."""
LAST_CHUNK = b"0\r\n\r\n"


class RuntimeApiError(ConnectionError):
    """The Runtime API is gone or does not answer as agreed: this process has nothing left to do."""


class Reply(Struct, frozen=True):
    """One HTTP reply; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Invocation(Struct, frozen=True):
    """One event to answer."""

    id: str
    event: bytes
    deadline: float
    """Unix time in seconds at which Lambda stops the function; 0 if unknown."""
    trace_id: str


class RuntimeApi:
    """The connection to the Runtime API of this execution environment (``host:port``)."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def next(self) -> Invocation:
        """Wait for the next invocation, however long that takes."""
        reply = await self._get("/invocation/next")
        headers = reply.headers
        return Invocation(
            id=headers["lambda-runtime-aws-request-id"],
            event=reply.body,
            deadline=int(headers.get("lambda-runtime-deadline-ms", 0)) / 1000,
            trace_id=headers.get("lambda-runtime-trace-id", ""),
        )

    async def restored(self) -> None:
        """Offer this process for a snapshot; return after it was restored (SnapStart)."""
        await self._get("/restore/next")
        self.close()  # the other end of this connection was not part of the snapshot

    async def init_error(self, error: BaseException) -> None:
        """Report that the function could not be loaded."""
        await self._post("/init/error", error)

    async def restore_error(self, error: BaseException) -> None:
        """Report that the function could not be restored from its snapshot."""
        await self._post("/restore/error", error)

    def post_error(self, invocation_id: str, error: BaseException) -> None:
        """Start to answer an invocation by an error; the reply is to be read by `reply`."""
        self.write(self._error_request(f"/invocation/{invocation_id}/error", error))

    def post_response(self, invocation_id: str, payload: bytes) -> None:
        """Start to answer an invocation by a whole JSON payload; the reply is to be read by `reply`."""
        path = f"/invocation/{invocation_id}/response"
        self.write(
            self._head("POST", path, f"Content-Type: application/json\r\nContent-Length: {len(payload)}")
            + payload
        )

    def stream_head(self, invocation_id: str, content_type: str = HTTP_INTEGRATION) -> bytes:
        """Return the head of a streamed answer; chunks (`chunk`) and `LAST_CHUNK` or `trailers` follow."""
        return self._head(
            "POST",
            f"/invocation/{invocation_id}/response",
            f"Lambda-Runtime-Function-Response-Mode: streaming\r\nContent-Type: {content_type}\r\n"
            f"Transfer-Encoding: chunked\r\nTrailer: {_ERROR_TYPE}, {_ERROR_BODY}",
        )

    async def connect(self) -> None:
        """Open the connection unless it is open."""
        if self._writer is not None:
            return
        host, _, port = self._address.rpartition(":")
        try:
            self._reader, self._writer = await asyncio.open_connection(host, int(port), limit=_LIMIT)
        except OSError as error:
            raise RuntimeApiError(f"no connection to the Runtime API at {self._address}: {error}") from error

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    def write(self, data: bytes) -> None:
        """Send bytes of a request at once, as far as the socket takes them."""
        if self._writer is None:
            raise RuntimeApiError("the connection to the Runtime API is closed")
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait until the socket takes more."""
        if self._writer is not None:
            await self._writer.drain()

    async def reply(self) -> Reply:
        """Read one reply.

        Raises `RuntimeApiError` when the connection breaks first.
        """
        if self._reader is None:
            raise RuntimeApiError("the connection to the Runtime API is closed")
        try:
            reply = await _read_reply(self._reader)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            self.close()
            raise RuntimeApiError("the Runtime API closed the connection") from error
        if reply.headers.get("connection", "").lower() == "close":
            self.close()
        return reply

    async def _get(self, path: str) -> Reply:
        await self.connect()
        self.write(self._head("GET", path))
        reply = await self.reply()
        if reply.status != 200:
            raise RuntimeApiError(
                f"the Runtime API answered {path} with {reply.status}: {reply.body[:200]!r}"
            )
        return reply

    async def _post(self, path: str, error: BaseException) -> None:
        await self.connect()
        self.write(self._error_request(path, error))
        await self.reply()

    def _error_request(self, path: str, error: BaseException) -> bytes:
        body = error_json(error)
        fields = (
            f"{_ERROR_TYPE}: {_type(error)}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        return self._head("POST", path, fields) + body

    def _head(self, method: str, path: str, fields: str = "") -> bytes:
        separator = "\r\n" if fields else ""
        return (
            f"{method} {_PREFIX}{path} HTTP/1.1\r\nHost: {self._address}\r\n{fields}{separator}\r\n".encode(
                "latin-1"
            )
        )


def chunk(data: bytes) -> bytes:
    """Frame one non-empty piece of a streamed body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def trailers(error: BaseException) -> bytes:
    """End a streamed body by the error that broke it."""
    body = binascii.b2a_base64(error_json(error), newline=False)
    return b"0\r\n%b: %b\r\n%b: %b\r\n\r\n" % (
        _ERROR_TYPE.encode(),
        _type(error).encode(),
        _ERROR_BODY.encode(),
        body,
    )


def error_json(error: BaseException) -> bytes:
    """Return an error in Lambda's shape: message, type and stack trace."""
    return msgspec.json.encode(
        {
            "errorMessage": str(error),
            "errorType": _type(error),
            "stackTrace": traceback.format_tb(error.__traceback__),
        }
    )


def _type(error: BaseException) -> str:
    return type(error).__name__.encode("ascii", "replace").decode()


async def _read_reply(reader: asyncio.StreamReader) -> Reply:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    status = int(first.split(" ", 2)[1])
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return Reply(status, headers, await _read_chunks(reader))
    return Reply(status, headers, await reader.readexactly(int(headers.get("content-length", 0))))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    pieces = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        pieces.append((await reader.readexactly(size + 2))[:-2])
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return b"".join(pieces)
