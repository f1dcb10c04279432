"""A fake of Gemini's API with ``cachedContents``, as it is documented; every answer is made up.

Source: Gemini API reference and guide, "Context caching": a cache has at least 4,096 tokens, lives for its
``ttl`` from the latest create or patch, and is not found after that; a request that names one must not bring
instructions, tools or a tool configuration of its own. The service says 403 of a cache that is gone, where
the guide says 404: the fake can do both. A token is four characters.
"""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self, cast

MINIMUM = 4096


class Gemini:
    """Serves while it is entered. ``now`` is the service's clock, in seconds."""

    def __init__(self, *, gone: int = 404, implicit: bool = False) -> None:
        self.now = 1_000_000.0
        self.gone = gone
        self.implicit = implicit
        self.refuse: int = 0
        """A status with which new caches are refused."""
        self.caches: dict[str, tuple[float, Any]] = {}
        self.log: list[tuple[str, str, Any]] = []
        self.url = ""
        self._handlers: set[asyncio.Task[None]] = set()

    def count(self, method: str, path: str) -> int:
        """How many requests came whose path has ``path`` in it."""
        return sum(1 for m, p, _ in self.log if m == method and path in p)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1beta"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=5)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._handlers.add(cast("asyncio.Task[None]", asyncio.current_task()))
        try:
            while True:
                line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                raw = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = line.split(" ")
                assert headers["x-goog-api-key"] == "secret"
                body = json.loads(raw) if raw else None
                self.log.append((method, path, body))
                status, said = self._answer(method, path, body)
                text = json.dumps(said).encode()
                head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
                writer.write(f"{head}content-length: {len(text)}\r\n\r\n".encode() + text)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        name = path.removeprefix("/v1beta/")
        if method == "POST" and name == "cachedContents":
            return self._create(body)
        if method == "POST":
            return self._generate(body)
        if name not in self.caches or self.caches[name][0] <= self.now:
            return self._missing()
        if method == "DELETE":
            del self.caches[name]
            return 200, {}
        self.caches[name] = (self.now + float(body["ttl"][:-1]), self.caches[name][1])
        return 200, {"name": name}

    def _create(self, body: Any) -> tuple[int, Any]:
        if self.refuse:
            return self.refuse, _error(self.refuse, "INVALID_ARGUMENT", "no caches for this model")
        assert set(body) <= {"model", "ttl", "systemInstruction", "tools", "toolConfig", "contents"}
        tokens = _tokens({name: value for name, value in body.items() if name not in ("model", "ttl")})
        if tokens < MINIMUM:
            message = f"Cached content is too small. total_token_count={tokens}"
            return 400, _error(400, "INVALID_ARGUMENT", message)
        name = f"cachedContents/c{len(self.log)}"
        self.caches[name] = (self.now + float(body["ttl"][:-1]), body)
        return 200, {"name": name, "model": body["model"], "usageMetadata": {"totalTokenCount": tokens}}

    def _generate(self, body: Any) -> tuple[int, Any]:
        cached, name = 0, body.get("cachedContent")
        if name is not None:
            if {"systemInstruction", "tools", "toolConfig"} & set(body):
                message = "CachedContent can not be used with GenerateContent request setting these"
                return 400, _error(400, "INVALID_ARGUMENT", message)
            until, held = self.caches.get(name, (0.0, None))
            if until <= self.now:
                return self._missing()
            cached = _tokens({key: value for key, value in held.items() if key not in ("model", "ttl")})
        used = cached + _tokens(body["contents"])
        if name is None:
            used += _tokens(body.get("systemInstruction", ""))
            cached = used if self.implicit else 0
        usage = {"promptTokenCount": used, "candidatesTokenCount": 1, "cachedContentTokenCount": cached}
        said = {"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "STOP"}
        return 200, {"candidates": [said], "usageMetadata": usage, "modelVersion": "m"}

    def _missing(self) -> tuple[int, Any]:
        word = "NOT_FOUND" if self.gone == 404 else "PERMISSION_DENIED"
        return self.gone, _error(self.gone, word, "CachedContent not found (or permission denied)")


def _tokens(value: Any) -> int:
    return len(json.dumps(value)) // 4


def _error(code: int, status: str, message: str) -> Any:
    return {"error": {"code": code, "status": status, "message": message}}
