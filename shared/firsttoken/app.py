"""The HTTP side: one plain ASGI application for every runtime."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Callable

import msgspec

from firsttoken.api import routes
from firsttoken.api.exchange import ClientGoneError, Exchange, Receive, Scope, Send
from firsttoken.auth import Keys
from firsttoken.errors import FirstTokenError, InternalError
from firsttoken.gateway import Gateway, create_gateway
from firsttoken.settings import Settings
from firsttoken.telemetry.record import Record
from firsttoken.wire import codec_of

SETTLE_SECONDS = 0.25
"""What a function waits, once it has answered, for what it still tells the store: then it may be frozen."""


class App:
    """Routes requests to the endpoints, authenticates them, and turns every failure into an answer."""

    def __init__(
        self, gateway: Gateway, *, deployed: bool, log: Callable[[Record], None] | None = None
    ) -> None:
        self.gateway = gateway
        self._deployed = deployed
        self._keys = Keys(gateway.settings.auth, deployed=deployed)
        self._log = log or (_print if gateway.settings.server.log else lambda _: None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection: HTTP or lifespan."""
        if scope["type"] == "http":
            await self._http(Exchange(scope, receive, send, f"req_{os.urandom(12).hex()}"))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        record = exchange.record
        record.started = loop.time()
        self.gateway.board.refresh()  # beside what comes now: nobody waits for it
        try:
            await self._route(exchange)
        except ClientGoneError:
            record.disconnected = True
        except FirstTokenError as error:
            await self._fail(exchange, error)
        except Exception:  # noqa: BLE001 - the outermost handler: a defect of ours must still be answered
            traceback.print_exc()
            message = f"Something went wrong here. Please report the request id {exchange.id}."
            await self._fail(exchange, InternalError(message))
        finally:
            if record.model or record.error:
                record.status = exchange.status
                record.finished = loop.time()
                if record.cache:
                    counts = self.gateway.answered
                    counts[record.cache] = counts.get(record.cache, 0) + 1
                self._log(record)
            if self._deployed:
                await self.gateway.shadow.settle(SETTLE_SECONDS)

    async def _fail(self, exchange: Exchange, error: FirstTokenError) -> None:
        exchange.record.error = error.code or error.type
        await exchange.fail(error)

    async def _route(self, exchange: Exchange) -> None:
        endpoint, found = routes.find(exchange.scope["path"], exchange.scope["method"])
        exchange.codec = codec_of(endpoint.format)
        if not endpoint.open:
            exchange.record.tenant = self._keys.tenant(exchange.headers)
        await endpoint.handler(exchange, self.gateway, found)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                if self.gateway.store.shared:  # its client is loaded beside the first call, not in its way
                    self.gateway.shadow.run(self.gateway.store.open())
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.gateway.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _print(record: Record) -> None:
    sys.stderr.write(msgspec.json.encode(record.summary()).decode() + "\n")


def create_app(settings: Settings | None = None, *, deployed: bool) -> App:
    """Build the application from ``settings`` or the configuration of this process. Raises ConfigError.

    ``deployed`` says that strangers can reach it: API keys are asked for unless the configuration says
    otherwise.
    """
    return App(create_gateway(settings), deployed=deployed)
