"""A queue in this process, in its event loop's own time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from firsttoken.queues.memory import MemoryQueue
from firsttoken.settings import MemoryQueue as Settings
from tests.queues.kinds import Kind, Opened


@asynccontextmanager
async def opened(_: Path) -> AsyncIterator[Opened]:
    queue = MemoryQueue(Settings())
    try:
        yield Opened(queue, tick=0.01)
    finally:
        await queue.aclose()


KINDS = [Kind("memory", opened)]
