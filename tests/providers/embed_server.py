"""A scripted provider of embeddings on a real socket, with an endpoint before it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from support import Answer, ask, make_app

from firsttoken.settings import Embedding, Timeouts

EMBEDDINGS = "/v1/embeddings"
Reply = tuple[int, dict[str, str], Any]
Script = Callable[[str, Any], Reply]


class Request:
    """What the endpoint sent."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path = path
        self.headers = headers
        self.raw = body

    @property
    def body(self) -> Any:
        """The body as JSON."""
        return json.loads(self.raw)


class Server:
    """Answers what ``script`` says to path and body; with ``together`` only when so many calls wait."""

    def __init__(self, script: Script, together: int = 0) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.active = self.peak = 0
        self.left = asyncio.Event()
        self.busy = asyncio.Event()
        self._together = together

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                request = Request(first.split(" ")[1], headers, body)
                self.requests.append(request)
                writer.write(await self._answer(request))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()

    async def _answer(self, request: Request) -> bytes:
        self.active += 1
        self.peak = max(self.peak, self.active)
        if self.active >= self._together:
            self.busy.set()
        await self.busy.wait()
        self.active -= 1
        status, headers, said = self.script(request.path, request.body)
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        lines = [f"HTTP/1.1 {status} Whatever", "content-type: application/json"]
        lines += [f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "\r\n"]).encode() + body


def embed(  # noqa: PLR0913 - each is one thing that a test varies
    script: Script,
    body: Any,
    provider: Callable[[str], Any],
    *,
    target: str = "up/m",
    headers: dict[str, str] | None = None,
    together: int = 0,
) -> tuple[Answer, Server]:
    """Put an endpoint before a scripted provider and make one call; ``provider`` gets the server's URL."""

    async def run() -> tuple[Answer, Server]:
        upstream = Server(script, together)
        server = await asyncio.start_server(upstream.handle, "127.0.0.1", 0, limit=1 << 20)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        app = make_app(
            providers={"up": provider(url)},
            models={},
            embeddings={"m": Embedding(target=target)},
            timeouts=Timeouts(first_chunk=5, gap=5),
        )
        try:
            return await ask(app, body, path=EMBEDDINGS, headers=headers), upstream
        finally:
            await app.gateway.aclose()
            server.close()

    return asyncio.run(run())


def vectors(answer: Answer) -> list[list[float]]:
    """Return the vectors of an answer, which must be in order."""
    data = answer.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return [item["embedding"] for item in data]
