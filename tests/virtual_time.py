"""An event loop whose clock jumps: what waits for an hour is tested in no time, in the same order."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
EPOCH = 1_800_000_000.0
"""What `wall` says when the loop's clock is 0."""


class _Selector(selectors.DefaultSelector):
    """Waits in virtual time: nothing here comes from outside, so the next timer is the next event."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0 if timeout is None or timeout > 0 else timeout)
        if not events and timeout:
            self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that starts at second 0 and never waits. For tests without sockets, threads and processes."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual.now


def wall() -> float:
    """The time of day on the running virtual loop, Unix seconds."""
    return EPOCH + asyncio.get_running_loop().time()


def run(work: Coroutine[Any, Any, T], seconds: float = 100_000.0) -> T:
    """Run a test in virtual time. Fails when it takes longer than ``seconds`` of it (it would hang)."""

    async def bounded() -> T:
        async with asyncio.timeout(seconds):
            return await work

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(bounded())
