"""A queue in a file, whose clock the test sets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from firsttoken.queues import Queue
from firsttoken.queues.sqlite import SqliteQueue
from firsttoken.settings import SqliteQueue as Settings
from tests.queues.kinds import Kind, Opened

MOST = 3


class Clock:
    """The time of day, which tests set forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    async def forward(self, seconds: float) -> None:
        self.ahead += seconds


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Opened]:
    clock = Clock()
    settings = Settings(path=str(directory / "queue.sqlite"), max_deliveries=MOST)
    queue = SqliteQueue(settings, clock=clock)
    try:
        yield Opened(queue, clock.forward, tick=0.01)
    finally:
        await queue.aclose()


def unreachable(directory: Path) -> Queue:
    return SqliteQueue(Settings(path=str(directory / "missing" / "queue.sqlite")))


KINDS = [Kind("sqlite", opened, unreachable, max_deliveries=MOST)]
