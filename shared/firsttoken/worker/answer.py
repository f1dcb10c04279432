"""One delivery of a queue message: answer its job, or see to it that this happens later.

Returning means that the message is finished with: what must happen again was sent again, with a delay, and
what never can was buried with its reason. So neither an outage nor a busy worker uses up the deliveries that
a queue counts. Raising means that store or queue cannot be had: let the message be delivered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from random import Random
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from firsttoken.errors import QueueError, StoreError
from firsttoken.gateway import ANY, Gateway
from firsttoken.jobs.job import Job, JobRequest, Message
from firsttoken.jobs.jobs import Busy, Jobs, is_id
from firsttoken.worker.answering import Answering

Extend = Callable[[float], Awaitable[object]]
"""Keeps the message hidden from other workers for so many seconds from now on."""
OF_ITS_AGE = 0.25
"""The part of a job's age that it waits at least while no target may be called."""
SHORT = 5.0
"""Seconds of waiting for a permit that are slept through, rather than sent around."""
LEAST = 1.0
"""Seconds that a message stays away at least, if that was asked for."""
AFTERWARDS = 15.0
"""Seconds until a job's webhook is asked for once more, where it had ended before: it was called by then."""
MIN_LEFT = 2.0
"""Seconds that the platform has to leave for a job to be begun."""
SETTLE = 0.25
"""Seconds that a function waits for what it still tells the store."""
_rng = Random()  # noqa: S311 - jitter, not secrets


class _Message(Message, frozen=True):
    request: Raw | UnsetType = UNSET
    """A chat completion, where the message makes its job itself."""


class _Named(Struct):
    model: str = ""


_message = msgspec.json.Decoder(_Message)


async def answer_message(
    gateway: Gateway,
    body: str | bytes,
    *,
    delivered: int = 1,
    extend: Extend | None = None,
    deadline: float | None = None,
) -> dict[str, Any]:
    """Handle one delivery; see `firsttoken.worker.answer_message`."""
    jobs = gateway.jobs
    if jobs is None:
        raise QueueError("No queue is configured; expected a [queue] section.")
    raw = body.encode() if isinstance(body, str) else body
    try:
        row = await _Delivery(gateway, jobs, raw, extend, deadline).handle()
    finally:
        if deadline is not None:  # a function is frozen once it has returned
            await gateway.shadow.settle(SETTLE)
    return {**row, "delivered": delivered}


class _Delivery:
    def __init__(
        self, gateway: Gateway, jobs: Jobs, body: bytes, extend: Extend | None, deadline: float | None
    ) -> None:
        self._gateway = gateway
        self._jobs = jobs
        self._body = body
        self._extend = extend
        self._now = asyncio.get_running_loop().time
        self._deadline = deadline

    async def handle(self) -> dict[str, Any]:
        try:
            message = _message.decode(self._body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return await self._bury(f'no job\'s message: {error}; expected {{"id": ..., "tenant": ...}}')
        if not is_id(message.id) or not message.tenant:
            return await self._bury("no job's message: expected an id of letters, digits, _ . - and a tenant")
        job = await self._find(message)
        if job is None:
            return await self._unknown(message.id, message.tenant)
        if message.kind == "answer":
            return await self._answer(job)
        if not job.is_final:
            return _row(job, "duplicate")
        from firsttoken.worker.notify import deliver

        return await deliver(self._gateway, job, self._hold)

    async def _answer(self, job: Job) -> dict[str, Any]:
        if self._jobs.is_over(job):
            job = await self._jobs.expire(job)
            return await self._ended(job, job.state)
        if job.is_final:
            return await self._ended(job, "duplicate", AFTERWARDS)
        wait = await self._wait(job)
        return await self._again(job, wait) if wait else await self._take(job)

    async def _find(self, message: _Message) -> Job | None:
        job = await self._jobs.find(message.tenant, message.id)
        if job is not None or message.request is UNSET:
            return job
        if await self._jobs.was_deleted(message.tenant, message.id):
            return None
        request = JobRequest("openai_chat", bytes(message.request))
        now, model = self._jobs.wall(), _model_of(request.body)
        made = Job(
            id=message.id,
            tenant=message.tenant,
            model=model,
            wire=request.wire,
            created=now,
            expires=now + self._jobs.settings.expires,
        )
        await self._jobs.create(made, request)
        return await self._jobs.find(message.tenant, message.id)

    async def _wait(self, job: Job) -> float:
        """Return the seconds until it makes sense to begin; short waits are over on return."""
        gateway = self._gateway
        if self._deadline is not None and self._deadline - self._now() < MIN_LEFT:
            return self._jobs.settings.retry_after
        with suppress(StoreError):
            await gateway.board.read()  # an instance that has just started knows of no open circuit
        if (wait := gateway.wait_for(job.model)) is not None:
            # The longer it lasts the more seldom each job asks: else a backlog keeps its queue busy.
            return _spread(max(wait, OF_ITS_AGE * (self._jobs.wall() - job.created)))
        slept = 0.0
        # A route for any model has one pace, whatever names its clients invent.
        route = job.model if job.model in gateway.settings.models else ANY
        while (wait := await gateway.pace.wait_time(route)) > 0:
            slept += wait
            if slept > SHORT:
                return wait
            await self._sleep(wait)
        return 0.0

    async def _take(self, job: Job) -> dict[str, Any]:
        begun = await self._jobs.begin(job.tenant, job.id)
        if begun is None:
            return await self._unknown(job.id, job.tenant)
        if isinstance(begun, Busy):
            return await self._again(job, _spread(begun.seconds))
        if isinstance(begun, Job):
            return await self._ended(begun, "done" if begun.state == "done" else "duplicate")  # adopted
        try:
            answering = Answering(self._gateway, self._jobs, begun, self._stays, self._deadline)
            after, wait = await answering.run(self._body)
        finally:
            await begun.leave()
        if not after.is_final:
            return await self._again(after, wait)
        return await self._ended(after, after.state, AFTERWARDS if after.state == "cancelled" else 0.0)

    async def _again(self, job: Job, wait: float) -> dict[str, Any]:
        """Send the message again, so that its job is looked at after ``wait`` seconds, or as it expires."""
        left = job.expires - self._jobs.wall()
        wait = max(min(wait, self._jobs.settings.max_delay, left), min(wait, LEAST))
        await self._hold(wait)
        await self._jobs.send(job, wait)
        return _row(job, "later", delay=round(wait, 3))

    async def _ended(self, job: Job, status: str, after: float = 0.0) -> dict[str, Any]:
        """Return the row of a job that has ended; its webhook is to be called, if that was not tried yet."""
        if not job.notices:
            await self._jobs.notice(job, after)
        return _row(job, status)

    async def _unknown(self, name: str, tenant: str) -> dict[str, Any]:
        """Bury the message of a job that is not there; what its client deleted needs nobody's attention."""
        if await self._jobs.was_deleted(tenant, name):
            return {"status": "duplicate", "id": name, "tenant": tenant}
        return await self._bury("unknown job, or too old", name, tenant)

    async def _bury(self, reason: str, name: str = "", tenant: str = "") -> dict[str, Any]:
        await self._jobs.queue.bury(self._body, reason)
        return {"status": "dead", "id": name, "tenant": tenant, "reason": reason}

    async def _stays(self, seconds: float) -> None:
        """Keep the message ours, as far as that is possible."""
        if self._extend is not None:
            with suppress(QueueError):
                await self._extend(seconds)

    async def _sleep(self, seconds: float) -> None:
        """Wait without losing the message."""
        step = self._jobs.settings.lease / 3
        while seconds > 0:
            await self._stays(self._jobs.settings.lease)
            await asyncio.sleep(min(step, seconds))
            seconds -= step

    async def _hold(self, wait: float) -> None:
        """Keep a message that is to go back to a queue that knows no delay, as long as that is possible."""
        if not self._jobs.queue.max_delay:
            left = inf if self._deadline is None else self._deadline - self._now() - MIN_LEFT
            longest = float(getattr(self._gateway.settings.queue, "hold", 0.0))
            await self._sleep(min(wait, longest, left))


def _spread(wait: float) -> float:
    """Return a wait with so much of chance in it that those who wait together do not come together."""
    return wait * _rng.uniform(1.0, 1.5)


def _row(job: Job, status: str, **more: Any) -> dict[str, Any]:
    """Return what a log says of a job."""
    names = ("id", "tenant", "model", "state", "attempts", "epoch", "target")
    error = job.error.code if job.error else None
    return {"status": status, **{name: getattr(job, name) for name in names}, "error": error, **more}


def _model_of(body: bytes) -> str:
    """Return the model that a request names, as far as it can be read."""
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(body, type=_Named).model
    return ""
