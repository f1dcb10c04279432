"""The stand-alone provider: our own server with a simulated model, and with what only a provider shows.

It speaks every wire format because it is the application. What comes on top: the addresses at which Azure and
Vertex AI serve those formats, faults below HTTP, rate-limit headers, batch APIs of OpenAI, Gemini and (where
it is given a bucket) Bedrock, and regions, each a provider of its own below ``/regions/NAME``.

``GET /simulator/state`` tells how many calls came, are in progress (and were at most), ended well, failed, or
were left: tests prove with it that an endpoint stops its upstream. ``PUT /simulator/profile`` changes the
behaviour from then on, so that an outage can begin and end.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from re import compile as pattern
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from firsttoken.api.chat import stream_headers
from firsttoken.api.exchange import Exchange, Receive, Scope, Send
from firsttoken.app import App
from firsttoken.errors import FirstTokenError, MethodNotAllowedError, NotFoundError
from firsttoken.gateway import ANY, Gateway
from firsttoken.model import Chunk
from firsttoken.providers.simulated import Simulated, WireFaultError
from firsttoken.settings import Auth, Embedding, Route, Server, Settings, SimulatedProvider
from firsttoken.simulator import headers as provider_headers
from firsttoken.simulator.batches import Asked, Bucket
from firsttoken.simulator.batches_bedrock import BedrockBatches
from firsttoken.simulator.batches_gemini import GeminiBatches
from firsttoken.simulator.batches_openai import OpenAIBatches
from firsttoken.simulator.profile import HEADER, Profile
from firsttoken.wire import json_body

_REGIONS = "/regions/"
_AZURE = "/openai/v1/"
"""Where Azure, and Bedrock too, serve OpenAI's formats."""
_VERTEX_CLAUDE = pattern(
    r"/v1(?:beta1)?/projects/[^/]+/locations/[^/]+/publishers/anthropic/models/"
    r"(?P<model>[^/:]+):(?P<action>rawPredict|streamRawPredict)"
)
_STATE = "/simulator/state"
_PROFILE = "/simulator/profile"
_MAX_SPEC = 4096
_MAX_FILE = 256 * 1024 * 1024
_BATCHES = (
    "/v1/files",
    "/v1/batches",
    "/v1beta/batches",
    "/v1beta/files",
    "/upload/",
    "/model-invocation-job",
)
_NEW_BATCH = ":batchGenerateContent"


class SimulatorApp(App):
    """The application of a provider whose every model is simulated. It must never face real users.

    ``regions`` maps a name to what its profile has of its own; limits, caches and counts are its own too.
    ``bucket`` is what Bedrock's batch jobs read from and write to; without one there are none.
    """

    def __init__(
        self,
        provider: SimulatedProvider,
        regions: Mapping[str, str] | None = None,
        bucket: Bucket | None = None,
    ) -> None:
        provider = msgspec.structs.replace(provider, faults=True)
        settings = Settings(
            server=Server(log=False, heartbeat_seconds=3600.0),
            auth=Auth(mode="off"),
            providers={"simulated": provider},
            models={ANY: Route(target="simulated/*")},
            embeddings={ANY: Embedding(target="simulated/*", window=0)},
        )
        super().__init__(Gateway(settings), deployed=False)
        self.model = Simulated(provider, wire_faults=True)
        self.gateway.routes[ANY] = self.model  # a provider has none of our policies around its models
        self.state = dict.fromkeys(("requests", "active", "peak", "completed", "failed", "disconnected"), 0)
        self.regions = {
            name: SimulatorApp(msgspec.structs.replace(provider, profile=f"{provider.profile},{spec}"))
            for name, spec in (regions or {}).items()
        }
        self._first_profile = self.model.profile
        ask, profile = self._ask, lambda: self.model.profile
        self._batch_apis: list[OpenAIBatches | GeminiBatches | BedrockBatches] = [
            OpenAIBatches(ask, profile),
            GeminiBatches(ask, profile),
        ]
        if bucket is not None:
            self._batch_apis.append(BedrockBatches(ask, profile, bucket))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection: of a region, or of the provider itself."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        name, _, path = scope["path"].removeprefix(_REGIONS).partition("/")
        if scope["path"].startswith(_REGIONS) and name in self.regions:
            await self.regions[name]({**scope, "path": f"/{path}"}, receive, send)
            return
        found = _VERTEX_CLAUDE.fullmatch(scope["path"])
        if found:
            scope = {**scope, "path": "/v1/messages"}
        elif scope["path"].startswith(_AZURE):
            scope = {**scope, "path": scope["path"].removeprefix("/openai")}
        exchange = _ProviderExchange(scope, receive, _sliced(scope, send), f"req_{os.urandom(12).hex()}")
        exchange.model = self.model
        exchange.claude = unquote(found["model"]) if found else ""
        await self._http(exchange)

    async def _route(self, exchange: Exchange) -> None:
        path = exchange.scope["path"]
        if path in (_STATE, _PROFILE):
            await self._control(exchange)
            return
        if path.startswith(_BATCHES) or path.endswith(_NEW_BATCH):
            await self._batch(exchange)
            return
        if path.startswith(_REGIONS):
            known = ", ".join(self.regions) or "none"
            raise NotFoundError(f"There is no region at {path[:200]!r}; expected one of {known}.")
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

    async def _control(self, exchange: Exchange) -> None:
        method, path = exchange.scope["method"], exchange.scope["path"]
        expected = "GET" if path == _STATE else "PUT"
        if method != expected:
            raise MethodNotAllowedError(f"{method} is not possible at {path}.", allow=expected)
        if path == _STATE:
            await exchange.answer(200, msgspec.json.encode(self.state))
            return
        spec = (await exchange.body(_MAX_SPEC)).decode("utf-8", "replace")
        self.model.profile = self._first_profile.changed(spec)
        await exchange.answer(200, msgspec.json.encode(self.model.profile))

    async def _batch(self, exchange: Exchange) -> None:
        scope = exchange.scope
        query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))
        body = await exchange.body(_MAX_FILE)
        asked = Asked(scope["method"], scope["path"], query, exchange.headers, body)
        for api in self._batch_apis:
            reply = await api.answer(asked)
            if reply is not None:
                headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
                await exchange.answer(reply.status, reply.body, headers)
                return
        raise NotFoundError(f"There is nothing of a batch API at {scope['path'][:200]!r}.")

    async def _ask(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Answer a request of a batch, as if it had come over HTTP."""
        inbox = [{"type": "http.request", "body": body, "more_body": False}]
        status, said = 0, bytearray()

        async def receive() -> Any:
            if inbox:
                return inbox.pop()
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            said.extend(message.get("body", b""))

        scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": [], "extensions": {}}
        await self(scope, receive, send)
        return status, bytes(said)

    async def _fail(self, exchange: Exchange, error: FirstTokenError) -> None:
        if not isinstance(error, WireFaultError):
            await super()._fail(exchange, error)
        elif error.kind == "malformed":
            await _send_malformed(exchange)
        else:
            exchange.scope["extensions"]["firsttoken.drop"](reset=error.kind == "reset")


class _ProviderExchange(Exchange):
    """An exchange whose answers carry the headers of the format's provider."""

    __slots__ = ("_wait", "claude", "model")
    claude: str
    """The name of the model where Vertex AI has it in the path, while Anthropic has it in the body."""
    model: Simulated

    async def body(self, limit: int) -> bytes:
        body = await super().body(limit)
        if self.claude:
            with suppress(msgspec.DecodeError):  # a body that is no object is refused by who reads it
                return json_body.with_model(body, self.claude)
        return body

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        name = self.codec.WIRE
        more = provider_headers.request_id(name, self.id)
        if self.record.model:
            quotas = self.model.limits.quotas(
                self.record.model, self._profile(), asyncio.get_running_loop().time()
            )
            more += provider_headers.rate_limits(name, quotas, time.time())
        if status == 429:
            more += provider_headers.retry_after_ms(name, self._wait)
        await super().start(status, [*headers, *more])

    async def fail(self, error: FirstTokenError) -> None:
        self._wait = error.retry_after
        await super().fail(error)

    def _profile(self) -> Profile:
        try:
            return self.model.profile_for(self.headers)
        except FirstTokenError:  # that is what is being answered
            return self.model.profile


async def _send_malformed(exchange: Exchange) -> None:
    """Send what the client's format cannot read: half a JSON value, or a frame with a wrong checksum."""
    codec = exchange.codec
    if exchange.writer is None:
        await exchange.answer(200, b'{"mal')
        return
    if not exchange.started:
        await exchange.start(200, stream_headers(codec))
    good = exchange.writer.write(Chunk(text="malformed"))
    is_text = codec.STREAM_TYPE.startswith("text/")
    await exchange.end(good[:-8] + b"\n\n" if is_text else good[:-1] + bytes([good[-1] ^ 0xFF]))


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
