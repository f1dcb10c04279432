"""Run a scenario: load on one side, faults on the other, and what every target counted meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from firsttoken.bench import load, report
from firsttoken.bench.fleet import Fleet, State, StoreUnderTest, merged, until_idle
from firsttoken.bench.scenario import Fault, Scenario

SAMPLE_SECONDS = 1.0
IDLE_SECONDS = 10.0
_WARM_UP = 10.0


class Progress(Struct):
    """How far a run is, told each second."""

    elapsed: float = 0.0
    duration: float = 0.0
    ended: int = 0
    failed: int = 0
    broken: tuple[str, ...] = ()
    """What is broken at the moment."""


async def run(
    scenario: Scenario,
    *,
    url: str = "",
    store: StoreUnderTest | None = None,
    progress: Callable[[Progress], object] = lambda _: None,
) -> report.Report:
    """Run a scenario and return its report.

    With ``url`` a gateway that runs already gets the load. A scenario with ``without`` runs twice. Raises
    ConfigError and BenchError where it cannot be run.
    """
    before: report.Report | None = None
    if scenario.without:
        plain = replace(
            scenario, gateway=merged(scenario.gateway, scenario.without), without={}, name="without"
        )
        before = await _once(plain, url, store, progress)
    result = await _once(scenario, url, store, progress)
    return report.checked(result, scenario, before)


async def _once(
    scenario: Scenario, url: str, store: StoreUnderTest | None, progress: Callable[[Progress], object]
) -> report.Report:
    async with Fleet(scenario, url, store) as fleet:
        warmed = await _warm_up(fleet, scenario)
        run = _Run(fleet, scenario, progress)
        measured = await run.measure()
        measured.not_counted = {sample.request_id for sample in warmed}
        measured.log = fleet.log()
    return report.build(scenario, measured)


async def _warm_up(fleet: Fleet, scenario: Scenario) -> list[load.Sample]:
    """Let the gateway import what it needs and connect: a call of each kind, not part of any figure."""
    calls = [
        load.Arrival(
            0.0, "warm-up", load.body(scenario.model, "warm-up", stream=stream, max_tokens=1), stream
        )
        for stream in (True, False)
    ]
    return await load.run(fleet.url, calls, deadline=_WARM_UP)


class _Run:
    """One run: the load, the timeline of faults, and the samples of the targets."""

    def __init__(self, fleet: Fleet, scenario: Scenario, progress: Callable[[Progress], object]) -> None:
        self._fleet = fleet
        self._scenario = scenario
        self._tell = progress
        self._progress = Progress(duration=scenario.duration)
        self._measured = report.Measured()
        self._counts = {name: _Count() for name in fleet.targets}
        self._start = 0.0

    async def measure(self) -> report.Measured:
        scenario, measured = self._scenario, self._measured
        arrivals = scenario.arrivals()
        await self._sample()
        for count in self._counts.values():
            count.begin()
        self._start = asyncio.get_running_loop().time()
        beside = [asyncio.create_task(self._watch())]
        beside += [asyncio.create_task(self._fault(fault)) for fault in scenario.faults]
        try:
            measured.samples = await load.run(
                self._fleet.url, arrivals, deadline=scenario.deadline, ended=self._ended
            )
            measured.seconds = self._elapsed()
            await asyncio.gather(*beside[1:])
            if scenario.expect.idle_within_s is not None:
                measured.idle_after = await until_idle(self._fleet, IDLE_SECONDS)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        await self._sample()
        measured.states = {name: count.total() for name, count in self._counts.items()}
        return measured

    def _elapsed(self) -> float:
        return asyncio.get_running_loop().time() - self._start

    def _ended(self, sample: load.Sample) -> None:
        self._progress.ended += 1
        self._progress.failed += bool(sample.error)

    async def _fault(self, fault: Fault) -> None:
        name = f"{fault.target or 'store'}: {fault.profile or fault.store or fault.kind}"
        await asyncio.sleep(self._start + fault.at - asyncio.get_running_loop().time())
        if fault.kind == "kill" and fault.target:
            await self._sample()  # what it counted goes with the process
        await self._fleet.begin(fault)
        self._progress.broken += (name,)
        try:
            await asyncio.sleep(self._start + fault.until - asyncio.get_running_loop().time())
        finally:
            await self._fleet.end(fault)
        self._progress.broken = tuple(item for item in self._progress.broken if item != name)
        self._measured.mended.append(self._elapsed())

    async def _watch(self) -> None:
        second = 0
        while True:
            second += 1
            await asyncio.sleep(self._start + second * SAMPLE_SECONDS - asyncio.get_running_loop().time())
            await self._sample()
            self._measured.calls.append(
                {name: count.total().requests for name, count in self._counts.items()}
            )
            self._progress.elapsed = self._elapsed()
            self._tell(self._progress)

    async def _sample(self) -> None:
        names = list(self._counts)
        for name, state in zip(names, await asyncio.gather(*map(self._fleet.state, names)), strict=True):
            if state is not None:
                self._counts[name].update(state)


class _Count:
    """The counts of one target, also over restarts of its process."""

    def __init__(self) -> None:
        self._last = State()
        self._carried = State()

    def begin(self) -> None:
        """Count from here on."""
        last = self._last
        self._carried = State(-last.requests, 0, -last.completed, -last.failed, -last.disconnected)

    def update(self, state: State) -> None:
        """Take what the target says now; fewer calls than before mean that it was started again."""
        if state.requests < self._last.requests:
            self._carried = self.total()
        self._last = state

    def total(self) -> State:
        """Return the counts of all its processes."""
        a, b = self._carried, self._last
        return State(
            a.requests + b.requests,
            b.active,
            a.completed + b.completed,
            a.failed + b.failed,
            a.disconnected + b.disconnected,
        )
