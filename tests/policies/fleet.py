"""A fleet for the tests of the breaker: instances that share one store, and a store that can break."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

from policies.models import END, Scripted, collect, make_call, say
from virtual_time import wall

from firsttoken.errors import (
    FirstTokenError,
    StoreError,
    UnavailableError,
    UpstreamError,
    UpstreamRateLimitError,
)
from firsttoken.policies.board import Board
from firsttoken.policies.breaker import Breaker
from firsttoken.policies.circuit import Circuit
from firsttoken.policies.shadow import Shadow
from firsttoken.policies.stats import Stats
from firsttoken.policies.target import Measured
from firsttoken.policies.timeouts import Timeouts
from firsttoken.settings import Breaker as Settings
from firsttoken.settings import MemoryStore as MemorySettings
from firsttoken.settings import Timeouts as Limits
from firsttoken.stores.guarded import Guarded
from firsttoken.stores.memory import MemoryStore

NAME = "p/m"


class FakeStore(MemoryStore):
    """A shared store that can be down, hang or be slow; ``asked`` counts what it was asked for."""

    shared = True

    def __init__(self) -> None:
        super().__init__(MemorySettings())
        self.down = False
        self.hangs = False
        self.delay = 0.0
        self.asked: Counter[str] = Counter()

    async def _gate(self, name: str) -> None:
        self.asked[name] += 1
        if self.hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(self.delay)
        if self.down:
            raise StoreError("down")

    async def get(self, key):
        await self._gate("get")
        return await super().get(key)

    async def get_many(self, keys):
        await self._gate("get_many")
        return await super().get_many(keys)

    async def swap(self, key, old, new, ttl):
        await self._gate("swap")
        return await super().swap(key, old, new, ttl)

    async def add(self, key, amount, ttl):
        await self._gate("add")
        return await super().add(key, amount, ttl)

    async def lease(self, key, owner, ttl):
        await self._gate("lease")
        return await super().lease(key, owner, ttl)

    async def release(self, key, owner):
        await self._gate("release")
        return await super().release(key, owner)


class Upstream(Scripted):
    """A target with a switch: ``fault`` None answers, an error is raised, a number is silence in seconds."""

    def __init__(self, fault: BaseException | float | None = None, *, takes: float = 0.0) -> None:
        super().__init__(lambda _: self.script())
        self.fault = fault
        self.takes = takes

    def script(self) -> tuple[Any, ...]:
        if isinstance(self.fault, BaseException):
            return (self.takes, self.fault)
        silence = self.takes if self.fault is None else self.fault
        return (silence, say("Hello"), END)

    @property
    def lives(self) -> list[Any]:
        """The calls that are clients', not probes."""
        return [call for call in self.calls if call.attempt.kind != "probe"]

    @property
    def probes(self) -> list[Any]:
        return [call for call in self.calls if call.attempt.kind == "probe"]


class Instance:
    """One process: its own circuit of the one target, and a breaker around it."""

    def __init__(self, upstream: Any, store: Any = None, *, seed: int = 1, **settings: Any) -> None:
        self.settings = Settings(**{"jitter": 0.0, **settings})
        self.shadow = Shadow()
        guarded = None if store is None else Guarded(store, MemorySettings())
        self.board = Board(guarded, self.settings, self.shadow, rng=Random(seed), wall=wall)
        self.circuit = Circuit(NAME, self.settings, self.board)
        self.stats = Stats()
        inner = Timeouts(Measured(upstream, self.stats), Limits(), 15.0)
        self.breaker = Breaker(inner, self.circuit, self.stats)

    @property
    def state(self) -> str:
        return self.circuit.state

    async def call(self, **fields: Any) -> FirstTokenError | None:
        """Make one call; return the error that it ended with."""
        try:
            await collect(self.breaker, make_call(**fields))
        except FirstTokenError as error:
            return error
        return None

    async def calls(self, count: int) -> list[FirstTokenError | None]:
        return [await self.call() for _ in range(count)]


def make_fleet(size: int, upstream: Any, store: Any, **settings: Any) -> list[Instance]:
    return [Instance(upstream, store, seed=seed, **settings) for seed in range(1, size + 1)]


def broken(code: str = "upstream_error", **fields: Any) -> UpstreamError:
    return UpstreamError("It broke.", code=code, **fields)


def limited(retry_after: float | None = None) -> UpstreamRateLimitError:
    return UpstreamRateLimitError("Wait.", retry_after=retry_after)


async def traffic(fleet: list[Instance], seconds: float, rate: float, rng: Random) -> Counter[str]:
    """Send calls to random instances, ``rate`` a second at random times; count how they ended.

    As in the product the state is asked for when a request begins, and needed when its body is there.
    """
    loop = asyncio.get_running_loop()
    ends: Counter[str] = Counter()

    async def one() -> None:
        instance = rng.choice(fleet)
        instance.board.refresh()
        await asyncio.sleep(0.005)
        error = await instance.call()
        ends["ok" if error is None else "refused" if isinstance(error, UnavailableError) else "failed"] += 1

    until = loop.time() + seconds
    async with asyncio.TaskGroup() as group:
        while loop.time() < until:
            group.create_task(one())
            await asyncio.sleep(rng.expovariate(rate))
    return ends


async def quiet() -> None:
    """Let what was started beside the calls happen."""
    for _ in range(30):
        await asyncio.sleep(0)


def leftovers() -> set[asyncio.Task[Any]]:
    """The tasks that run besides the test's own."""
    return {task for task in asyncio.all_tasks() if task.get_coro().__name__ != "bounded"}
