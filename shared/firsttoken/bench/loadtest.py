"""Run a load test: requests as they are due against a URL, or against a gateway of the run's own."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

from msgspec import Struct

from firsttoken.auth import digest
from firsttoken.bench import load, loadreport
from firsttoken.bench.fleet import Fleet, merged
from firsttoken.bench.loadtest_scenario import LoadScenario
from firsttoken.bench.mix import Requests
from firsttoken.bench.scenario import Fault, Scenario
from firsttoken.errors import ConfigError, RequestError
from firsttoken.providers.http_request import split_url

_SALT_BYTES = 4
_WARM_UP = 10.0
_TELL_SECONDS = 0.5


class Progress(Struct):
    """How far a run is, told twice a second."""

    elapsed: float = 0.0
    duration: float = 0.0
    sent: int = 0
    ended: int = 0
    failed: int = 0
    broken: tuple[str, ...] = ()
    """What is broken at the moment."""
    over: bool = False


async def run(
    scenario: LoadScenario,
    *,
    url: str = "",
    key: str = "",
    progress: Callable[[Progress], object] = lambda _: None,
) -> tuple[loadreport.LoadReport, list[load.Sample]]:
    """Run a scenario and return its report and what became of each request.

    Without ``url`` the run starts a gateway and the scenario's simulated targets. ``key`` is the API key
    where the scenario has no tenants. Memory: about 600 bytes a request. Raises ConfigError, BenchError.
    """
    url = address(url) if url else ""
    keys = _keys(scenario, local=not url)
    async with AsyncExitStack() as stack:
        fleet = None if url else await stack.enter_async_context(_fleet(scenario, keys))
        run = _Run(scenario, fleet, url or (fleet.url if fleet else ""), progress)
        samples = await run.measure(keys or {"": key})
    report = loadreport.build(
        scenario, samples, seconds=run.elapsed(), cpu=run.cpu, simulated=fleet is not None, url=url
    )
    return report, samples


def address(url: str) -> str:
    """Return what stands before ``/v1`` in a URL. Raises ConfigError for one that cannot be asked."""
    base = url.rstrip("/").removesuffix(load.PATH).removesuffix("/v1")
    try:
        split_url(base + load.PATH)
    except RequestError as error:
        raise ConfigError(f"{url}: expected a URL such as https://host or http://127.0.0.1:8080") from error
    return base


def _keys(scenario: LoadScenario, *, local: bool) -> dict[str, str]:
    """Return the key of each tenant: made up for a gateway of our own, else from the environment."""
    tenants = scenario.mix.tenants
    if local:
        return {name: secrets.token_urlsafe(24) for name in tenants}
    for name, tenant in tenants.items():
        if not os.environ.get(tenant.key_env):
            variable = tenant.key_env or "key_env, the name of a variable with the key"
            raise ConfigError(f"{scenario.name}: mix.tenants.{name}: expected {variable}, to be set")
    return {name: os.environ[tenant.key_env] for name, tenant in tenants.items()}


def _fleet(scenario: LoadScenario, keys: dict[str, str]) -> Fleet:
    if not scenario.targets:
        raise ConfigError(f"{scenario.name}: expected a --url, or targets in the scenario")
    auth = {"mode": "on", "keys": {name: [digest(key)] for name, key in keys.items()}}
    gateway = merged({"auth": auth} if keys else {}, scenario.gateway)
    return Fleet(
        Scenario(name=scenario.name, model=scenario.model, targets=scenario.targets, gateway=gateway)
    )


class _Run:
    """One run: the load, the faults beside it, and the progress."""

    def __init__(
        self, scenario: LoadScenario, fleet: Fleet | None, url: str, tell: Callable[[Progress], object]
    ) -> None:
        self._scenario = scenario
        self._fleet = fleet
        self._url = url
        self._tell = tell
        self._progress = Progress(duration=scenario.duration)
        self._start = 0.0
        self._end = 0.0
        self.cpu = 0.0
        """CPU seconds of this process."""

    def elapsed(self) -> float:
        """Return the seconds from the start to the end, or until now."""
        return (self._end or time.monotonic()) - self._start

    async def measure(self, keys: dict[str, str]) -> list[load.Sample]:
        """Send the load and return what became of it."""
        scenario = self._scenario
        salt = secrets.token_hex(_SALT_BYTES)
        requests = Requests(
            scenario.mix, scenario.model, seed=scenario.seed, salt=salt, fields=scenario.fields, keys=keys
        )
        entries = await asyncio.to_thread(scenario.entries)
        await self._warm_up(keys)
        self._start, cpu = time.monotonic(), time.process_time()
        beside = [asyncio.create_task(self._watch())]
        faults = scenario.faults if self._fleet is not None else ()
        beside += [asyncio.create_task(self._fault(fault)) for fault in faults]
        try:
            samples = await load.run(
                self._url,
                self._counted(requests.arrival(entry) for entry in entries),
                deadline=scenario.deadline,
                ended=self._ended,
                keep_text=False,
            )
            self._end, self.cpu = time.monotonic(), time.process_time() - cpu
            await asyncio.gather(*beside[1:])
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        self._progress.over = True
        self._report()
        return samples

    async def _warm_up(self, keys: dict[str, str]) -> None:
        """Let a gateway of our own import what it needs: a call of each kind, not part of any figure."""
        if self._fleet is None:
            return
        key = next(iter(keys.values()))
        headers = (("authorization", f"Bearer {key}"),) if key else ()
        bodies = [
            load.body(self._scenario.model, "warm-up", stream=stream, max_tokens=1)
            for stream in (True, False)
        ]
        calls = [
            load.Arrival(0.0, "", body, stream) for body, stream in zip(bodies, (True, False), strict=True)
        ]
        await load.run(self._url, calls, deadline=_WARM_UP, headers=headers)

    def _counted(self, arrivals: Iterator[load.Arrival]) -> Iterator[load.Arrival]:
        for arrival in arrivals:
            yield arrival
            self._progress.sent += 1

    def _ended(self, sample: load.Sample) -> None:
        self._progress.ended += 1
        self._progress.failed += not sample.complete

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            self._report()

    def _report(self) -> None:
        self._progress.elapsed = self.elapsed()
        self._tell(self._progress)

    async def _fault(self, fault: Fault) -> None:
        if self._fleet is None:
            return
        await asyncio.sleep(self._start + fault.at - time.monotonic())
        await self._fleet.begin(fault)
        name = f"{fault.target}: {fault.profile or fault.kind}"
        self._progress.broken += (name,)
        try:
            await asyncio.sleep(self._start + fault.until - time.monotonic())
        finally:
            await self._fleet.end(fault)
        self._progress.broken = tuple(item for item in self._progress.broken if item != name)
