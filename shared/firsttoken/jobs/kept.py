"""What belongs to a job besides its record: request, answer and the parts of an answer under way, sealed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from firsttoken.cache.crypto import Seal
from firsttoken.cache.entry import Entry, decode, encode
from firsttoken.errors import StoreError
from firsttoken.jobs.job import Job, JobRequest
from firsttoken.model import Chunk
from firsttoken.objects.objects import Objects
from firsttoken.stores.parts import MAX_LARGE_BYTES, get_large, put_large
from firsttoken.stores.store import Store

MAX_BYTES = MAX_LARGE_BYTES
"""Of a request or an answer, as it is written."""
_HERE, _ELSEWHERE = b"h", b"o"
_request = msgspec.msgpack.Decoder(JobRequest).decode


class Kept:
    """Values of a job, closed under their own name: a copy under another one does not open.

    What is larger than ``inline`` bytes goes to ``objects``, if there are any. Every method may raise
    StoreError. Memory: one value, and its sealed copy, at a time.
    """

    def __init__(
        self, store: Store, objects: Objects | None, inline: int, seal: Seal, wall: Callable[[], float]
    ) -> None:
        self._store = store
        self._objects = objects
        self._inline = inline
        self._seal = seal
        self._wall = wall

    async def put_request(self, job: Job, request: JobRequest, ttl: float) -> None:
        """Keep what was asked. Raises StoreError for more than `MAX_BYTES`."""
        name = f"job-request:{job.tenant}:{job.id}"
        sealed = self._seal.mark + self._seal.close(name, msgspec.msgpack.encode(request))
        await self._put(name, sealed, ttl)

    async def get_request(self, job: Job) -> JobRequest | None:
        """Return what was asked, or None where it cannot be had any more."""
        name = f"job-request:{job.tenant}:{job.id}"
        sealed = await self._get(name)
        if sealed is None or sealed[:1] != self._seal.mark:
            return None
        body = self._seal.open(name, sealed[1:])
        return None if body is None else _request(body)

    async def put_answer(self, job: Job, target: str, chunks: Sequence[Chunk], ttl: float) -> None:
        """Keep the whole answer of the job's epoch. Raises ValueError for one that cannot be written."""
        name = _answer(job)
        data = encode(Entry(name, self._wall(), target=target, chunks=tuple(chunks)), self._seal)
        if data is None or len(data) >= MAX_BYTES:
            raise ValueError(f"expected an answer of at most {MAX_BYTES} bytes, of whole characters")
        await self._put(name, data, ttl)

    async def get_answer(self, job: Job) -> Entry | None:
        """Return the whole answer of the job's epoch, or None where there is none."""
        name = _answer(job)
        data = await self._get(name)
        return None if data is None else decode(data, name, self._seal, self._wall())

    async def delete(self, job: Job) -> None:
        """Forget request and answer of a job; in the store their parts stay until their time is over."""
        for name in (f"job-request:{job.tenant}:{job.id}", _answer(job)):
            await self._store.delete(name)
            if self._objects is not None:
                await self._objects.delete(name)

    async def put_part(self, job: Job, number: int, chunks: Sequence[Chunk], ttl: float) -> None:
        """Keep one part of the answer under way. Raises ValueError for one that cannot be written."""
        name = part_key(job, number)
        data = encode(Entry(name, self._wall(), chunks=tuple(chunks)), self._seal)
        if data is None:
            raise ValueError("expected whole characters")
        await self._store.put(name, data, ttl)

    def read_part(self, job: Job, number: int, found: Mapping[str, bytes]) -> tuple[Chunk, ...] | None:
        """Return a part among what was ``found`` in the store, or None."""
        name = part_key(job, number)
        data = found.get(name)
        entry = None if data is None else decode(data, name, self._seal, self._wall())
        return None if entry is None else entry.chunks

    async def _put(self, name: str, data: bytes, ttl: float) -> None:
        if len(data) >= MAX_BYTES:
            raise StoreError(f"{len(data)} bytes are too many for a job; expected at most {MAX_BYTES}.")
        if self._objects is None or len(data) <= self._inline:
            await put_large(self._store, name, _HERE + data, ttl)
            return
        await self._objects.put(name, data, ttl)
        await put_large(self._store, name, _ELSEWHERE, ttl)

    async def _get(self, name: str) -> bytes | None:
        data = await get_large(self._store, name)
        if data is None or data[:1] == _HERE:
            return None if data is None else data[1:]
        return None if self._objects is None else await self._objects.get(name, MAX_BYTES)


def part_key(job: Job, number: int) -> str:
    """Return the key of a part of the answer of the job's epoch."""
    return f"job-part:{job.epoch}:{number}:{job.tenant}:{job.id}"


def _answer(job: Job) -> str:
    return f"job-answer:{job.epoch}:{job.tenant}:{job.id}"
