"""Clients that go away, at every stage of an answer: no target goes on working for them."""

from __future__ import annotations

import asyncio
import random

from benchmarks.resilience_row import Row
from firsttoken.bench import load
from firsttoken.bench.fleet import Fleet
from firsttoken.bench.scenario import Scenario, Target

_LIMIT_SECONDS = 1.0
_STAGES = [("before the first token", "ttft_ms=60000"), ("in the middle", "ttft_ms=10,itl_ms=20,tokens=4000")]


def client_leaves(*, short: bool = False) -> Row:
    """Leave before the first token and in the middle, of streamed and of whole answers."""
    stopped = asyncio.run(_leave(8 if short else 200))
    within = [seconds for seconds in stopped if seconds is not None]
    return Row(
        {"stopped_within_1_s": len(within) / len(stopped)},
        {"stopped_within_1_s": 1.0},
        frozenset({"stopped_within_1_s"}),
        {"runs": len(stopped), "slowest_s": round(max(within, default=0.0), 3)},
    )


async def _leave(runs: int) -> list[float | None]:
    rng = random.Random(1)  # noqa: S311 - times, not secrets
    stopped: list[float | None] = []
    for _, profile in _STAGES:
        scenario = Scenario(targets={"near": Target(profile=profile)})
        async with Fleet(scenario) as fleet:
            stopped += [
                await _one(fleet, rng.uniform(0.05, 0.2), stream=number % 2 == 0)
                for number in range(runs // len(_STAGES))
            ]
    return stopped


async def _one(fleet: Fleet, leave_after: float, *, stream: bool) -> float | None:
    """Return how long the target went on, or None when that was too long or it was never called."""
    before = await fleet.state("near")
    arrival = load.Arrival(0.0, "Hi", load.body("chat", "Hi", stream=stream), stream, leave_after)
    await load.run(fleet.url, [arrival], deadline=30.0)
    loop = asyncio.get_running_loop()
    left = loop.time()
    while loop.time() - left < _LIMIT_SECONDS:
        state = await fleet.state("near")
        if before and state and state.active == 0 and state.disconnected > before.disconnected:
            return loop.time() - left
        await asyncio.sleep(0.01)
    return None
