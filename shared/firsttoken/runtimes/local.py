"""Serve an ASGI application on this machine with uvicorn: `firsttoken serve` and `firsttoken sim`."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from firsttoken.errors import ConfigError

if TYPE_CHECKING:
    from asyncio import Transport

KEEP_ALIVE_SECONDS = 75
DRAIN_SECONDS = 5


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


def serve(app: Any, host: str, port: int, *, ready: str = "", http: Any = "httptools") -> int:
    """Serve ``app`` until SIGINT or SIGTERM and return the exit code.

    ``ready`` is printed once calls are taken; ``{url}`` in it becomes the address.
    Port 0 takes a free one. Raises ConfigError when the address cannot be had.
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
        uvicorn.Server(config).run(sockets=[listener])
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
