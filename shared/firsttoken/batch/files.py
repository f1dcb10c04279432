"""Files of tenants: the requests of batches, and their answers. Metadata in the store, contents in objects.

A file is a sequence of parts of about `PART_BYTES`, each an object of its own, sealed under its name: however
large a file is, one part is in memory.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

import msgspec
from msgspec import Struct

from firsttoken.batch.listing import Listing
from firsttoken.cache.crypto import Seal
from firsttoken.errors import RequestError, StoreError
from firsttoken.objects.objects import Objects
from firsttoken.settings.batch import Batch as Settings
from firsttoken.stores.store import Store

PART_BYTES = 1024 * 1024
MAX_PART = 12 * PART_BYTES
"""Bytes of a part as it is kept: a long line makes one larger than others."""
_SLACK = 3600.0
"""Seconds that parts are kept longer than the record that names them."""
_ID = re.compile(r"file-[A-Za-z0-9_-]{1,64}")


class File(Struct, frozen=True, kw_only=True):
    """What is known of a file. Times are Unix seconds."""

    id: str
    tenant: str
    name: str
    purpose: str
    size: int
    created: float
    expires: float
    parts: tuple[str, ...]


_file = msgspec.msgpack.Decoder(File)


class Files:
    """The files of all tenants. Every method may raise StoreError."""

    def __init__(
        self,
        store: Store,
        objects: Objects,
        settings: Settings,
        seal: Seal,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._objects = objects
        self._settings = settings
        self._seal = seal
        self._wall = wall

    async def create(
        self, tenant: str, name: str, purpose: str, content: bytes | memoryview, keep: float = 0.0
    ) -> File:
        """Keep a file for ``keep`` seconds (0: as configured). Raises RequestError if there are too many."""
        await self._make_room(tenant)
        starts = range(0, len(content), PART_BYTES)
        pieces = (bytes(content[start : start + PART_BYTES]) for start in starts)
        parts = [await self.put_part(tenant, piece, keep) for piece in pieces]
        return await self.adopt(
            f"file-{os.urandom(16).hex()}", tenant, name, purpose, len(content), parts, keep
        )

    async def adopt(  # noqa: PLR0913, PLR0917 - all that is known of a file
        self,
        file_id: str,
        tenant: str,
        name: str,
        purpose: str,
        size: int,
        parts: Iterable[str],
        keep: float = 0.0,
    ) -> File:
        """Make a file of parts that are there already; again for the same id changes nothing."""
        now, seconds = self._wall(), keep or self._settings.keep
        file = File(
            id=file_id,
            tenant=tenant,
            name=name,
            purpose=purpose,
            size=size,
            created=now,
            expires=now + seconds,
            parts=tuple(parts),
        )
        await self._store.swap(_key(tenant, file_id), None, msgspec.msgpack.encode(file), seconds)
        await self._list(tenant).add(file_id, push=True)
        return file

    async def get(self, tenant: str, file_id: str) -> File | None:
        """Return a file, or None."""
        if _ID.fullmatch(file_id) is None:
            return None
        raw = await self._store.get(_key(tenant, file_id))
        file = None if raw is None else _read(raw)
        return file if file is not None and file.expires > self._wall() else None

    async def listed(self, tenant: str) -> list[File]:
        """Return a tenant's files, oldest first."""
        names = await self._list(tenant).names()
        found = await self._store.get_many([_key(tenant, name) for name in names])
        files = [_read(raw) for raw in (found.get(_key(tenant, name)) for name in names) if raw is not None]
        return [file for file in files if file.expires > self._wall()]

    async def delete(self, tenant: str, file_id: str) -> bool:
        """Delete a file and its contents; say whether there was one."""
        file = await self.get(tenant, file_id)
        if file is None:
            return False
        gone = await self._store.delete(_key(tenant, file_id))
        await self._list(tenant).remove({file_id})
        for part in file.parts:
            await self._objects.delete(_part(tenant, part))
        return gone

    async def content(self, tenant: str, parts: Iterable[str]) -> AsyncGenerator[bytes]:
        """Yield the bytes of some parts, one after the other. Raises StoreError where one is missing."""
        for part in parts:
            yield await self.get_part(tenant, part)

    async def put_part(self, tenant: str, data: bytes, keep: float = 0.0) -> str:
        """Keep bytes, and return the name of the part that they are. A part that no file names expires."""
        part = os.urandom(12).hex()
        name = _part(tenant, part)
        sealed = self._seal.mark + self._seal.close(name, data)
        ttl = (keep or self._settings.keep) + self._settings.window + _SLACK
        try:
            await self._objects.put(name, sealed, ttl)
        except ValueError as error:
            raise StoreError(f"A part of a file cannot be kept: {error}") from error
        return part

    async def get_part(self, tenant: str, part: str) -> bytes:
        """Return the bytes of a part. Raises StoreError where it is missing, or not what was written."""
        name = _part(tenant, part)
        sealed = await self._objects.get(name, MAX_PART)
        same = sealed is not None and sealed[:1] == self._seal.mark
        data = self._seal.open(name, sealed[1:]) if sealed is not None and same else None
        if data is None:
            raise StoreError("A part of a file is missing, or cannot be opened.")
        return data

    async def extend(
        self, tenant: str, parts: tuple[str, ...], data: bytes, keep: float = 0.0
    ) -> tuple[str, ...]:
        """Return the parts of a file with ``data`` at its end.

        A small last part is written anew, under another name, so that there are never many more parts than
        twice the megabytes, and what a reader has of the old list stays as it is.
        """
        if parts and len(data) < PART_BYTES // 2:
            tail = await self.get_part(tenant, parts[-1])
            if len(tail) + len(data) <= PART_BYTES:
                return (*parts[:-1], await self.put_part(tenant, tail + data, keep))
        return (*parts, await self.put_part(tenant, data, keep))

    async def _make_room(self, tenant: str) -> None:
        limit = self._settings.max_files
        names = await self._list(tenant).names()
        if len(names) < limit:
            return
        there = {file.id for file in await self.listed(tenant)}
        await self._list(tenant).remove(set(names) - there)
        if len(there) >= limit:
            message = f"There are {len(there)} files; expected fewer than {limit}: delete some first."
            raise RequestError(message, code="too_many_files")

    def _list(self, tenant: str) -> Listing:
        # Twice the limit: the files of answers come without being asked for.
        return Listing(self._store, f"files:{tenant}", 2 * self._settings.max_files, self._settings.keep)


def shown(file: File) -> dict[str, Any]:
    """Return a file as OpenAI's API shows it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.created),
        "expires_at": int(file.expires),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def _key(tenant: str, file_id: str) -> str:
    return f"file:{tenant}:{file_id}"


def _part(tenant: str, part: str) -> str:
    return f"file-part:{tenant}:{part}"


def _read(raw: bytes) -> File:
    try:
        return _file.decode(raw)
    except msgspec.DecodeError as error:
        raise StoreError(f"A file's record cannot be read: {error}.") from error
