"""Serve an ASGI application on this machine with uvicorn: `firsttoken serve` and `firsttoken sim`."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from firsttoken.errors import ConfigError

if TYPE_CHECKING:
    from asyncio import Transport

KEEP_ALIVE_SECONDS = 75
DRAIN_SECONDS = 5


Beside = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Work that goes on until an event is set."""


class DroppableProtocol(HttpToolsProtocol):
    """HTTP that lets the application drop its connection: ``scope["extensions"]["firsttoken.drop"]``."""

    def on_message_begin(self) -> None:
        """Offer the drop to the request that begins."""
        super().on_message_begin()
        self.scope["extensions"] = {"firsttoken.drop": cast("dict[object, object]", self._drop)}

    def _drop(self, *, reset: bool) -> None:
        self.cycle.disconnected = True  # else uvicorn reports an answer that was not completed
        transport: Transport = self.transport
        if reset:
            _send_reset_on_close(transport)
            transport.abort()
        else:
            transport.close()


def _send_reset_on_close(transport: Transport) -> None:
    # A copy of the descriptor: the loop's own socket object hides setsockopt.
    shared = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    with shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(uvicorn.Server):
    """A server with work beside it, which ends before the application does."""

    def __init__(self, config: uvicorn.Config, beside: Beside | None) -> None:
        super().__init__(config)
        self._beside = beside
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take calls, and begin with the work."""
        await super().startup(sockets)
        if self._beside is not None and not self.should_exit:
            self._task = asyncio.create_task(self._beside(self._stop))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the work and, at the same time, take no more calls."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait([self._task])
        await super().shutdown(sockets)


def serve(  # noqa: PLR0913 - what, where and how
    app: Any,
    host: str,
    port: int,
    *,
    ready: str = "",
    http: Any = "httptools",
    beside: Beside | None = None,
) -> int:
    """Serve ``app`` until SIGINT or SIGTERM and return the exit code.

    ``ready`` is printed once calls are taken; ``{url}`` in it becomes the address. ``beside`` is done in the
    same event loop until the event that it gets is set. Port 0 takes a free one. Raises ConfigError when the
    address cannot be had.
    """
    config = uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    listener = _listen(host, port)
    if ready:
        shown = f"[{host}]" if ":" in host else host
        sys.stdout.write(ready.format(url=f"http://{shown}:{listener.getsockname()[1]}") + "\n")
        sys.stdout.flush()
    with suppress(KeyboardInterrupt):  # uvicorn raises it again once it has stopped cleanly
        _Server(config, beside).run(sockets=[listener])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Listen at once: who reads the ready line may connect, and is answered as soon as the server runs."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port}: {error.strerror}; choose another address with --host and --port"
        ) from error
