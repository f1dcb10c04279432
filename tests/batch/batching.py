"""What the tests of batches need: files of requests, batches on a virtual clock, ticks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from firsttoken.batch.batch import Batch
from firsttoken.batch.batches import Batches
from firsttoken.batch.tick import tick
from firsttoken.gateway import Gateway
from firsttoken.settings import Batch as BatchSettings
from firsttoken.settings import Breaker, Retry, Route, Server, Settings, SimulatedProvider, Throttle

TENANT = "acme"


def line(number: int, text: str = "", **fields: Any) -> dict[str, Any]:
    """One request of a batch."""
    body = {"model": "m", "messages": [{"role": "user", "content": text or f"question {number}"}]}
    return {
        "custom_id": f"id-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {**body, **fields},
    }


def jsonl(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def requests(count: int) -> bytes:
    return jsonl(*[line(number) for number in range(count)])


def settings_of(**sections: Any) -> Settings:
    """One fast simulated model named ``m`` and no policy that would get in the way."""
    defaults: dict[str, Any] = {
        "server": Server(log=False),
        "providers": {"simulated": SimulatedProvider(faults=True, profile="ttft_ms=0,itl_ms=0,tokens=3")},
        "models": {"m": Route(target="simulated/m")},
        "breaker": Breaker(enabled=False),
        "throttle": Throttle(enabled=False),
        "retry": Retry(attempts=1),
        "batch": BatchSettings(),
    }
    return Settings(**{**defaults, **sections})


def batches_with(gateway: Gateway, wall: Callable[[], float], **parts: Any) -> Batches:
    """The batches of a gateway, on a clock of the test's own."""
    return Batches(
        gateway.settings,
        parts.get("store", gateway.store),
        parts.get("objects", gateway.objects),
        gateway._client,
        parts.get("stream", gateway.stream),
        parts.get("jobs", gateway.jobs),
        wall=wall,
    )


async def submitted(batches: Batches, content: bytes, tenant: str = TENANT) -> Batch:
    """Upload a file and make a batch of it."""
    file = await batches.files.create(tenant, "requests.jsonl", "batch", content)
    return await batches.create(tenant, file.id, None)


async def ticked(batches: Batches, batch: Batch, times: int = 1) -> Batch:
    """Tick, and return the batch as it is then."""
    for _ in range(times):
        await tick(batches)
    return await batches.get(batch.tenant, batch.id)


async def rows_of(batches: Batches, batch: Batch, which: str = "output") -> dict[str, Any]:
    """The lines of the file of answers, or of errors, by custom id."""
    parts = batch.output if which == "output" else batch.refused
    content = b"".join([piece async for piece in batches.files.content(batch.tenant, parts)])
    return {row["custom_id"]: row for row in map(json.loads, content.splitlines())}
