"""A fake of Cloud Storage's JSON API: one bucket in memory, media uploads, downloads and deletes.

As documented: names are percent-encoded in the path, a missing object is a 404, a deleted one a 204, and
a name has 1 to 1024 bytes of UTF-8 without line breaks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, unquote, urlsplit

from firsttoken.emulators.http11 import Request, response, start_server, stop_server

LIMIT = 64 * 1024 * 1024


class FakeGcs:
    """The bucket named ``bucket``. ``failures`` are statuses that the next requests get instead."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}
        self.failures: list[int] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeGcs]:
        connections: set[asyncio.Task[None]] = set()
        server = await start_server(self._answer, "127.0.0.1", 0, connections)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            await stop_server(server, connections)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        body = await request.read(LIMIT) or b""
        self.seen.append((request.method, request.target, request.headers))
        if self.failures:
            writer.write(_error(self.failures.pop(0), "failed as told"))
        else:
            writer.write(self._served(request, body))
        await writer.drain()
        return True

    def _served(self, request: Request, body: bytes) -> bytes:
        parts = urlsplit(request.target)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if parts.path == f"/upload/storage/v1/b/{self.bucket}/o" and request.method == "POST":
            return self._upload(query, body)
        base = f"/storage/v1/b/{self.bucket}/o/"
        if not parts.path.startswith(base) or "/" in parts.path.removeprefix(base):
            return _error(404, "Not Found")
        name = unquote(parts.path.removeprefix(base), errors="strict")
        if name not in self.objects:
            return _error(404, f"No such object: {self.bucket}/{name}")
        if request.method == "DELETE":
            del self.objects[name]
            return response(204, b"")
        if request.method == "GET" and query.get("alt") == "media":
            return response(200, self.objects[name], "application/octet-stream")
        return _error(400, "expected alt=media")

    def _upload(self, query: dict[str, str], body: bytes) -> bytes:
        name = query.get("name", "")
        if (
            query.get("uploadType") != "media"
            or not 1 <= len(name.encode()) <= 1024
            or {"\r", "\n"} & {*name}
        ):
            return _error(400, "Invalid argument.")
        self.objects[name] = body
        return response(200, json.dumps({"kind": "storage#object", "name": name}).encode())


def _error(status: int, message: str) -> bytes:
    return response(status, json.dumps({"error": {"code": status, "message": message}}).encode())
