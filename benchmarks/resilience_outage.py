"""Rows about targets that all fail: nobody calls them more than needed, however many instances there are."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from benchmarks.resilience_calls import call, chunks, gateway
from benchmarks.resilience_row import Row
from benchmarks.resilience_upstream import Upstream
from firsttoken.bench import load
from firsttoken.bench.fleet import RedisStore
from firsttoken.errors import FirstTokenError
from firsttoken.gateway import Gateway

_TEXT = "Please try again in a moment."
_LEARNING = 0.05
"""Seconds in which calls may overlap the first refusal."""


def all_429(*, short: bool = False) -> Row:
    """Let two targets ask to wait: the ladder answers, and nobody is called before that time is over."""
    return asyncio.run(_all_429(wait=1 if short else 5, seconds=2.5 if short else 30.0, rate=20.0))


async def _all_429(wait: int, seconds: float, rate: float) -> Row:
    async with Upstream(429, wait) as near, Upstream(429, wait) as far:
        ours = gateway(_configuration([near, far], degrade=[{"text": _TEXT}]))
        texts = await _ask([ours], rate, seconds)
        await ours.aclose()
    early = sum(_early(upstream.times, wait) for upstream in (near, far))
    return Row(
        {"calls_in_cooldown": early, "answered_by_the_ladder": texts.count(_TEXT) / len(texts)},
        {"calls_in_cooldown": 0, "answered_by_the_ladder": 1.0},
        least=frozenset({"answered_by_the_ladder"}),
        also={"requests": len(texts), "calls": len(near.times) + len(far.times), "retry_after_s": wait},
    )


def _early(times: list[float], wait: float) -> int:
    """Count the calls that came after a refusal and before its time was over."""
    return sum(any(_LEARNING < at - before < wait - _LEARNING for before in times) for at in times)


def shared_breakers(*, short: bool = False) -> Row:
    """Count the calls to a dead target, of instances that share a store and of lone ones."""
    instances, seconds, rate = (20, 4.0, 100.0) if short else (100, 60.0, 100.0)
    breaker = {"open": 0.15, "max_open": 0.2, "stale": 0.1} if short else {}
    store = RedisStore()
    try:
        shared = asyncio.run(_outage({"store": store.start(), "breaker": breaker}, instances, seconds, rate))
    finally:
        store.stop()
    alone = asyncio.run(_outage({"breaker": breaker}, instances, seconds, rate))
    return Row(
        {
            "calls_shared_over_alone": round(shared["calls"] / alone["calls"], 3),
            "amplification": round(shared["calls"] / shared["requests"], 3),
        },
        {"calls_shared_over_alone": round(1 / 3, 3), "amplification": 1.1},
        also={"instances": instances, "shared": shared, "alone": alone},
    )


async def _outage(more: dict[str, Any], instances: int, seconds: float, rate: float) -> dict[str, int]:
    async with Upstream() as target:
        fleet = [gateway({**_configuration([target]), **more}) for _ in range(instances)]
        await asyncio.gather(*(_text(one) for one in fleet))
        target.status = 503
        healthy = len(target.times)
        texts = await _ask(fleet, rate, seconds)
        for one in fleet:
            await one.aclose()
    return {"requests": len(texts), "calls": len(target.times) - healthy}


def _configuration(targets: list[Upstream], **route: Any) -> dict[str, Any]:
    return {
        "providers": {
            f"t{number}": {"kind": "openai", "base_url": target.url, "api_key": "any"}
            for number, target in enumerate(targets)
        },
        "models": {"chat": {"targets": [f"t{number}/m" for number in range(len(targets))], **route}},
    }


async def _ask(fleet: list[Gateway], rate: float, seconds: float) -> list[str]:
    """Send calls to instances chosen by chance, open loop; return texts, "" for those that failed."""
    rng = random.Random(1)  # noqa: S311 - load, not secrets
    loop = asyncio.get_running_loop()
    start = loop.time()
    tasks: list[asyncio.Task[str]] = []
    for at in load.poisson(rate, seconds, rng):
        await asyncio.sleep(max(start + at - loop.time(), 0))
        tasks.append(loop.create_task(_text(rng.choice(fleet))))
    return await asyncio.gather(*tasks)


async def _text(ours: Gateway) -> str:
    try:
        return "".join([chunk.text for chunk in await chunks(ours, call("Hi"))])
    except FirstTokenError:
        return ""
