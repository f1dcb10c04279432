"""The HTTP side: one plain ASGI application for every runtime."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import Callable

from firsttoken.api import routes
from firsttoken.api.exchange import ClientGoneError, Exchange, Receive, Scope, Send
from firsttoken.auth import Keys
from firsttoken.errors import FirstTokenError, InternalError
from firsttoken.gateway import Gateway, create_gateway
from firsttoken.providers.factory import kind_of
from firsttoken.settings import Settings
from firsttoken.telemetry.exporters import SCOPE, Exporters
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
        self._telemetry = Exporters(
            gateway.settings, deployed=deployed, price=self._price, beside=gateway.shadow.run, log=log
        )
        self._log: Callable[[Record], None] = self._telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection: HTTP or lifespan."""
        if scope["type"] == "http":
            scope[SCOPE] = self._telemetry
            head = self._telemetry.head(send)
            exchange = Exchange(scope, receive, head, f"req_{os.urandom(12).hex()}")
            self._telemetry.begin(head, exchange.record, exchange.headers)
            await self._http(exchange)
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

    def _price(self, target: str, asked: str, *tokens: int) -> float | None:
        """Return the list price of a call, or what ``targets.NAME.price`` makes of all its tokens."""
        from firsttoken.placement.models import rates_of

        settings = self.gateway.settings
        provider, _, model = target.partition("/")
        prompt, answer, cached = tokens
        if provider in settings.providers:
            named = asked if model == "*" else model
            if rates := rates_of(kind_of(settings.providers[provider]), named, prompt):
                return rates.cost(prompt, answer, cached)
        known = settings.targets.get(target)
        return known.price * (prompt + answer) / 1_000_000 if known and known.price else None

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                if self.gateway.store.shared:  # its client is loaded beside the first call, not in its way
                    self.gateway.shadow.run(self.gateway.store.open())
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.gateway.aclose()
                await self._telemetry.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


def create_app(settings: Settings | None = None, *, deployed: bool) -> App:
    """Build the application from ``settings`` or the configuration of this process. Raises ConfigError.

    ``deployed`` says that strangers can reach it: API keys are asked for unless the configuration says
    otherwise.
    """
    return App(create_gateway(settings), deployed=deployed)
