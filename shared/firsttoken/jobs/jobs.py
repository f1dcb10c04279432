"""Calls that are answered later, as the rest of the product sees them: submit, fetch, follow, cancel, work.

Everything is in the store (and the object storage), under keys with the tenant's name; the queue only says
which job a worker should look at. Delivery is at least once, so every step here may be taken again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from firsttoken import config
from firsttoken.cache.crypto import seal_of
from firsttoken.errors import QueueError, StoreError
from firsttoken.jobs.book import Book, is_id, key_of, read
from firsttoken.jobs.follow import follow
from firsttoken.jobs.job import Job, JobRequest, Message, new_id
from firsttoken.jobs.kept import Kept
from firsttoken.jobs.run import Busy, Run
from firsttoken.model import Call, Chunk, Later
from firsttoken.objects.objects import Objects
from firsttoken.queues.queue import Queue
from firsttoken.settings import Settings, StoreObjects
from firsttoken.stores.keys import MAX_TTL
from firsttoken.stores.store import Store

PATIENCE = 60.0
"""Seconds that a new job's message is tried to be sent."""
FIRST_PAUSE = 0.5
_PACKAGES = {"bedrock-converse": "bedrock"}
_BY_PATH = ("gemini", "bedrock")
"""Formats whose requests hold neither the model nor whether to stream."""
_encode = msgspec.json.encode


class Jobs:
    """All jobs of a deployment. Every method may raise StoreError; those that send, QueueError as well."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        queue: Queue,
        objects: Objects,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        own = self.settings = settings.jobs
        self.store = store
        self.queue = queue
        self.wall = wall
        """Unix seconds."""
        where = "jobs.encryption_key"
        self._seal = seal_of(config.secret(own.encryption_key, where), "", where)
        apart = None if isinstance(settings.objects, StoreObjects) else objects
        self.kept = Kept(store, apart, own.inline_bytes, self._seal, wall)
        self.book = Book(store, own.keep, wall)

    async def submit(self, call: Call, later: Later, *, headers: Iterable[str] = ()) -> Job:
        """Make a job of a call and send its message; on return it will be answered, or expire.

        Of the client's headers those named by ``headers`` are kept. Nothing is left behind where the message
        cannot be sent.
        """
        package = _PACKAGES.get(call.source.wire, call.source.wire.replace("-", "_"))
        by_path = package in _BY_PATH
        request = JobRequest(
            wire=package,
            body=call.source.body,
            model=call.request.model if by_path else "",
            stream=call.request.stream if by_path else None,
            headers={name: call.headers[name] for name in headers if name in call.headers},
        )
        now = self.wall()
        job = Job(
            id=new_id(),
            tenant=call.tenant,
            model=call.request.model,
            wire=package,
            created=now,
            expires=now + self.settings.expires,
            background=later.background,
            webhook=later.webhook,
        )
        await self.create(job, request)
        try:
            await self._send_for(job, call.deadline)
        except QueueError:
            if await self.book.take_back(job):
                with suppress(StoreError):
                    await self.store.put(_deleted(job.tenant, job.id), b"1", self.book.ttl(job))
                    await self.kept.delete(job)
                raise
        await self._list(job)
        return job

    async def _send_for(self, job: Job, deadline: float) -> None:
        """Send the message of a new job, again while there is time: nothing else can help its call."""
        now, pause = asyncio.get_running_loop().time, FIRST_PAUSE
        until = min(deadline, now() + PATIENCE)
        while True:
            try:
                return await self.send(job)
            except QueueError:
                if now() + pause >= until:
                    raise
            await asyncio.sleep(pause)
            pause *= 2

    async def create(self, job: Job, request: JobRequest) -> bool:
        """Write request and record of a job, without a message; say whether there was none of that id."""
        await self.kept.put_request(job, request, self.book.ttl_of_parts(job))
        return await self.book.create(job)

    async def find(self, tenant: str, name: str) -> Job | None:
        """Return a job as its record says, or None."""
        held = await self.book.find(tenant, name)
        return None if held is None else held.job

    async def get(self, tenant: str, name: str) -> Job | None:
        """Return a job, or None. One whose time is over expires with this."""
        job = await self.find(tenant, name)
        if job is None or not self.is_over(job):
            return job
        return await self._told(await self.expire(job))

    async def request(self, job: Job) -> JobRequest | None:
        """Return what was asked; None where that cannot be had any more."""
        return await self.kept.get_request(job)

    async def answer(self, job: Job) -> tuple[Chunk, ...] | None:
        """Return the answer of a job that is done; None for any other, and where it is not kept any more."""
        if job.state != "done":
            return None
        entry = await self.kept.get_answer(job)
        return None if entry is None else entry.chunks

    async def cancel(self, tenant: str, name: str) -> Job | None:
        """End a job that has no end yet, and return it as it is then; None where there is none.

        A worker that has it notices at its next sign of life, a third of a lease away at most.
        """
        before = await self.find(tenant, name)
        job = await self._end(tenant, name, lambda job: replace(job, state="cancelled"))
        return job if job is None or before is None or before.is_final else await self._told(job)

    async def delete(self, tenant: str, name: str) -> bool:
        """End a job and forget it, its request and its answer; say whether there was one.

        A worker that has it notices as with `cancel`; parts of its answer stay until their time is over. A
        mark says to whoever gets its message that it `was_deleted`.
        """
        job = await self.cancel(tenant, name)
        if job is None:
            return False
        await self.store.put(_deleted(tenant, name), b"1", self.book.ttl(job))
        await self.kept.delete(job)
        return await self.store.delete(key_of(tenant, name))

    async def was_deleted(self, tenant: str, name: str) -> bool:
        """Return whether a job that is not there was deleted by its client."""
        return await self.store.get(_deleted(tenant, name)) is not None

    async def reopen(self, tenant: str, name: str) -> Job | None:
        """Let a job that failed or expired wait again, with all its time and attempts, and return it.

        Any other is returned as it is, and so is one whose request is not kept any more. The caller sees to
        it that a message comes. None: there is no such job.
        """
        job = await self.get(tenant, name)
        if job is None or job.state not in {"failed", "expired"}:
            return job
        request = await self.request(job)
        if request is None:
            return job
        expires = self.wall() + self.settings.expires
        waits = replace(
            job, state="queued", expires=expires, attempts=0, finished=0.0, error=None, notified="", notices=0
        )
        await self.kept.put_request(waits, request, self.book.ttl_of_parts(waits))
        return await self.book.change(tenant, name, lambda now: waits if now == job else None)

    async def expire(self, job: Job) -> Job:
        """End a job whose time is over, unless it has ended otherwise; return it as it is then.

        The `notice` is the caller's.
        """

        def step(now: Job) -> Job | None:
            return replace(now, state="expired") if self.is_over(now) else None

        return await self._end(job.tenant, job.id, step) or replace(job, state="expired")

    def is_over(self, job: Job) -> bool:
        """Return whether a job's time is over; a worker that has it has a lease's time to say so itself."""
        grace = self.settings.lease if job.state == "running" else 0.0
        return not job.is_final and self.wall() >= job.expires + grace

    def follow(self, tenant: str, name: str, until: float) -> AsyncGenerator[Job | Chunk]:
        """Yield a job at each change of its state and the chunks of its answer as a worker produces them.

        Ends behind a job that is final, when there is none (any more), and at ``until`` (the event loop's
        clock). Raises UpstreamClosedError where the answer began anew and something of it was yielded, and
        StoreError when the store is down for `firsttoken.jobs.follow.PATIENCE`. A look every 0.1 to 1 s.
        """
        return follow(self, tenant, name, until)

    async def recent(self, tenant: str, limit: int) -> list[Job]:
        """Return the latest jobs of a tenant, newest first; best effort. Three round trips."""
        count = await self.store.add(f"jobs:{tenant}", 0, MAX_TTL)
        keys = [f"job-at:{number}:{tenant}" for number in range(count, max(count - limit, 0), -1)]
        listed = await self.store.get_many(keys)
        names = [listed[key].decode() for key in keys if key in listed]
        records = [key_of(tenant, name) for name in names]
        found = await self.store.get_many(records)
        return [read(found[key]) for key in records if key in found]

    async def begin(self, tenant: str, name: str) -> Run | Busy | Job | None:
        """Take a job for this worker: its `Run`, who is `Busy` with it, or the job where it has an end.

        A whole answer that a worker left behind ends the job here and now. A worker that vanished counts as
        an attempt. None: there is no such job.
        """
        owner, key = os.urandom(12).hex(), key_of(tenant, name)
        epoch = await self.store.lease(key, owner, self.settings.lease)
        if epoch is None:
            return Busy(self.settings.lease)
        run: Run | None = None
        try:
            job = await self._adopt(tenant, name)
            if job is not None and not job.is_final:
                begun = _begun(job, epoch, self.wall())
                seen = job
                job = await self.book.change(tenant, name, lambda now: begun if now == seen else None)
                if job is begun:
                    run = Run(begun, owner, self.store, self.book, self.kept, self.settings.lease)
        finally:
            if run is None:
                with suppress(StoreError):
                    await self.store.release(key, owner)
        if run is not None or job is None or job.is_final:
            return run or job
        return Busy(self.settings.lease)  # our lease ran out meanwhile: another worker has it

    async def send(self, job: Job, delay: float = 0.0) -> None:
        """Send a message that wakes a worker for a job."""
        await self.queue.send(_encode(Message(job.id, job.tenant)), delay)

    async def notice(self, job: Job, delay: float = 0.0) -> None:
        """Send a message that has a job's webhook called, if it has one and was not called before."""
        if job.is_final and job.webhook and not job.notified:
            await self.queue.send(_encode(Message(job.id, job.tenant, "notify")), delay)

    async def change(self, tenant: str, name: str, step: Callable[[Job], Job | None]) -> Job | None:
        """Change a record conditionally; see `Book.change`."""
        return await self.book.change(tenant, name, step)

    async def _adopt(self, tenant: str, name: str) -> Job | None:
        """Return a job; with the whole answer of the worker that had it last, it is done."""
        job = await self.find(tenant, name)
        if job is None or job.state != "running":
            return job
        entry = await self.kept.get_answer(job)
        if entry is None:
            return job
        done = replace(job, state="done", target=entry.target, finished=self.wall())
        return await self.book.change(tenant, name, lambda now: done if now == job else None)

    async def _end(self, tenant: str, name: str, step: Callable[[Job], Job | None]) -> Job | None:
        def end(job: Job) -> Job | None:
            ended = None if job.is_final else step(job)
            return ended and replace(ended, finished=self.wall())

        return await self.book.change(tenant, name, end)

    async def _told(self, job: Job) -> Job:
        """Have a job's webhook called; where that cannot be sent, the message that wakes a worker does it."""
        with suppress(QueueError):
            await self.notice(job)
        return job

    async def _list(self, job: Job) -> None:
        with suppress(StoreError):
            number = await self.store.add(f"jobs:{job.tenant}", 1, MAX_TTL)
            key = f"job-at:{number}:{job.tenant}"
            await self.store.put(key, job.id.encode(), self.book.ttl_of_parts(job))


def _deleted(tenant: str, name: str) -> str:
    return f"job-deleted:{tenant}:{name}"


def _begun(job: Job, epoch: int, now: float) -> Job:
    """Return a job as its next worker has it. Its epoch grows even where the store forgot the lease's."""
    return replace(
        job,
        state="running",
        epoch=max(epoch, job.epoch + 1),
        started=job.started or now,
        attempts=job.attempts + (job.state == "running"),
    )


__all__ = ["Busy", "Jobs", "Run", "is_id"]
