"""Azure Functions on this machine: Microsoft's real Python runtime behind an emulated host.

Real: indexing, binding decode, the streaming web server (``azure-functions-runtime`` and the FastAPI
extension), and the queue service when ``AzureWebJobsStorage`` points at Azurite. Emulated: the .NET host
before them (`azure_host`) and its queue listener (`azure_queue`). Timers and Service Bus have no listener
here: `AzureEmulator.invoke` runs their functions.

All of it runs in one process, `azure_process`, which `AzureEmulator` starts.
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


class AzureEmulator(Emulator):
    """The function app in ``root``; settings that Azure calls app settings go into ``env``."""

    ready_path = "/admin/host/status"

    def command(self) -> list[str]:
        """Return the command line of the host emulation, with this interpreter."""
        options = ["--root", str(self.root), "--host", self.host, "--port", str(self.port)]
        return [sys.executable, "-m", "firsttoken.emulators.azure_process", *options]

    def invoke(self, event: Mapping[str, Any]) -> AbstractAsyncContextManager[Response]:
        """Run an event of ``events/azure``.

        ``{"trigger": "http", "method", "url", "headers", "body"}`` is sent as that request; ``{"trigger":
        "queue" | "serviceBus" | "timer", "function", "data", "metadata"}`` runs the function: 200 when it
        succeeded, else 500.
        """
        read_event(event, "trigger")
        if event["trigger"] == "http":
            read_event(event, "trigger", "method", "url")
            return self.request(event["method"], event["url"], event.get("headers"), event.get("body"))
        read_event(event, "trigger", "function", "data")
        body = {"input": event["data"], "metadata": event.get("metadata", {})}
        return self.request(
            "POST", f"/admin/functions/{event['function']}", {"content-type": "application/json"}, body
        )


async def invoke(event: Mapping[str, Any], root: Path | None = None) -> AsyncIterator[bytes]:
    """Run one event through the function that it is for, and stream the body of the answer."""
    async with (
        AzureEmulator(root=root or project() / "functions" / "azure") as emulator,
        emulator.invoke(event) as response,
    ):
        async for piece in response.chunks():
            yield piece


def serve(host: str, port: int, root: Path | None = None) -> int:
    """Serve the function app in the foreground until interrupted; return the exit status."""
    return AzureEmulator(root=root or project() / "functions" / "azure", host=host, port=port).serve(
        "Azure's runtime"
    )
