"""Read a job while a worker answers it: through the store only, so from any instance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING

from firsttoken.errors import StoreError, UpstreamClosedError
from firsttoken.jobs.book import key_of, read
from firsttoken.jobs.job import Job
from firsttoken.jobs.kept import part_key
from firsttoken.model import Chunk

if TYPE_CHECKING:
    from firsttoken.jobs.jobs import Jobs

FIRST_PAUSE, MAX_PAUSE = 0.1, 1.0
"""Seconds between two looks: longer while nothing happens."""
PATIENCE = 5.0
"""Seconds that the store may be down."""
_AHEAD = 8
"""Parts that are asked for at once."""


class Reader:
    """Where somebody is who follows a job. One round trip a look; memory: `_AHEAD` parts."""

    def __init__(self, jobs: Jobs, tenant: str, name: str) -> None:
        self._jobs = jobs
        self._key = key_of(tenant, name)
        self.job: Job | None = None
        self.gone = False
        self._parts = 0
        self._given = 0
        """Chunks of this epoch that were handed on."""

    async def look(self) -> list[Job | Chunk]:
        """Return what is new, in order. Raises UpstreamClosedError where the answer began anew."""
        known = self.job
        numbers = range(self._parts, self._parts + _AHEAD) if known and known.state == "running" else ()
        keys = [part_key(known, number) for number in numbers] if known else []
        found = await self._jobs.store.get_many([self._key, *keys])
        if self._key not in found:
            self.gone = True
            return []
        job = read(found[self._key])
        if known and job.epoch < known.epoch:
            return []  # an older copy of the record, as some stores may give
        if known and job.epoch == known.epoch and job.state == "running":
            return self._next_parts(job, numbers, found)
        news: list[Job | Chunk] = []
        if job.state == "done":
            if known is None or job.epoch != known.epoch:
                self._begin_anew(job)
            news += await self._rest(job)
        elif job.state in ("queued", "running"):
            self._begin_anew(job)
        if known is None or job.state != known.state:
            news.append(job)
        self.job = job
        return news

    def _next_parts(self, job: Job, numbers: Sequence[int], found: Mapping[str, bytes]) -> list[Job | Chunk]:
        news: list[Job | Chunk] = []
        for number in numbers:
            part = self._jobs.kept.read_part(job, number, found)
            if part is None:
                break
            self._parts += 1
            self._given += len(part)
            news += part
        return news

    def _begin_anew(self, job: Job) -> None:
        if self._given:
            message = "The answer broke off and is made anew; the job goes on."
            raise UpstreamClosedError(f"{message} Fetch it at /v1/jobs/{job.id}.", code="job_restarted")
        self._parts = 0

    async def _rest(self, job: Job) -> Sequence[Chunk]:
        chunks = await self._jobs.answer(job)
        if chunks is None:
            message = f"The answer of the job {job.id} is not kept any more."
            raise UpstreamClosedError(message, code="answer_expired")
        return chunks[self._given :]


async def follow(jobs: Jobs, tenant: str, name: str, until: float) -> AsyncGenerator[Job | Chunk]:
    """Yield a job at each change of its state, and its answer as it comes; see `Jobs.follow`."""
    now = asyncio.get_running_loop().time
    reader = Reader(jobs, tenant, name)
    pause, heard = FIRST_PAUSE, now()
    while True:
        try:
            news = await reader.look()
            heard = now()
        except StoreError:
            if now() - heard > PATIENCE:
                raise
            news = []
        for item in news:
            yield item
        if reader.gone or (reader.job is not None and reader.job.is_final):
            return
        pause = FIRST_PAUSE if news else min(pause * 1.5, MAX_PAUSE)
        if now() + pause >= until:
            await asyncio.sleep(max(until - now(), 0.0))
            return
        await asyncio.sleep(pause)
