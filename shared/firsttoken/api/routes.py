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
from firsttoken.wire import codec_of

Handler = Callable[[Exchange, Gateway, Match[str]], Awaitable[None]]


class Endpoint(msgspec.Struct, frozen=True):
    """One row of the table: ``shown`` is the path as people write it."""

    method: str
    shown: str
    path: Pattern[str]
    handler: Handler
    format: str
    """The package in ``wire`` whose errors are written, and whose requests are read."""
    open: bool = False
    """Whether no key is asked for."""


async def _chat(exchange: Exchange, gateway: Gateway, _: Match[str]) -> None:
    await complete(exchange, gateway)


async def _chat_by_path(exchange: Exchange, gateway: Gateway, found: Match[str]) -> None:
    await complete(exchange, gateway, found["model"], stream="stream" in found["action"].lower())


async def _gemini(exchange: Exchange, gateway: Gateway, found: Match[str]) -> None:
    # Without `alt=sse` Google streams one JSON array.
    events = b"alt=sse" in exchange.scope.get("query_string", b"").split(b"&")
    if found["action"] == "streamGenerateContent" and not events:
        exchange.codec = codec_of("gemini.array")
    await _chat_by_path(exchange, gateway, found)


async def _count_tokens(exchange: Exchange, gateway: Gateway, _: Match[str]) -> None:
    from firsttoken.api.count_tokens import count_tokens

    await count_tokens(exchange, gateway)


async def _embeddings(exchange: Exchange, gateway: Gateway, _: Match[str]) -> None:
    from firsttoken.api.embeddings import embeddings

    await embeddings(exchange, gateway)


async def _models(exchange: Exchange, gateway: Gateway, found: Match[str]) -> None:
    await models(exchange, gateway, found["id"] or "")


async def _job(exchange: Exchange, gateway: Gateway, found: Match[str]) -> None:
    from firsttoken.api import jobs

    cancelled = exchange.scope["method"] == "DELETE"
    await (jobs.cancel if cancelled else jobs.show)(exchange, gateway, found["id"])


async def _jobs(exchange: Exchange, gateway: Gateway, _: Match[str]) -> None:
    from firsttoken.api import jobs

    await jobs.recent(exchange, gateway)


async def _job_events(exchange: Exchange, gateway: Gateway, found: Match[str]) -> None:
    from firsttoken.api import job_events

    await job_events.events(exchange, gateway, found["id"])


async def _response(exchange: Exchange, gateway: Gateway, found: Match[str]) -> None:
    from firsttoken.api import background

    deleted = exchange.scope["method"] == "DELETE"
    await (background.delete if deleted else background.retrieve)(exchange, gateway, found["id"])


async def _cancel_response(exchange: Exchange, gateway: Gateway, found: Match[str]) -> None:
    from firsttoken.api import background

    await background.cancel(exchange, gateway, found["id"])


async def _files(exchange: Exchange, gateway: Gateway, found: Match[str]) -> None:
    from firsttoken.api.files import files

    await files(exchange, gateway, found)


async def _batches(exchange: Exchange, gateway: Gateway, found: Match[str]) -> None:
    from firsttoken.api.batches import batches

    await batches(exchange, gateway, found)


async def _healthy(exchange: Exchange, _gateway: Gateway, _: Match[str]) -> None:
    await exchange.answer(200, b'{"status":"ok"}')


async def _ready(exchange: Exchange, gateway: Gateway, _: Match[str]) -> None:
    from firsttoken.api import health

    await health.ready(exchange, gateway)


async def _status(exchange: Exchange, gateway: Gateway, _: Match[str]) -> None:
    from firsttoken.api import health

    await health.status(exchange, gateway)


async def _metrics(exchange: Exchange, gateway: Gateway, _: Match[str]) -> None:
    from firsttoken.api.metrics import metrics

    await metrics(exchange, gateway)


_GEMINI = pattern(
    r"/v1(?:beta1?)?/(?:(?:projects/[^/]+/locations/[^/]+/)?publishers/google/)?"
    r"models/(?P<model>[^/:]+):(?P<action>generateContent|streamGenerateContent)"
)
_JOB = pattern("/v1/jobs/(?P<id>[^/]+)/?")
_FILE = pattern("/v1/files(?:/(?P<id>[^/]+)(?P<content>/content)?)?/?")
_BATCH = pattern("/v1/batches(?:/(?P<id>[^/]+))?/?")
_RESPONSE = pattern("/v1/responses/(?P<id>resp_[^/]*)/?")
_BEDROCK = pattern(r"/model/(?P<model>.+)/(?P<action>converse|converse-stream)")  # an ARN has slashes

ENDPOINTS = (
    Endpoint("POST", "/v1/chat/completions", pattern("/v1/chat/completions/?"), _chat, "openai_chat"),
    Endpoint("POST", "/v1/responses", pattern("/v1/responses/?"), _chat, "openai_responses"),
    Endpoint("GET", "/v1/responses/{id}", _RESPONSE, _response, "openai_responses"),
    Endpoint("DELETE", "/v1/responses/{id}", _RESPONSE, _response, "openai_responses"),
    Endpoint(
        "POST",
        "/v1/responses/{id}/cancel",
        pattern("/v1/responses/(?P<id>resp_[^/]*)/cancel/?"),
        _cancel_response,
        "openai_responses",
    ),
    Endpoint("POST", "/v1/embeddings", pattern("/v1/embeddings/?"), _embeddings, "openai_chat"),
    Endpoint("POST", "/v1/messages", pattern("/v1/messages/?"), _chat, "anthropic"),
    Endpoint(
        "POST",
        "/v1/messages/count_tokens",
        pattern("/v1/messages/count_tokens/?"),
        _count_tokens,
        "anthropic",
    ),
    Endpoint("POST", "/v1beta/models/{model}:generateContent", _GEMINI, _gemini, "gemini"),
    Endpoint("POST", "/model/{model}/converse", _BEDROCK, _chat_by_path, "bedrock"),
    Endpoint("GET", "/v1/jobs", pattern("/v1/jobs/?"), _jobs, "openai_chat"),
    Endpoint("GET", "/v1/jobs/{id}", _JOB, _job, "openai_chat"),
    Endpoint("DELETE", "/v1/jobs/{id}", _JOB, _job, "openai_chat"),
    Endpoint(
        "GET",
        "/v1/jobs/{id}/events",
        pattern("/v1/jobs/(?P<id>[^/]+)/events/?"),
        _job_events,
        "openai_chat",
    ),
    Endpoint("GET", "/v1/models", pattern("/v1/models(?:/(?P<id>.+))?/?"), _models, "openai_chat"),
    Endpoint("POST", "/v1/files", pattern("/v1/files(?P<id>)/?"), _files, "openai_chat"),
    Endpoint("GET", "/v1/files", _FILE, _files, "openai_chat"),
    Endpoint("DELETE", "/v1/files/{id}", pattern("/v1/files/(?P<id>[^/]+)/?"), _files, "openai_chat"),
    Endpoint("POST", "/v1/batches", pattern("/v1/batches(?P<id>)/?"), _batches, "openai_chat"),
    Endpoint("GET", "/v1/batches", _BATCH, _batches, "openai_chat"),
    Endpoint(
        "POST",
        "/v1/batches/{id}/cancel",
        pattern("/v1/batches/(?P<id>[^/]+)/cancel/?"),
        _batches,
        "openai_chat",
    ),
    Endpoint("GET", "/v1/status", pattern("/v1/status/?"), _status, "openai_chat"),
    Endpoint("GET", "/metrics", pattern("/metrics/?"), _metrics, "openai_chat"),
    Endpoint("GET", "/healthz", pattern("/healthz"), _healthy, "openai_chat", open=True),
    Endpoint("GET", "/readyz", pattern("/readyz"), _ready, "openai_chat", open=True),
)


def find(path: str, method: str) -> tuple[Endpoint, Match[str]]:
    """Return the endpoint of a path. Raises NotFoundError and MethodNotAllowedError."""
    others: list[Endpoint] = []
    for endpoint in ENDPOINTS:
        found = endpoint.path.fullmatch(path)
        if found is None:
            continue
        if method == endpoint.method or (method == "HEAD" and endpoint.method == "GET"):
            return endpoint, found
        others.append(endpoint)
    if others:
        methods = [endpoint.method for endpoint in others]
        message = f"{method} is not possible at {others[0].shown}; expected {' or '.join(methods)}."
        raise MethodNotAllowedError(message, allow=", ".join(methods))
    known = ", ".join(dict.fromkeys(endpoint.shown for endpoint in ENDPOINTS))
    raise NotFoundError(f"There is nothing at {path[:200]!r}; expected one of {known}.")
