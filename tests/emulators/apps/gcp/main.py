"""The probe app as a function of functions-framework."""

from __future__ import annotations

import functools

import functions_framework.aio
import probe
from starlette.requests import Request

from firsttoken.runtimes.gcp import answer_push, request_timeout
from firsttoken.runtimes.starlette import AsgiResponse


@functions_framework.aio.http
async def chat(_request: Request) -> AsgiResponse:
    """Serve the probe app."""
    return AsgiResponse(probe.app, timeout=request_timeout())


@functions_framework.aio.http
async def recover(request: Request) -> tuple[dict[str, object], int]:
    """Answer a Pub/Sub message with its data."""
    return await answer_push(request, functools.partial(_answer, "recover"))


async def _answer(function: str, data: bytes, **_: object) -> dict[str, object]:
    return {"function": function, "data": data.decode()}
