"""Which path is which endpoint, in which wire format; that also decides how its errors look."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from re import Match, Pattern
from re import compile as pattern

import msgspec

from firsttoken.api.chat import complete
from firsttoken.api.exchange import Exchange
from firsttoken.api.models import models
from firsttoken.errors import MethodNotAllowedError, NotFoundError
from firsttoken.gateway import Gateway
from firsttoken.wire import openai_chat
from firsttoken.wire.codec import Codec

Handler = Callable[[Exchange, Gateway, Match[str]], Awaitable[None]]


class Endpoint(msgspec.Struct, frozen=True):
    """One row of the table: ``shown`` is the path as people write it."""

    method: str
    shown: str
    path: Pattern[str]
    handler: Handler
    codec: Callable[[], Codec] = lambda: openai_chat
    open: bool = False
    """Whether no key is asked for."""


async def _chat(exchange: Exchange, gateway: Gateway, _: Match[str]) -> None:
    await complete(exchange, gateway)


async def _models(exchange: Exchange, gateway: Gateway, found: Match[str]) -> None:
    await models(exchange, gateway, found["id"] or "")


async def _healthy(exchange: Exchange, _gateway: Gateway, _: Match[str]) -> None:
    await exchange.answer(200, b'{"status":"ok"}')


async def _ready(exchange: Exchange, _gateway: Gateway, _: Match[str]) -> None:
    await exchange.answer(200, b'{"status":"ready"}')


ENDPOINTS = (
    Endpoint("POST", "/v1/chat/completions", pattern("/v1/chat/completions/?"), _chat),
    Endpoint("GET", "/v1/models", pattern("/v1/models(?:/(?P<id>.+))?/?"), _models),
    Endpoint("GET", "/healthz", pattern("/healthz"), _healthy, open=True),
    Endpoint("GET", "/readyz", pattern("/readyz"), _ready, open=True),
)


def find(path: str, method: str) -> tuple[Endpoint, Match[str]]:
    """Return the endpoint of a path. Raises NotFoundError and MethodNotAllowedError."""
    wrong: Endpoint | None = None
    for endpoint in ENDPOINTS:
        found = endpoint.path.fullmatch(path)
        if found is None:
            continue
        if method == endpoint.method or (method == "HEAD" and endpoint.method == "GET"):
            return endpoint, found
        wrong = endpoint
    if wrong:
        message = f"{method} is not possible at {wrong.shown}; expected {wrong.method}."
        raise MethodNotAllowedError(message, allow=wrong.method)
    known = ", ".join(dict.fromkeys(endpoint.shown for endpoint in ENDPOINTS))
    raise NotFoundError(f"There is nothing at {path[:200]!r}; expected one of {known}.")
