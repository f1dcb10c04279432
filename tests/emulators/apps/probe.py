"""A small ASGI app whose paths show what reaches an app behind an emulator, and what reaches the client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

MESSAGES: list[dict[str, Any]] = []
opened = asyncio.Event()
disconnected = asyncio.Event()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer by path; an unknown path echoes the request."""
    await ANSWERS.get(scope["path"], echo)(scope, receive, send)


async def start(send: Any, status: int = 200) -> None:
    """Send the head."""
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]}
    )


async def finish(send: Any, body: bytes) -> None:
    """Send a whole answer."""
    await start(send)
    await send({"type": "http.response.body", "body": body})


async def gated(_scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """Send a chunk, and the second one only when somebody asked for /open."""
    await start(send)
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    await opened.wait()
    await send({"type": "http.response.body", "body": b"two"})


async def let_go(_scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """Let /gated go on."""
    opened.set()
    await finish(send, b"opened")


async def hang(_scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send a chunk, then nothing until the client leaves."""
    await start(send)
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
    disconnected.set()


async def gone(_scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """Answer once the client of /hang has left."""
    await disconnected.wait()
    await finish(send, b"gone")


async def fail(_scope: dict[str, Any], _receive: Any, _send: Any) -> None:
    """Break before the first byte."""
    message = "before the first byte"
    raise RuntimeError(message)


async def cut(_scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """Break after the first byte."""
    await start(send)
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    message = "after the first byte"
    raise RuntimeError(message)


async def messages(_scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """Answer with the calls that the other functions noted."""
    await finish(send, json.dumps(MESSAGES).encode())


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with the request as it arrived."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    seen = {
        "method": scope["method"],
        "path": scope["path"],
        "root_path": scope.get("root_path", ""),
        "query": scope["query_string"].decode(),
        "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
        "body": body.decode(),
        "extensions": scope.get("extensions", {}),
    }
    await finish(send, json.dumps(seen).encode())


ANSWERS = {
    "/gated": gated,
    "/open": let_go,
    "/hang": hang,
    "/gone": gone,
    "/fail": fail,
    "/cut": cut,
    "/messages": messages,
}
