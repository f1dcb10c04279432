"""Google Cloud Run functions: each function is one target of functions-framework."""

from __future__ import annotations

from functools import partial
from typing import Any

import functions_framework.aio
from starlette.requests import Request

from firsttoken.app import create_app
from firsttoken.runtimes.gcp import answer_push, request_timeout
from firsttoken.runtimes.starlette import AsgiResponse
from firsttoken.worker import answer_message, on_schedule

app = create_app(deployed=True)


@functions_framework.aio.http
async def chat(_request: Request) -> AsgiResponse:
    """Serve the HTTP endpoints, streaming."""
    return AsgiResponse(app, timeout=request_timeout())


@functions_framework.aio.http
async def recover(request: Request) -> tuple[dict[str, Any], int]:
    """Answer a deferred call from Pub/Sub."""
    return await answer_push(request, partial(answer_message, app.gateway))


@functions_framework.aio.http
async def scheduled(_request: Request) -> dict[str, Any]:
    """Probe the targets and move the batches on; Cloud Scheduler calls."""
    return await on_schedule(app.gateway)
