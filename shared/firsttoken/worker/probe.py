"""Probe all targets on a schedule, so that what is known of them is fresh when a call comes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec

from firsttoken.errors import StoreError
from firsttoken.gateway import ANY, Gateway


async def probe_targets(gateway: Gateway) -> dict[str, Any]:
    """Ask every target for one token and tell its breaker, which closes early or tells the others.

    Returns a row each: healthy or not, and the seconds its answer took. A target of any model (``*``) has no
    name to ask for and is left out. What has expired in the store is deleted on the same occasion.
    """
    with suppress(StoreError):
        await gateway.board.read()  # an instance that has just started knows of no open circuit
    names = [name for name in gateway.breakers if not name.endswith(f"/{ANY}")]
    results = await asyncio.gather(*[gateway.breakers[name].probe(_model_of(name)) for name in names])
    with suppress(StoreError):
        await gateway.store.purge()
    rows = [msgspec.to_builtins(result) for result in results]
    return {"healthy": all(row["healthy"] for row in rows), "targets": rows}


def _model_of(target: str) -> str:
    return target.partition("/")[2]
