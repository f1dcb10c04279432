"""Batches on a schedule: every open one is moved on, by a scheduled function or by a server that runs on."""

from __future__ import annotations

import asyncio
from typing import Any

from firsttoken.batch import tick as rounds
from firsttoken.batch.batches import batches_of
from firsttoken.errors import FirstTokenError
from firsttoken.gateway import Gateway
from firsttoken.worker.probe import probe_targets


async def tick(gateway: Gateway) -> list[dict[str, Any]]:
    """Move every open batch on and return a row of each, within ``batch.tick_seconds`` and what has begun.

    Raises StoreError where the store cannot be had.
    """
    return await rounds.tick(batches_of(gateway))


async def scheduled(gateway: Gateway) -> dict[str, Any]:
    """Probe the targets and move the batches on; return what came of both.

    Neither keeps the other from being done: without the store there is a row that says so.
    """
    report = await probe_targets(gateway)
    try:
        rows = await tick(gateway)
    except FirstTokenError as error:
        rows = [{"status": "later", "error": error.code or error.type, "message": str(error)}]
    return {**report, "batches": rows}


async def tick_until(gateway: Gateway, stop: asyncio.Event) -> None:
    """Move the batches on every ``batch.poll_seconds`` until ``stop`` is set.

    A tick that is under way then is cancelled: another one goes on from what is written.
    """
    stopped = asyncio.get_running_loop().create_task(stop.wait())
    try:
        while not (await asyncio.wait([stopped], timeout=gateway.settings.batch.poll_seconds))[0]:
            work = asyncio.get_running_loop().create_task(tick(gateway))
            try:
                await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)  # the next round says it again
    finally:
        stopped.cancel()
