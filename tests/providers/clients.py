"""What the tests of the HTTP client share: a client of a scripted server, and ways to read an answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from firsttoken.errors import (
    FirstTokenError,
)
from firsttoken.providers.http import HttpClient, Response, Timeouts
from tests.providers.hostile import (
    Handler,
    Server,
    serve,
    until,
)

Run = Callable[[Coroutine[Any, Any, None]], None]

SHORT = Timeouts(connect=0.05, first_byte=0.05, gap=0.05)


@asynccontextmanager
async def client_of(handler: Handler, tls: ssl.SSLContext | None = None, **options: Any):
    """Serve a script to a client of its own; nothing may be left open by either."""
    async with serve(handler, tls) as server:
        client = HttpClient(**options)
        try:
            yield client, server
        finally:
            await client.aclose()
        for peer in server.peers:
            await until(peer.left.is_set)


async def fetch(client: HttpClient, url: str, method: str = "POST", **options: Any) -> tuple[int, bytes]:
    """Send a request and read the answer."""
    response = await client.request(method, url, **options)
    return response.status, await response.read(1 << 24)


async def collect(response: Response) -> tuple[list[bytes], FirstTokenError | None]:
    """Read the chunks until the end or the error."""
    items = []
    try:
        async for data in response.chunks():
            items.append(data)  # noqa: PERF401 - what came before the error counts
    except FirstTokenError as error:
        return items, error
    return items, None


async def sent_all(server: Server) -> None:
    """Wait until the scripts ask for the next request, and for what they sent to arrive."""
    await until(lambda: all(peer.waiting or peer.left.is_set() for peer in server.peers))
    for _ in range(3):
        await asyncio.sleep(0)


def cases(table: dict[str, bytes]) -> pytest.MarkDecorator:
    """Parametrise with a table whose keys are names."""
    return pytest.mark.parametrize("sent", list(table.values()), ids=list(table))
