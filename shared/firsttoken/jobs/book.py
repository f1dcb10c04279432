"""The records of jobs: each changes only by a conditional write of all of it, whoever changes it."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
from msgspec import Struct

from firsttoken.errors import StoreError
from firsttoken.jobs.job import Job
from firsttoken.stores.store import Store

MAX_TRIES = 16
"""Writers that may come first, one after the other, before a change is given up."""
_SLACK = 60.0
"""Seconds that what belongs to a record is kept longer than the record."""
_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Job).decode


class Held(Struct, frozen=True):
    """A record as it was read: it can be written only while these are its bytes."""

    job: Job
    raw: bytes


def is_id(name: str) -> bool:
    """Return whether ``name`` may name a job: without a colon, so that two keys are never one."""
    return _ID.fullmatch(name) is not None


class Book:
    """The records in a store. Every method may raise StoreError; after one a write may have been done."""

    def __init__(self, store: Store, keep: float, wall: Callable[[], float]) -> None:
        self._store = store
        self._keep = keep
        self.wall = wall

    async def find(self, tenant: str, name: str) -> Held | None:
        """Return a record, or None. Raises StoreError where its bytes mean nothing to this version."""
        if not is_id(name):
            return None
        raw = await self._store.get(key_of(tenant, name))
        return None if raw is None else Held(read(raw), raw)

    async def create(self, job: Job) -> bool:
        """Write a new record; say whether there was none of that id."""
        return await self._store.swap(key_of(job.tenant, job.id), None, _encode(job), self.ttl(job))

    async def take_back(self, job: Job) -> bool:
        """Delete a record that is still as it was created; say whether it was."""
        return await self._store.delete(key_of(job.tenant, job.id), _encode(job))

    async def change(self, tenant: str, name: str, step: Callable[[Job], Job | None]) -> Job | None:
        """Take a step and return the record after it; None where there is no such job.

        ``step`` returns the new record, or None where it is not to be taken: the record stays as it is. It is
        called again where another writer came first. Raises StoreError after `MAX_TRIES` of those.
        """
        for _ in range(MAX_TRIES):
            held = await self.find(tenant, name)
            if held is None:
                return None
            job = step(held.job)
            if job is None:
                return held.job
            if await self._store.swap(key_of(tenant, name), held.raw, _encode(job), self.ttl(job)):
                return job
        raise StoreError(f"The job {name} is changed by too many at once.")

    def ttl(self, job: Job) -> float:
        """Return for how long a record is kept from now on, in seconds."""
        now = self.wall()
        if job.is_final:
            return max(job.finished + self._keep - now, _SLACK)
        return max(job.expires - now, 0.0) + self._keep

    def ttl_of_parts(self, job: Job) -> float:
        """Return for how long what belongs to a job is kept: as long as any record of it can be."""
        return max(job.expires - self.wall(), 0.0) + self._keep + _SLACK


def key_of(tenant: str, name: str) -> str:
    """Return the key of a job's record, and of its lease."""
    return f"job:{tenant}:{name}"


def read(raw: bytes) -> Job:
    """Return the job that a record's bytes mean. Raises StoreError where they mean none."""
    try:
        return _decode(raw)
    except msgspec.DecodeError as error:
        raise StoreError(f"A job's record cannot be read: {error}.") from error
