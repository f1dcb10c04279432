"""The part of the Azure Functions host that is not Python: an emulation of the .NET host's HTTP side.

It matches the route, starts the invocation in the worker, proxies the request to the worker's web server with
the invocation's id in a header, and streams the answer back. Like the host it has ``GET /admin/host/status``
and ``POST /admin/functions/<name>``; unlike it, the latter waits for the outcome and also takes the trigger's
metadata.

Not emulated: keys and ``authLevel`` (every function is open), scale, the extension bundle, the front ends
before the host.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
from msgspec import Struct, field

from firsttoken.emulators.azure_worker import Function, Outcome, Worker
from firsttoken.emulators.child import CONNECTION_FIELDS, EmulatorError
from firsttoken.errors import FirstTokenError
from firsttoken.providers.http import HttpClient, Response, Timeouts

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logging.getLogger("azure.host")

# The host's proxy gives up on a worker that is silent for so long.
_PROXY_TIMEOUTS = Timeouts(connect=5.0, first_byte=240.0, gap=240.0)
# The host's default of FUNCTIONS_REQUEST_BODY_SIZE_LIMIT.
_MAX_BODY_BYTES = 100 * 1024 * 1024
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding"})
_PARAMETER = re.compile(r"\{(?P<star>\**)(?P<name>\w+)(?P<constraint>:[^}?=]+)?(?P<optional>\?)?\}")


class QueueSettings(Struct, frozen=True, rename="camel"):
    """``extensions.queues`` of host.json with the host's defaults; times are .NET time spans."""

    message_encoding: str = "base64"
    max_dequeue_count: int = 5
    visibility_timeout: str = "00:00:00"
    max_polling_interval: str = "00:01:00"
    batch_size: int = 16
    new_batch_threshold: int | None = None
    """While so few messages are worked on, the next batch is asked for; None: half a batch."""


class _Http(Struct, frozen=True, rename="camel"):
    route_prefix: str = "api"


class _Extensions(Struct, frozen=True):
    http: _Http = field(default_factory=_Http)
    queues: QueueSettings = field(default_factory=QueueSettings)


class HostSettings(Struct, frozen=True):
    """The parts of host.json that this emulation honours."""

    extensions: _Extensions = field(default_factory=_Extensions)


def read_host_settings(root: Path) -> HostSettings:
    """Read host.json; raises `EmulatorError` naming the file and the field."""
    path = root / "host.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=HostSettings)
    except (OSError, msgspec.DecodeError) as error:
        raise EmulatorError(f"{path}: {error}") from error


class Route(Struct, frozen=True):
    """Where an HTTP function answers.

    ``rank`` orders routes as the host does: literal, parameter, catch-all.
    """

    function: Function
    pattern: re.Pattern[str]
    methods: frozenset[str]
    rank: tuple[int, ...]


def compile_route(function: Function, prefix: str) -> Route:
    """Return the route of an HTTP function; its template is the function's name when it has none."""
    template = function.trigger.get("route") or function.name
    segments = [segment for segment in f"{prefix}/{template}".split("/") if segment]
    pattern, rank = "", []
    for segment in segments:
        parameter = _PARAMETER.fullmatch(segment)
        if parameter is None:
            pattern += "/" + re.escape(segment)
            rank.append(0)
        elif parameter["star"]:
            pattern += f"(?:/(?P<{parameter['name']}>.*))?"
            rank.append(2)
        else:
            digits = parameter["constraint"] in {":int", ":long"}
            group = f"/(?P<{parameter['name']}>{'-?[0-9]+' if digits else '[^/]+'})"
            pattern += f"(?:{group})?" if parameter["optional"] else group
            rank.append(1)
    methods = frozenset(method.upper() for method in function.trigger.get("methods") or ())
    return Route(function, re.compile(pattern + "/?", re.IGNORECASE | re.DOTALL), methods, tuple(rank))


class _Exchange(NamedTuple):
    """One request, its body read, on its way through the host."""

    scope: Scope
    body: bytes
    receive: Receive
    send: Send


class Host:
    """The host's HTTP front as an ASGI app."""

    def __init__(self, worker: Worker, settings: HostSettings) -> None:
        self._worker = worker
        self._client = HttpClient()
        functions = [item for item in worker.functions.values() if item.trigger["type"] == "httpTrigger"]
        prefix = settings.extensions.http.route_prefix
        self._routes = sorted(
            (compile_route(item, prefix) for item in functions), key=lambda route: route.rank
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        body = await _read(receive)
        if body is None:
            return
        exchange = _Exchange(scope, body, receive, send)
        if len(body) > _MAX_BODY_BYTES:
            await _answer(send, 413, {"error": f"The host takes at most {_MAX_BODY_BYTES} bytes."})
        elif scope["path"].startswith("/admin/"):
            await self._admin(exchange)
        else:
            await self._http(exchange)

    async def aclose(self) -> None:
        """Close the connections to the worker."""
        await self._client.aclose()

    async def run(self, function: Function, data: str | bytes, metadata: dict[str, Any]) -> Outcome:
        """Run a function that is not an HTTP one."""
        invocation = str(uuid4())
        outcome = await self._worker.invoke(function, invocation, data, metadata)
        _log(function, invocation, outcome)
        return outcome

    async def _admin(self, exchange: _Exchange) -> None:
        path, method, send = exchange.scope["path"], exchange.scope["method"], exchange.send
        if path == "/admin/host/status":
            await _answer(send, 200, {"state": "Running", "functions": sorted(self._worker.functions)})
            return
        function = self._worker.functions.get(path.removeprefix("/admin/functions/"))
        if function is None or method != "POST" or function.trigger["type"] == "httpTrigger":
            await _answer(send, 404, {"error": f"no function to run at {path}"})
            return
        try:
            call = msgspec.json.decode(exchange.body, type=_ManualRun)
        except msgspec.DecodeError as error:
            await _answer(send, 400, {"error": f"expected {{'input': ..., 'metadata': {{...}}}}: {error}"})
            return
        data = call.input if isinstance(call.input, str) else msgspec.json.encode(call.input).decode()
        outcome = await self.run(function, data, call.metadata)
        status = "Failure" if outcome.error else "Success"
        await _answer(send, 500 if outcome.error else 200, {"status": status, "error": outcome.error})

    async def _http(self, exchange: _Exchange) -> None:
        for route in self._routes:
            match = route.pattern.fullmatch(exchange.scope["path"])
            if match and (not route.methods or exchange.scope["method"] in route.methods):
                parameters = {name: value or "" for name, value in match.groupdict().items()}
                await self._proxy(route.function, parameters, exchange)
                return
        await _answer(exchange.send, 404, {"error": "no function at this path"})

    async def _proxy(self, function: Function, route: dict[str, str], exchange: _Exchange) -> None:
        """Run the invocation and proxy its request, until the answer is complete or the client leaves."""
        invocation, scope = str(uuid4()), exchange.scope
        host = dict(scope["headers"]).get(b"host", b"localhost").decode("latin-1")
        work = self._worker.invoke_http(
            function, invocation, method=scope["method"], url=f"http://{host}{scope['path']}", route=route
        )
        call = asyncio.create_task(work)
        relay = asyncio.create_task(self._relay(invocation, exchange))
        gone = asyncio.create_task(_disconnect(exchange.receive))
        call.add_done_callback(lambda task: _finish(task, function, invocation, relay))
        try:
            done, _ = await asyncio.wait({relay, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (relay, gone, call):
                task.cancel()
            await asyncio.wait({relay, gone, call})
            self._worker.forget(invocation)
        if relay in done and not relay.cancelled():
            relay.result()
        elif relay in done:
            await _answer(exchange.send, 500, {"error": "the invocation failed before it met its request"})

    async def _relay(self, invocation: str, exchange: _Exchange) -> None:
        """Proxy the request; an answer that breaks off is left incomplete, as the host's proxy leaves it."""
        scope = exchange.scope
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        url = self._worker.http_uri + (scope["raw_path"] + query).decode("ascii")
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        kept = [(name, value) for name, value in headers if name not in CONNECTION_FIELDS]
        kept.append(("x-ms-invocation-id", invocation))
        try:
            response = await self._client.request(
                scope["method"], url, headers=kept, body=exchange.body, timeouts=_PROXY_TIMEOUTS
            )
        except FirstTokenError as error:
            await _answer(exchange.send, error.status, {"error": str(error)})
            return
        try:
            await _copy(response, exchange.send)
        except FirstTokenError as error:
            log.warning("forwarding of %s broke off: %s", invocation, error)
        finally:
            response.close()


class _ManualRun(Struct):
    input: Any = ""
    metadata: dict[str, Any] = {}


def _finish(
    call: asyncio.Task[Outcome], function: Function, invocation: str, relay: asyncio.Task[None]
) -> None:
    """Log how an HTTP invocation ended; one that broke in the engine will never answer its request."""
    if call.cancelled():
        return
    error = call.exception()
    if error is not None:
        _log(function, invocation, Outcome(error=f"{type(error).__name__}: {error}"))
        relay.cancel()
    else:
        _log(function, invocation, call.result())


def _log(function: Function, invocation: str, outcome: Outcome) -> None:
    if outcome.error:
        log.error(
            "Executed '%s' (Failed, Id=%s): %s\n%s", function.name, invocation, outcome.error, outcome.trace
        )
    else:
        log.debug("Executed '%s' (Succeeded, Id=%s)", function.name, invocation)


async def _copy(response: Response, send: Send) -> None:
    headers = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers.items()
        if name not in _HOP_BY_HOP
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    async for chunk in response.chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _read(receive: Receive) -> bytes | None:
    """Return the request's body, at most one chunk over the limit, or None when the client left."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body") or len(body) > _MAX_BODY_BYTES:
            return bytes(body)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(send: Send, status: int, content: dict[str, Any]) -> None:
    body = msgspec.json.encode(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
