"""Take messages from a queue that is asked for them, and answer their jobs, several at once."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from firsttoken.errors import ConfigError, FirstTokenError, QueueError
from firsttoken.gateway import Gateway
from firsttoken.queues.queue import Delivery, Queue
from firsttoken.worker.answer import answer_message

WAIT = 1.0
"""Seconds that one question for messages waits, and so the time that stopping takes at least."""
AT_ONCE = 10
FIRST_PAUSE, MAX_PAUSE = 0.5, 30.0
"""Seconds between questions while the queue cannot be had, or until a job whose store is down comes again."""
_rng = Random()  # noqa: S311 - jitter, not secrets

Log = Callable[[dict[str, Any]], None]


def _silent(_row: dict[str, Any]) -> None:
    return


async def work(gateway: Gateway, *, stop: asyncio.Event, log: Log = _silent, drain: float = 5.0) -> None:
    """Answer jobs until ``stop`` is set: up to ``jobs.concurrency`` of them at once.

    A queue that cannot be had is asked again, ever more seldom. At the end, and cancelled, no further message
    is taken; jobs have ``drain`` seconds to end (none when cancelled) and are handed back then. ``log`` gets
    a row for each message. Raises ConfigError for a queue that pushes. Memory: the jobs under way.
    """
    queue = gateway.queue
    if queue is None or not queue.pulls:
        raise ConfigError("queue.kind: expected a queue that workers may ask for messages")
    worker = _Worker(gateway, queue, stop, log)
    try:
        await worker.take()
        await worker.settle(drain)
    finally:
        await worker.stop()


class _Worker:
    def __init__(self, gateway: Gateway, queue: Queue, stop: asyncio.Event, log: Log) -> None:
        self._gateway = gateway
        self._queue = queue
        self._stop = stop
        self._log = log
        self._lease = gateway.settings.jobs.lease
        self._down: float | None = None
        """Since when the store cannot be had; None: it can."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(gateway.settings.jobs.concurrency)

    async def take(self) -> None:
        """Take messages until it is time to stop."""
        pause = FIRST_PAUSE
        while await self._unless_stopped(self._places.acquire()):
            self._places.release()
            free = self._gateway.settings.jobs.concurrency - len(self._tasks)
            try:
                deliveries = await self._queue.receive(min(max(free, 1), AT_ONCE), self._lease, WAIT)
            except QueueError as error:
                self._log({"status": "error", "error": error.code, "message": str(error)})
                await self._unless_stopped(asyncio.sleep(pause * _rng.uniform(0.5, 1.0)))
                pause = min(2 * pause, MAX_PAUSE)
            else:
                pause = FIRST_PAUSE
                await self._begin(deliveries)

    async def settle(self, seconds: float) -> None:
        """Let jobs end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def stop(self) -> None:
        """Have every job handed back that has not ended."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _begin(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if self._stop.is_set():
                await self._show(delivery, 0.0)
                continue
            await self._places.acquire()
            task = asyncio.get_running_loop().create_task(self._answer(delivery))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def _answer(self, delivery: Delivery) -> None:
        try:
            row = await answer_message(
                self._gateway,
                delivery.body,
                delivered=delivery.count,
                extend=lambda seconds: self._queue.extend(delivery, seconds),
            )
            await self._queue.done(delivery)
        except asyncio.CancelledError:
            await self._show(delivery, 0.0)
            raise
        except FirstTokenError as error:
            now = asyncio.get_running_loop().time()
            self._down = now if self._down is None else self._down
            pause = min(max(now - self._down, FIRST_PAUSE), MAX_PAUSE)
            await self._again(delivery, pause * _rng.uniform(0.5, 1.0))
            self._log({"status": "error", "error": error.code or error.type, "message": str(error)})
        else:
            self._down = None
            self._log(row)

    async def _again(self, delivery: Delivery, after: float) -> None:
        """Send a message again, so that an outage of the store uses up none of its deliveries."""
        try:
            await self._queue.send(delivery.body, after)
            await self._queue.done(delivery)
        except (QueueError, ValueError):  # a body of somebody else's may be larger than ours can be
            await self._show(delivery, after)

    async def _show(self, delivery: Delivery, after: float) -> None:
        """Let a message be taken again; where that fails it is, when its time is over."""
        with suppress(QueueError):
            await self._queue.extend(delivery, after)

    async def _unless_stopped(self, work: Coroutine[Any, Any, object]) -> bool:
        """Wait for ``work``, at most until it is time to stop; say whether it is not yet."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (task, stopped):
                each.cancel()
        return not self._stop.is_set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._places.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            traceback.print_exception(error)  # a defect of ours: its message comes again, others go on
