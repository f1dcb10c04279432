"""HTTP to a provider's batch API: requests with its key, and files that are read line by line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from msgspec import Struct

from firsttoken.errors import UpstreamProtocolError
from firsttoken.providers.http import HttpClient, Response, Timeouts
from firsttoken.wire.codec import Codec

SECONDS = 120.0
"""For one request, with what is uploaded and downloaded by it."""
MAX_ANSWER = 16 * 1024 * 1024
MAX_ERROR = 64 * 1024
MAX_LINE = 32 * 1024 * 1024
"""Bytes of one line of a file: a request and its answer."""
_TIMEOUTS = Timeouts(connect=5.0, first_byte=SECONDS, gap=30.0)
Headers = list[tuple[str, str]]
Sign = Callable[[str, str, Headers, bytes], Awaitable[Headers]]
"""Adds a key, a token or a signature to the headers of a request: method, URL, headers, body."""


class Answer(Struct, frozen=True):
    """The answer to a request that succeeded."""

    headers: dict[str, str]
    body: bytes


class Link:
    """Requests to one service. Failures are raised as ``codec`` understands them, or as they come.

    Memory: a request, or an answer of up to `MAX_ANSWER`, or a line of up to `MAX_LINE`.
    """

    def __init__(self, client: HttpClient, codec: Codec, sign: Sign, headers: Headers | None = None) -> None:
        self._client = client
        self._codec = codec
        self._sign = sign
        self._headers = headers or []

    async def ask(
        self, method: str, url: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()
    ) -> Answer:
        """Send a request and return its answer. Raises UpstreamError and its kinds, and DeadlineError."""
        response = await self._open(method, url, body, headers)
        try:
            return Answer(response.headers, await response.read(MAX_ANSWER))
        finally:
            response.close()

    async def lines(self, url: str) -> AsyncGenerator[bytes]:
        """Yield the lines of a file that are not empty. Raises as `ask`."""
        response = await self._open("GET", url, b"", ())
        rest, size = [b""], 0
        try:
            async for piece in response.chunks():
                head, newline, tail = piece.rpartition(b"\n")
                if newline:
                    for line in b"".join([*rest, head]).split(b"\n"):
                        if line.strip():
                            yield line
                    rest, size = [], 0
                rest.append(tail)
                size += len(tail)
                if size > MAX_LINE:
                    raise UpstreamProtocolError(f"A line of the target's file exceeds {MAX_LINE} bytes.")
        finally:
            response.close()
        if (line := b"".join(rest)).strip():
            yield line

    async def _open(self, method: str, url: str, body: bytes, headers: Sequence[tuple[str, str]]) -> Response:
        sent = await self._sign(method, url, [*self._headers, *headers], body)
        deadline = asyncio.get_running_loop().time() + SECONDS
        response = await self._client.request(
            method, url, headers=sent, body=body, timeouts=_TIMEOUTS, deadline=deadline
        )
        if 200 <= response.status < 300:
            return response
        try:
            said = await response.read(MAX_ERROR)
        finally:
            response.close()
        raise self._codec.error_from(response.status, response.headers, said)
