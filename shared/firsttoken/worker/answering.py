"""Call the model for one job, with signs of life, and take the step that the outcome asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from random import Random
from typing import Any

from firsttoken.errors import (
    DeadlineError,
    FirstTokenError,
    QueueError,
    RequestError,
    StoreError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
)
from firsttoken.gateway import Gateway
from firsttoken.jobs.job import Job, JobError
from firsttoken.jobs.jobs import Jobs, Run
from firsttoken.jobs.progress import Progress
from firsttoken.model import Call
from firsttoken.telemetry.record import Record
from firsttoken.wire import codec_of

_GRACE = 2.0
"""Seconds that handing back may take when the platform stops us."""
_VANISHED = JobError(502, "upstream_error", "Every worker that began this job vanished.", "worker_lost")
_FORGOTTEN = JobError(500, "server_error", "What was asked cannot be had any more.", "request_lost")
_rng = Random()  # noqa: S311 - jitter, not secrets

Outcome = tuple[Job, float]
"""A job with its end; or without one, and the seconds after which it should be looked at again."""


class Answering:
    """One run of one job."""

    def __init__(
        self,
        gateway: Gateway,
        jobs: Jobs,
        run: Run,
        stays: Callable[[float], Awaitable[None]],
        deadline: float | None,
    ) -> None:
        self._gateway = gateway
        self._jobs = jobs
        self._run = run
        self._stays = stays
        """Keeps the message ours for so many seconds."""
        self._deadline = deadline
        self._now = asyncio.get_running_loop().time

    async def run(self, body: bytes) -> Outcome:
        """Answer the job; ``body``, its message, is buried where that is given up. Cancelled, hand it back.

        Only what a target that was called did wrong is an attempt: not a rate limit, nor an open breaker.
        """
        run, job = self._run, self._run.job
        call: Call | None = None
        try:
            if self._jobs.wall() >= job.expires:
                return self._after(await run.expire())
            if job.attempts >= self._jobs.settings.max_attempts:
                return await self._give_up(body, _VANISHED, job.attempts)
            call = await self._call()
            return (
                self._after(await run.fail(_FORGOTTEN, job.attempts))
                if call is None
                else await self._answer(call)
            )
        except asyncio.CancelledError:
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(_GRACE):
                    await run.hand_back(job.attempts)
            raise
        except (StoreError, QueueError):
            raise
        except FirstTokenError as error:
            return await self._failed(body, call, error)

    async def _call(self) -> Call | None:
        job = self._run.job
        request = await self._jobs.request(job)
        if request is None:
            return None
        read, source = codec_of(request.wire).read_request(request.body, request.model, stream=request.stream)
        now, limits = self._now(), self._gateway.settings.timeouts
        deadline = now + min(limits.total, job.expires - self._jobs.wall())
        if self._deadline is not None:
            reserve = min(limits.reserve, max(self._deadline - now, 0.0) / 4)
            deadline = min(deadline, self._deadline - reserve)
        record = Record(job.id, job.tenant, read.model, stream=read.stream, started=now, job=job.id)
        return Call(
            request=read,
            source=source,
            id=job.id,
            deadline=deadline,
            tenant=job.tenant,
            headers=request.headers,
            record=record,
            background=True,
        )

    async def _answer(self, call: Call) -> Outcome:
        run = self._run
        async with run.progress() as progress:
            if not await self._while_ours(_collected(self._gateway, call, progress)):
                return await self._lost()
        attempts = run.job.attempts + bool(call.record.attempts)
        why = f"it is larger than {progress.limit} bytes"
        if not progress.over:
            try:
                return self._after(await run.done(progress.whole(), call.record.target, attempts))
            except ValueError as error:
                why = str(error)
        large = JobError(502, "upstream_error", f"The answer cannot be kept: {why}.", "answer_not_kept")
        return self._after(await run.fail(large, attempts))

    async def _while_ours(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do ``work`` with signs of life; stop it and return False when the job is not ours any more."""
        task = asyncio.get_running_loop().create_task(work)
        pause = self._run.lease / 3
        try:
            await self._stays(self._run.lease)  # so a worker that dies early does not hide it for longer
            while not (await asyncio.wait({task}, timeout=pause))[0]:
                await self._stays(self._run.lease)
                with suppress(StoreError):  # its lease may run out: whoever takes it over has another epoch
                    if not await self._run.is_mine():
                        return False
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # nobody asks for it where the work was stopped
        await task
        return True

    async def _failed(self, body: bytes, call: Call | None, error: FirstTokenError) -> Outcome:
        run, settings = self._run, self._jobs.settings
        said = JobError(error.status, error.type, str(error), error.code, error.param)
        called = call is not None and bool(call.record.attempts)
        attempts = run.job.attempts + (called and not isinstance(error, UpstreamRateLimitError))
        if isinstance(error, RequestError | UpstreamRefusedError):
            return self._after(await run.fail(said, attempts))
        if self._jobs.wall() >= run.job.expires:
            return self._after(await run.expire())
        if attempts >= settings.max_attempts:
            return await self._give_up(body, said, attempts)
        wait = settings.retry_after * 2.0 ** min(attempts, 32) * _rng.uniform(0.5, 1.0)
        return self._after(
            await run.hand_back(attempts), max(wait, (error.retry_after or 0.0) * _rng.uniform(1, 1.5))
        )

    async def _give_up(self, body: bytes, error: JobError, attempts: int) -> Outcome:
        # Buried first: a crash in between buries it twice, and does not lose it.
        await self._jobs.queue.bury(body, f"{attempts} attempts: {error.message}")
        return self._after(await self._run.fail(error, attempts))

    async def _lost(self) -> Outcome:
        found = await self._jobs.find(self._run.job.tenant, self._run.job.id)
        return self._after(found or self._run.job)

    def _after(self, job: Job, wait: float = 0.0) -> Outcome:
        """Return what comes next. While another worker has the job, our message may be its as well."""
        ours = job.state == "queued" and job.epoch == self._run.job.epoch
        return job, wait if ours or job.is_final else self._run.lease


async def _collected(gateway: Gateway, call: Call, progress: Progress) -> None:
    try:
        async with asyncio.timeout_at(call.deadline), aclosing(gateway.stream(call)) as chunks:
            async for chunk in chunks:
                progress.add(chunk)
                if progress.over:
                    return
    except TimeoutError:
        raise DeadlineError("The time for this call is used up.") from None
