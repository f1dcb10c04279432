"""A server that answers every request with the same bytes, and the events that answers are made of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

DONE = b"data: [DONE]\n\n"


def event(text: str | None = None, finish: str | None = None, **fields: Any) -> bytes:
    choices = [{"delta": {"content": text}, "finish_reason": finish}]
    return b"data: " + json.dumps({"model": "m", "choices": choices, **fields}).encode() + b"\n\n"


def answer(
    body: bytes, *, status: int = 200, whole: bool = True, headers: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """A response; one that is not ``whole`` promises a byte more than it has."""
    length = len(body) + (not whole)
    lines = [f"HTTP/1.1 {status} X", f"content-length: {length}", *(f"{k}: {v}" for k, v in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def serving(response: bytes, wait: float = 0.0) -> AsyncIterator[str]:
    """Serve ``response``, each after ``wait`` seconds, and close; yield the URL."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            start = head.index(b"content-length:") + 15
            await reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
            await asyncio.sleep(wait)
            writer.write(response)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
