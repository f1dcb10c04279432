"""A simulated upstream in this process that notes when each call came, and fails as it is told."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

_EVENT = b'data: {"id":"c","model":"simulated","choices":[{"index":0,"delta":{"content":"Fine."}}]}\n\n'
_LAST = (
    b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\ndata: [DONE]\n\n'
)
_ERROR = b'{"error":{"message":"simulated","type":"server_error"}}'


class Upstream:
    """An OpenAI-compatible server. ``status`` other than 200 refuses, with ``retry_after`` seconds."""

    def __init__(self, status: int = 200, retry_after: int | None = None) -> None:
        self.status = status
        self.retry_after = retry_after
        self.times: list[float] = []
        """When each call came, on the loop's clock."""
        self.url = ""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and hang up."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                start = head.index(b"content-length:") + 15
                await reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
                self.times.append(asyncio.get_running_loop().time())
                writer.write(self._answer())
                await writer.drain()
        writer.close()
        self._writers.discard(writer)

    def _answer(self) -> bytes:
        body, kind = (
            (_EVENT + _LAST, "text/event-stream") if self.status == 200 else (_ERROR, "application/json")
        )
        wait = "" if self.retry_after is None else f"retry-after: {self.retry_after}\r\n"
        head = (
            f"HTTP/1.1 {self.status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{wait}\r\n"
        )
        return head.encode() + body
