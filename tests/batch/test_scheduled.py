"""What a scheduled function does: probe the targets, and move the batches on."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from virtual_time import run

from firsttoken.errors import StoreError
from firsttoken.gateway import Gateway
from firsttoken.settings import Batch
from firsttoken.worker import batches as scheduling
from firsttoken.worker.batches import scheduled, tick_until
from tests.batch.batching import batches_with, requests, settings_of, submitted


def test_a_schedule_probes_and_ticks() -> None:
    """One report holds the targets that were probed and a row of each open batch."""

    async def within() -> None:
        gateway = Gateway(settings_of())
        try:
            batch = await submitted(batches_with(gateway, time.time), requests(2))
            report = await scheduled(gateway)
            assert "targets" in report
            (row,) = report["batches"]
            assert (row["batch"], row["status"], row["completed"]) == (batch.id, "completed", 2)
        finally:
            await gateway.aclose()

    asyncio.run(within())


def test_a_store_that_is_down_is_told(monkeypatch: Any) -> None:
    """Without the store the targets are probed all the same, and a row says why nothing moved."""

    async def down(_: Gateway) -> list[Any]:
        raise StoreError("The store is gone.")

    monkeypatch.setattr(scheduling, "tick", down)

    async def within() -> None:
        gateway = Gateway(settings_of())
        try:
            report = await scheduled(gateway)
            assert report["healthy"] is True
            assert report["batches"] == [
                {"status": "later", "error": "store_unavailable", "message": "The store is gone."}
            ]
        finally:
            await gateway.aclose()

    asyncio.run(within())


def test_a_server_ticks_on(monkeypatch: Any) -> None:
    """A server ticks again and again, also after a tick that failed, and stops in the middle of one."""
    times: list[float] = []

    async def tick(_: Gateway) -> list[Any]:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise StoreError("The store is gone.")
        if len(times) == 3:
            await asyncio.sleep(3600)
        return []

    monkeypatch.setattr(scheduling, "tick", tick)

    async def within() -> None:
        gateway = Gateway(settings_of(batch=Batch(poll_seconds=10.0)))
        stop = asyncio.Event()
        ticks = asyncio.create_task(tick_until(gateway, stop))
        await asyncio.sleep(35)
        stop.set()
        await ticks
        assert asyncio.get_running_loop().time() == 35.0
        await gateway.aclose()

    run(within())
    assert times == [10.0, 20.0, 30.0]
