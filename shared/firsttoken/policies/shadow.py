"""Work in the shadow of calls: shared state is read and written beside them, never in their way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from firsttoken.errors import StoreError

MAX_PENDING = 64


class Shadow:
    """A bounded set of background tasks. Where the bound is reached, more work is dropped, not queued."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.dropped = 0

    def run(self, work: Coroutine[Any, Any, object]) -> None:
        """Start ``work``. A StoreError in it means that the store is down, which harms nobody here."""
        if len(self._tasks) >= MAX_PENDING:
            self.dropped += 1
            work.close()
            return
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # it is left unstarted where that task was cancelled

    async def settle(self, seconds: float) -> None:
        """Wait for what is under way, at most ``seconds``: a function is frozen once it has answered."""
        loop = asyncio.get_running_loop()
        ours = [task for task in self._tasks if task.get_loop() is loop]
        if ours:
            await asyncio.wait(ours, timeout=seconds)

    async def aclose(self) -> None:
        """Cancel what is left."""
        loop = asyncio.get_running_loop()
        ours = [task for task in self._tasks if task.get_loop() is loop]
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)

    @staticmethod
    async def _guard(work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except StoreError:
            return
