"""Google Cloud Run functions on this machine: the real functions-framework, started through its own command.

Real: functions-framework, Starlette, gunicorn with uvicorn's worker. Not covered: Cloud Run's front end (its
limits of time and size, authentication of callers), Pub/Sub and Eventarc as senders; `GcpEmulator.invoke`
posts what they would.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from firsttoken.emulators import project
from firsttoken.emulators.child import Emulator, read_event
from firsttoken.providers.http import Response


class GcpEmulator(Emulator):
    """One function (``target``) of ``main.py`` in ``root``: one process takes all calls, as on Cloud Run."""

    # The framework answers this path itself, so the function is not called before somebody calls it.
    ready_path = "/robots.txt"

    def __init__(
        self,
        *,
        root: Path,
        target: str = "chat",
        env: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(root=root, env=env, host=host, port=port)
        self.target = target

    def command(self) -> list[str]:
        """Return the command line of functions-framework, with this interpreter."""
        source = str(self.root / "main.py")
        options = ["--source", source, "--target", self.target, "--host", self.host, "--port", str(self.port)]
        return [sys.executable, "-m", "functions_framework", *options]

    def invoke(self, event: Mapping[str, Any]) -> AbstractAsyncContextManager[Response]:
        """Send an event of ``events/gcp``: ``{"target", "method", "path", "headers", "body"}``."""
        read_event(event, "target", "method", "path")
        return self.request(event["method"], event["path"], event.get("headers"), event.get("body"))


async def invoke(event: Mapping[str, Any], root: Path | None = None) -> AsyncIterator[bytes]:
    """Run one event through the function that it is for, and stream the body of the answer."""
    read_event(event, "target", "method", "path")
    async with (
        GcpEmulator(root=root or project() / "functions" / "gcp", target=event["target"]) as emulator,
        emulator.invoke(event) as response,
    ):
        async for piece in response.chunks():
            yield piece


def serve(host: str, port: int, root: Path | None = None) -> int:
    """Serve the chat function in the foreground until interrupted; return the exit status."""
    return GcpEmulator(root=root or project() / "functions" / "gcp", host=host, port=port).serve(
        "Google's functions-framework"
    )
