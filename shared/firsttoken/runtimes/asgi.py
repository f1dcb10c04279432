"""The ASGI application as a runtime sees it: its types, and its start-up and shutdown.

A runtime that calls an app itself (AWS) does what an ASGI server does around the requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from firsttoken.api.exchange import Message, Receive, Scope, Send

__all__ = ["App", "Lifespan", "LifespanError", "Message", "Receive", "Scope", "Send"]

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class LifespanError(RuntimeError):
    """The app said that its start-up failed, or broke while starting."""


class Lifespan:
    """Start an app before its first request and shut it down after the last one.

    An app that raises without asking for a lifespan message has no lifespan, and that is allowed.
    """

    def __init__(self, app: App) -> None:
        self.state: dict[str, Any] = {}
        """What the app keeps for its requests: each request's ``scope["state"]`` is a copy of it."""
        self._app = app
        self._asked = False
        self._stop = asyncio.Event()
        self._started: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Run the app's start-up.

        Raises `LifespanError` when it fails.
        """
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._task = task = asyncio.ensure_future(self._run(scope))
        either: list[asyncio.Future[Any]] = [task, self._started]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._started.done():
            failure = self._started.result()
            if failure is not None:
                raise LifespanError(failure or "the app's start-up failed")
            return
        error = task.exception()
        if error is not None and self._asked:
            raise LifespanError(f"the app's start-up broke: {type(error).__name__}: {error}") from error

    async def shutdown(self) -> None:
        """Run the app's shutdown and wait for it."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self, scope: Scope) -> None:
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._stop.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        if self._started.done():
            return
        if message["type"] == "lifespan.startup.complete":
            self._started.set_result(None)
        elif message["type"] == "lifespan.startup.failed":
            self._started.set_result(message.get("message", ""))
