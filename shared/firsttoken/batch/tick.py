"""One round over all batches that have no end yet: each is moved on as far as it can be, within bounds.

A scheduled function calls it; so does a server, every few seconds. Any number of them may: a batch is moved
by the one that holds its lease.
"""

from __future__ import annotations

import asyncio
import os
import traceback
from contextlib import suppress
from random import Random
from typing import Any

from firsttoken.batch.batch import Batch
from firsttoken.batch.batches import Batches
from firsttoken.batch.book import key_of
from firsttoken.batch.step import Step
from firsttoken.errors import FirstTokenError, StoreError

_rng = Random()  # noqa: S311 - which batch comes first


async def tick(batches: Batches) -> list[dict[str, Any]]:
    """Move on every open batch and return a row of each. Raises StoreError where the list cannot be had.

    No piece of work is begun after ``batch.tick_seconds``; each batch has its share of that, and another one
    comes first each time.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + batches.own.tick_seconds
    names = await batches.open.names()
    start = _rng.randrange(len(names)) if names else 0
    rows: list[dict[str, Any]] = []
    for done, name in enumerate([*names[start:], *names[:start]]):
        left = end - loop.time()
        if left <= 0:
            break
        rows.append(await _one(batches, name, loop.time() + left / (len(names) - done)))
    return rows


async def _one(batches: Batches, name: str, until: float) -> dict[str, Any]:
    batch_id, _, tenant = name.partition(" ")
    row: dict[str, Any] = {"batch": batch_id, "tenant": tenant}
    owner, key = os.urandom(12).hex(), key_of(tenant, batch_id)
    try:
        if await batches.store.lease(key, owner, batches.own.lease) is None:
            return {**row, "status": "busy"}
        try:
            return {**row, **await _moved(batches, name, owner, until)}
        finally:
            with suppress(StoreError):
                await batches.store.release(key, owner)
    except FirstTokenError as error:
        return {**row, "status": "later", "error": error.code or error.type, "message": str(error)}
    except Exception:  # noqa: BLE001 - a defect of ours in one batch must not stop all others
        traceback.print_exc()
        return {**row, "status": "later", "error": "internal_error"}


async def _moved(batches: Batches, name: str, owner: str, until: float) -> dict[str, Any]:
    batch_id, _, tenant = name.partition(" ")
    batch = await batches.book.find(tenant, batch_id)
    if batch is not None and not batch.is_final:
        batch = await _held(batches, Step(batches, batch, until), owner)
    if batch is None or batch.is_final:
        await batches.open.remove({name})
    return {"status": "gone"} if batch is None else _row(batch)


async def _held(batches: Batches, step: Step, owner: str) -> Batch:
    """Take the steps while the lease is renewed; they are given up where it is lost. Raises StoreError."""
    batch, seconds = step.batch, batches.own.lease
    key = key_of(batch.tenant, batch.id)
    work = asyncio.get_running_loop().create_task(step.run())
    try:
        while not (await asyncio.wait([work], timeout=seconds / 3))[0]:
            if await batches.store.lease(key, owner, seconds) is None:
                raise StoreError(f"Another worker has taken the batch {batch.id}.")
        return work.result()
    finally:
        work.cancel()
        await asyncio.wait([work])


def _row(batch: Batch) -> dict[str, Any]:
    return {
        "status": batch.state,
        "target": batch.target,
        "total": batch.total,
        "completed": batch.completed,
        "failed": batch.failed,
    }
