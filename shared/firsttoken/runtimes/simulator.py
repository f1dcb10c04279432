"""The stand-alone provider: our own server with a simulated model, and with faults below HTTP.

``GET /simulator/state`` tells how many calls came, are in progress (and were at most), ended well, failed, or
were left: tests prove with it that an endpoint stops its upstream.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from firsttoken.api.exchange import Exchange, Receive, Scope, Send
from firsttoken.app import App
from firsttoken.errors import FirstTokenError
from firsttoken.gateway import ANY, Gateway
from firsttoken.providers.simulated import WireFaultError
from firsttoken.settings import Auth, Route, Server, Settings, SimulatedProvider
from firsttoken.simulator.profile import HEADER, Profile

_STATE = "/simulator/state"


class SimulatorApp(App):
    """The application of a provider whose every model is simulated. It must never face real users."""

    def __init__(self, provider: SimulatedProvider) -> None:
        provider = msgspec.structs.replace(provider, faults=True)
        settings = Settings(
            server=Server(log=False, heartbeat_seconds=3600.0),
            auth=Auth(mode="off"),
            providers={"simulated": provider},
            models={ANY: Route(target="simulated/*")},
        )
        super().__init__(Gateway(settings, wire_faults=True), deployed=False)
        self.state = dict.fromkeys(("requests", "active", "peak", "completed", "failed", "disconnected"), 0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, in slices where the request asks for them."""
        await super().__call__(scope, receive, _sliced(scope, send))

    async def _route(self, exchange: Exchange) -> None:
        if exchange.scope["path"] == _STATE:
            await exchange.answer(200, msgspec.json.encode(self.state))
            return
        self.state["requests"] += 1
        self.state["active"] += 1
        self.state["peak"] = max(self.state["peak"], self.state["active"])
        outcome = "failed"
        try:
            await super()._route(exchange)
            outcome = "disconnected" if exchange.record.disconnected else "completed"
        finally:
            self.state["active"] -= 1
            self.state[outcome] += 1

    async def _fail(self, exchange: Exchange, error: FirstTokenError) -> None:
        if not isinstance(error, WireFaultError):
            await super()._fail(exchange, error)
        elif error.kind == "malformed":
            await exchange.end(b'data: {"choices": [{"delta": {"content": "bro\n\n')
        else:
            exchange.scope["extensions"]["firsttoken.drop"](reset=error.kind == "reset")


def _sliced(scope: Scope, send: Send) -> Send:
    headers = dict(scope.get("headers", ()))
    spec = headers.get(HEADER.encode(), b"").decode("latin-1")
    try:
        size = Profile().changed(spec).slice
    except FirstTokenError:
        return send  # the model answers this with a proper error
    if not size:
        return send

    async def send_slices(message: Any) -> None:
        body = message.get("body", b"")
        for start in range(0, len(body) - size, size):
            await send({"type": "http.response.body", "body": body[start : start + size], "more_body": True})
            await asyncio.sleep(0.0005)  # else the kernel joins the slices again
        rest = body[(len(body) - 1) // size * size :] if body else b""
        await send({**message, "body": rest} if "body" in message else message)

    return send_slices
