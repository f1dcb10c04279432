"""What the emulated Azure host does before the worker: settings, routes, and an invocation that breaks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from firsttoken.emulators.azure_host import Host, HostSettings, compile_route, read_host_settings
from firsttoken.emulators.azure_worker import Function, Outcome


def function(route: str | None, name: str = "f", methods: list[str] | None = None) -> Function:
    """Return an HTTP function as the runtime describes it."""
    trigger = {"type": "httpTrigger", "name": "req", "route": route, "methods": methods}
    return Function(name, f"id-{name}", trigger)


@pytest.mark.parametrize(
    ("route", "prefix", "path", "parameters"),
    [
        ("{*path}", "", "/", {"path": ""}),
        ("{*path}", "", "/v1/chat/completions", {"path": "v1/chat/completions"}),
        ("{*path}", "api", "/api/v1", {"path": "v1"}),
        ("{*path}", "api", "/v1", None),
        (None, "api", "/api/f", {}),
        ("Items/{id:int}", "", "/items/7/", {"id": "7"}),
        ("items/{id:int}", "", "/items/seven", None),
        ("items/{id?}", "", "/items", {"id": None}),
        ("items/{id}", "", "/items", None),
        ("items/{id}", "", "/items/a/b", None),
    ],
)
def test_routes_match_as_the_hosts_templates(
    route: str | None, prefix: str, path: str, parameters: dict[str, str | None] | None
) -> None:
    """Literal, parameter, constraint, optional and catch-all segments; case does not matter."""
    match = compile_route(function(route), prefix).pattern.fullmatch(path)
    assert (match.groupdict() if match else None) == parameters


def test_literal_routes_come_before_parameters_and_catch_alls() -> None:
    """The rank puts the most literal template first, whatever the order of the functions."""
    routes = [compile_route(function(route), "") for route in ("{*path}", "{a}/b", "a/b", "a/{b}")]
    ordered = [route.function.trigger["route"] for route in sorted(routes, key=lambda route: route.rank)]
    assert ordered == ["a/b", "a/{b}", "{a}/b", "{*path}"]


def test_settings_have_the_hosts_defaults(tmp_path: Path) -> None:
    """What host.json leaves out is what the host would take."""
    (tmp_path / "host.json").write_text(
        '{"version": "2.0", "extensions": {"queues": {"maxDequeueCount": 3}}}'
    )
    extensions = read_host_settings(tmp_path).extensions
    assert (extensions.http.route_prefix, extensions.queues.max_dequeue_count) == ("api", 3)
    assert (extensions.queues.message_encoding, extensions.queues.batch_size) == ("base64", 16)


class BrokenWorker:
    """A worker that never answers a request, and breaks or is silent."""

    def __init__(self, error: Exception | None) -> None:
        self.functions = {"f": function("{*path}")}
        self.http_uri = ""
        self.forgotten: list[str] = []
        self._error = error

    async def invoke_http(self, *_: Any, **__: Any) -> Outcome:
        """Break, or wait until cancelled."""
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()
        return Outcome()

    def forget(self, invocation: str) -> None:
        """Note that the invocation is over."""
        self.forgotten.append(invocation)


def call(worker: Any, *, leave: bool, uri: str) -> list[dict[str, Any]]:
    """Send one request through a host and return what it answered."""
    sent: list[dict[str, Any]] = []

    async def run() -> None:
        messages = [{"type": "http.request", "body": b""}, *([{"type": "http.disconnect"}] if leave else [])]

        async def receive() -> dict[str, Any]:
            if not messages:
                await asyncio.Event().wait()
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        worker.http_uri = uri
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/x",
            "raw_path": b"/x",
            "query_string": b"",
            "headers": [],
        }
        await Host(worker, HostSettings())(scope | {"path": "/api/x", "raw_path": b"/api/x"}, receive, send)

    async def with_silent_server() -> None:
        async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        nonlocal uri
        uri = uri.format(port=server.sockets[0].getsockname()[1])
        async with server, asyncio.timeout(20):
            await run()

    asyncio.run(with_silent_server())
    return sent


def test_an_invocation_that_breaks_in_the_engine_is_a_500() -> None:
    """The request of an invocation that broke is answered, not left to time out; nothing is kept."""
    worker = BrokenWorker(KeyError("no context"))
    assert call(worker, leave=False, uri="http://127.0.0.1:{port}")[0]["status"] == 500
    assert len(worker.forgotten) == 1


def test_a_client_that_leaves_ends_the_invocation() -> None:
    """A disconnect ends the wait for the worker at once, and nothing of the invocation is kept."""
    worker = BrokenWorker(None)
    assert call(worker, leave=True, uri="http://127.0.0.1:{port}") == []
    assert len(worker.forgotten) == 1


def test_a_worker_that_cannot_be_reached_is_a_502() -> None:
    """A connection that is refused is answered with the reason."""
    assert call(BrokenWorker(None), leave=False, uri="http://127.0.0.1:1")[0]["status"] == 502
