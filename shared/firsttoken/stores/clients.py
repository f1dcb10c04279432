"""One client of a cloud's SDK for each event loop: its connections belong to the loop that opened them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Generic, TypeVar

C = TypeVar("C")
Opening = Callable[[AsyncExitStack], Awaitable[C]]
"""Opens a client; what is to be closed with it goes on the stack."""


class Clients(Generic[C]):
    """Opens a client at its first use on a loop; whoever comes meanwhile waits for the same one.

    An opening that failed is tried again at the next use. Memory: one client for each loop that is open.
    """

    def __init__(self, opening: Opening[C]) -> None:
        self._opening = opening
        self._tasks: dict[asyncio.AbstractEventLoop, asyncio.Task[tuple[C, AsyncExitStack]]] = {}

    async def get(self) -> C:
        """Return the client of the running loop. Raises what the opening raises."""
        loop = asyncio.get_running_loop()
        task = self._tasks.get(loop)
        if task is None or _failed(task):
            for other in [other for other in self._tasks if other.is_closed()]:
                self._tasks.pop(other, None)
            task = self._tasks[loop] = loop.create_task(self._open())
            task.add_done_callback(_failed)
        # Who gives up waiting must not stop the opening: the next one will need it.
        client, _ = await asyncio.shield(task)
        return client

    async def aclose(self) -> None:
        """Close the client of the running loop. The next use would open another one."""
        task = self._tasks.pop(asyncio.get_running_loop(), None)
        if task is not None:
            await asyncio.wait([task])
            if not _failed(task):
                await task.result()[1].aclose()

    async def _open(self) -> tuple[C, AsyncExitStack]:
        async with AsyncExitStack() as stack:
            return await self._opening(stack), stack.pop_all()


def _failed(task: asyncio.Task[Any]) -> bool:
    """Say whether a task ended without a result. Asking also keeps asyncio from logging its error."""
    return task.done() and (task.cancelled() or task.exception() is not None)
