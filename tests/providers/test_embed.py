"""Many calls for one request: bounded, in order, all or nothing, and cancelled together."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from firsttoken.errors import UpstreamError
from firsttoken.providers.embed import in_order


def test_results_keep_the_order() -> None:
    """Whatever ends first, the results stand in the order of the jobs, and only so many run at once."""

    async def run() -> None:
        running = peak = 0
        gates = [asyncio.Event() for _ in range(5)]

        async def job(number: int) -> int:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            if number < 3:
                await gates[number].wait()
            for gate in reversed(gates[:3]):
                gate.set()
            running -= 1
            return number

        async def open_last_gate() -> None:
            gates[2].set()

        jobs = [partial(job, number) for number in range(5)]
        results, _ = await asyncio.gather(in_order(jobs, limit=3), open_last_gate())
        assert results == [0, 1, 2, 3, 4]
        assert peak == 3

    asyncio.run(asyncio.wait_for(run(), 5))


def test_the_first_error_cancels_the_rest() -> None:
    """One failed job fails all: what runs is cancelled, what waits is never started."""

    async def run() -> None:
        started: list[int] = []
        cancelled = asyncio.Event()

        async def job(number: int) -> None:
            started.append(number)
            if number == 1:
                raise UpstreamError("broken")
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        with pytest.raises(UpstreamError, match="broken"):
            await in_order([partial(job, number) for number in range(9)], limit=2)
        assert started == [0, 1]
        assert cancelled.is_set()

    asyncio.run(asyncio.wait_for(run(), 5))


@pytest.mark.parametrize("jobs", [1, 4])
def test_cancelling_stops_all(jobs: int) -> None:
    """Who stops waiting stops the work."""

    async def run() -> None:
        started, stopped = asyncio.Event(), 0

        async def job() -> None:
            nonlocal stopped
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped += 1

        task = asyncio.create_task(in_order([job] * jobs))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stopped in (1, jobs)

    asyncio.run(asyncio.wait_for(run(), 5))
