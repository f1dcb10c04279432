"""Hand a Starlette request over to a plain ASGI app.

Google's functions-framework and Azure's streaming extension both give an entrypoint a Starlette request and
await the response that it returns as ``response(scope, receive, send)``. `AsgiResponse` passes these three
on, so the app reads the body, streams the answer and sees the client's disconnect exactly as under its own
server: nothing is buffered between.
"""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_FRAMEWORK_KEYS = frozenset({"app", "endpoint", "path_params", "router", "session", "state", "user"})


class AsgiResponse(Response):
    """A response that is written by an ASGI app.

    ``timeout`` is what the platform grants this call, in seconds from now; the app finds the end of it, on
    the event loop's clock, in ``scope["extensions"]["firsttoken"]["deadline"]``.
    """

    def __init__(self, app: ASGIApp, *, timeout: float | None = None) -> None:
        super().__init__()
        self._app = app
        self._deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer; the outer framework's keys in the scope are none of its business."""
        inner = {
            key: value
            for key, value in scope.items()
            if key not in _FRAMEWORK_KEYS and not key.startswith(("fastapi", "starlette"))
        }
        if self._deadline is not None:
            inner["extensions"] = {**scope.get("extensions", {}), "firsttoken": {"deadline": self._deadline}}
        await self._app(inner, receive, send)
