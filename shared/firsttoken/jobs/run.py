"""A worker's hold on one job, from its beginning to an end or to its return to the queue.

The lease says that somebody works on it, the record's epoch who: every step of a hold is a conditional write
that is taken only while the record still is of this epoch, and each can be taken twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from firsttoken.errors import StoreError
from firsttoken.jobs.book import Book, key_of
from firsttoken.jobs.job import Job, JobError
from firsttoken.jobs.kept import Kept
from firsttoken.jobs.progress import Progress
from firsttoken.model import Chunk
from firsttoken.stores.store import Store

T = TypeVar("T")
_FIRST_PAUSE = 0.2
_MAX_PAUSE = 5.0


class Busy(Struct, frozen=True):
    """Another worker has the job, for ``seconds`` at most without a sign of life."""

    seconds: float


class Run:
    """A job that this worker answers. Made by `firsttoken.jobs.jobs.Jobs.begin`."""

    def __init__(self, job: Job, owner: str, store: Store, book: Book, kept: Kept, lease: float) -> None:  # noqa: PLR0913, PLR0917 - parts
        self.job = job
        """As it was when this run began."""
        self.lease = lease
        """Seconds that it is held without a sign of life (`is_mine`)."""
        self._owner = owner
        self._store = store
        self._book = book
        self._kept = kept
        self._done: Job | None = None
        """The job with its end, once its answer is written."""

    def progress(self) -> Progress:
        """Return what collects the answer."""
        return Progress(self._kept, self.job, self._book.ttl_of_parts(self.job))

    async def is_mine(self) -> bool:
        """Renew the lease; return False where the job was cancelled, ended or taken over. May StoreError."""
        if await self._store.lease(self._key, self._owner, self.lease) is None:
            return False
        held = await self._book.find(self.job.tenant, self.job.id)
        return held is not None and self._holds(held.job)

    async def done(self, chunks: Sequence[Chunk], target: str, attempts: int) -> Job:
        """Write the answer, then end the job with it; see `fail`.

        Raises ValueError for an answer that cannot be kept.
        """
        ttl = self._book.ttl_of_parts(self.job)
        await self._insist(lambda: self._kept.put_answer(self.job, target, chunks, ttl))
        self._done = replace(self.job, state="done", target=target, attempts=attempts)
        return await self._end(self._done)

    async def fail(self, error: JobError, attempts: int) -> Job:
        """End the job without an answer, and return it: as it ended, be it otherwise and by somebody else.

        An answer costs money, so a store that is down is asked for a while. Raises StoreError after that.
        """
        return await self._end(replace(self.job, state="failed", error=error, attempts=attempts))

    async def expire(self) -> Job:
        """End the job because its time is over; see `fail`."""
        return await self._end(replace(self.job, state="expired"))

    async def hand_back(self, attempts: int) -> Job:
        """Let the job wait again, and return it; one whose answer is written already ends with that.

        Whoever hands it back sees to it that a message comes.
        """
        if self._done is not None:
            return await self._change(replace(self._done, finished=self._book.wall()))
        return await self._change(replace(self.job, state="queued", attempts=attempts))

    async def leave(self) -> None:
        """Give the lease back, if that can be done."""
        with suppress(StoreError):
            await self._store.release(self._key, self._owner)

    @property
    def _key(self) -> str:
        return key_of(self.job.tenant, self.job.id)

    def _holds(self, job: Job) -> bool:
        return job.state == "running" and job.epoch == self.job.epoch

    async def _end(self, ended: Job) -> Job:
        return await self._insist(lambda: self._change(replace(ended, finished=self._book.wall())))

    async def _change(self, changed: Job) -> Job:
        job = self.job
        after = await self._book.change(job.tenant, job.id, lambda now: changed if self._holds(now) else None)
        return replace(job, state="expired") if after is None else after  # its record's time was over

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work``, which can be done twice, again for a lease's time while the store is down."""
        now = asyncio.get_running_loop().time
        until, pause = now() + self.lease, _FIRST_PAUSE
        while True:
            try:
                return await work()
            except StoreError:
                if now() + pause > until:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)
