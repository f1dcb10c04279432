"""Call the webhook of a job that has ended: once where that succeeds, later and later where it does not."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from firsttoken.errors import QueueError, StoreError
from firsttoken.jobs.webhook import Delivered, pause

if TYPE_CHECKING:
    from firsttoken.gateway import Gateway
    from firsttoken.jobs.job import Job
    from firsttoken.jobs.jobs import Jobs

Hold = Callable[[float], Awaitable[None]]
_MARGIN = 5.0
"""Seconds that a lease outlives the call that it is for."""
_SPREAD = 1.2
_SHORT_DELAY = 300.0
"""The longest pause where the queue knows no delay of its own."""
_rng = Random()  # noqa: S311 - jitter, not secrets


async def deliver(gateway: Gateway, job: Job, hold: Hold | None = None) -> dict[str, Any]:
    """Call the webhook of ``job`` and return what came of it, as a flat row.

    Its ``status``: notified, later (it is tried again), refused (no further try helps), or duplicate. A lease
    keeps a message that comes twice from calling twice; after a failure it is kept until the next try is due.
    Where a worker dies between the call and the note of it, the receiver hears again, with the same
    ``webhook-id``. ``hold`` waits in the place of a queue that knows no delay. Raises StoreError and
    QueueError.
    """
    jobs = gateway.jobs
    if jobs is None:
        raise QueueError("No queue is configured; expected a [queue] section.")
    settings = gateway.settings.webhook
    owner, key = os.urandom(12).hex(), f"webhook:{job.tenant}:{job.id}"
    if await jobs.store.lease(key, owner, settings.timeout + _MARGIN) is None:
        await _again(jobs, job, settings.timeout + _MARGIN, hold)
        return _row(job, "later")
    current = await jobs.find(job.tenant, job.id)
    if current is None or not current.webhook or current.notified:
        await jobs.store.release(key, owner)
        return _row(job, "duplicate")
    result = await gateway.webhooks.deliver(current)
    given_up = result.final or current.notices + 1 >= settings.attempts
    after = await jobs.change(job.tenant, job.id, lambda now: _noted(now, result, given_up=given_up))
    if after is not None and not after.notified:
        # A queue that cannot delay for so long would hand the message out again and again meanwhile.
        least = min(pause(after.notices), max(jobs.queue.max_delay / _SPREAD, _SHORT_DELAY))
        wait = least * _rng.uniform(1.0, _SPREAD)
        with suppress(StoreError):  # without it a message that comes twice only calls too early
            await jobs.store.lease(key, owner, least)
        await _again(jobs, after, wait, hold)
        return _row(after, "later", why=result.why, delay=round(wait, 3))
    await jobs.store.release(key, owner)
    return _row(after or current, "notified" if result.ok else "refused", why=result.why)


async def _again(jobs: Jobs, job: Job, wait: float, hold: Hold | None) -> None:
    if hold is not None:
        await hold(wait)
    await jobs.notice(job, wait)


def _noted(job: Job, result: Delivered, *, given_up: bool) -> Job:
    """Return the record with this call in it."""
    if result.ok:
        return replace(job, notices=job.notices + 1, notified="delivered")
    return replace(job, notices=job.notices + 1, notified="failed" if given_up else "")


def _row(job: Job, status: str, **more: Any) -> dict[str, Any]:
    """Return what a log says of it: never the address, which may hold a secret."""
    return {"status": status, "id": job.id, "tenant": job.tenant, "notices": job.notices, **more}
