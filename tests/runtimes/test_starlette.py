"""A Starlette request handed over to a plain ASGI app."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from firsttoken.runtimes.starlette import AsgiResponse


def serve(
    timeout: float | None, messages: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]], float]:
    """Answer a request through Starlette; return the app's scope, what it received, and when it was asked."""
    seen: dict[str, Any] = {}
    received: list[dict[str, Any]] = []
    now = 0.0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        received.extend([await receive() for _ in messages])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def endpoint(_request: Request) -> AsgiResponse:
        return AsgiResponse(app, timeout=timeout)

    async def run() -> None:
        nonlocal now
        now = asyncio.get_running_loop().time()
        waiting = iter(messages)
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/x",
            "raw_path": b"/v1/x",
            "query_string": b"a=1",
        }
        scope |= {"headers": [(b"x-a", b"1")], "root_path": "", "extensions": {"http.response.debug": {}}}

        async def receive() -> dict[str, Any]:
            return next(waiting)

        async def send(_message: Any) -> None: ...

        await Starlette(routes=[Route("/{path:path}", endpoint, methods=["POST"])])(scope, receive, send)

    asyncio.run(run())
    return seen, received, now


def test_the_app_gets_the_request_and_nothing_of_the_framework() -> None:
    """The scope holds what the server said; what the outer framework added stays outside."""
    scope, _, _ = serve(None, [])
    assert {key: scope[key] for key in ("path", "raw_path", "query_string", "headers")} == {
        "path": "/v1/x",
        "raw_path": b"/v1/x",
        "query_string": b"a=1",
        "headers": [(b"x-a", b"1")],
    }
    assert not {"app", "router", "endpoint", "path_params"} & set(scope)


def test_body_and_disconnect_reach_the_app() -> None:
    """Nothing between the server and the app consumes a message."""
    messages = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b"},
        {"type": "http.disconnect"},
    ]
    assert serve(None, messages)[1] == messages


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_the_platforms_time_becomes_a_deadline(timeout: float | None) -> None:
    """The deadline stands beside the server's own extensions, and only when the platform sets one."""
    scope, _, now = serve(timeout, [])
    assert scope["extensions"]["http.response.debug"] == {}
    if timeout is None:
        assert "firsttoken" not in scope["extensions"]
    else:
        assert scope["extensions"]["firsttoken"]["deadline"] >= now + timeout
