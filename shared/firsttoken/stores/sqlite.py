"""An SQLite file as the store: what the processes of one machine share without a server.

All work is done in one thread of its own, with Python's own sqlite3, so the event loop never waits for the
disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from firsttoken.settings import SqliteStore as Settings
from firsttoken.stores.keys import check_number, check_value
from firsttoken.stores.sqlite_file import Place, SqliteFile, set_limit

if TYPE_CHECKING:
    from sqlite3 import Connection

T = TypeVar("T")

EPOCH_SECONDS = 7_200.0
"""How long the epoch of a lease that nobody holds is remembered."""
MAX_FILE_BYTES = 1024**3
PURGE_EVERY = 64
"""Writes of one process after which `PURGE_ROWS` expired rows are deleted at most."""
PURGE_ROWS = 128
_MAX_VARIABLES = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, value, owner TEXT, until REAL, expires REAL NOT NULL
)"""
_WRITE = "INSERT OR REPLACE INTO entries (key, value, owner, until, expires) VALUES (?, ?, ?, ?, ?)"
_PURGE = "DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries WHERE expires <= ? LIMIT ?)"


class SqliteStore:
    """Values, counters and leases as rows of one table, shared by processes, in wall-clock time.

    An operation takes tens of microseconds, more where many processes write at once: they take turns. The
    file holds `MAX_FILE_BYTES` at most; expired rows are deleted as others are written. A file that was
    deleted is made anew; so is one that is corrupt, unless its path was configured.
    """

    shared = True
    max_value_bytes = 64 * 1024 * 1024

    def __init__(self, settings: Settings, *, name: str = "", clock: Callable[[], float] = time.time) -> None:
        self._file = _File(settings, name)
        self._clock = clock
        self._thread: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Import sqlite3 and open the file; the first operation does so if need be."""
        await self._run(lambda connection: None)  # noqa: ARG005 - opening is the work

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None; see `Store`."""
        return (await self.get_many([key])).get(key)

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values that are there; see `Store`."""
        names = {_value(key): key for key in keys}
        now = self._clock()

        def work(connection: Connection) -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            listed = list(names)
            for start in range(0, len(listed), _MAX_VARIABLES):
                some = listed[start : start + _MAX_VARIABLES]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, value FROM entries WHERE expires > ? AND key IN ({marks})"  # noqa: S608
                found.update(connection.execute(query, (now, *some)).fetchall())
            return {names[name]: value for name, value in found.items()}

        return await self._run(work)

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Write a value; see `Store`."""
        check_value(value, self.max_value_bytes)
        await self._write(lambda connection, now: _put(connection, key, value, now + ttl))

    async def swap(self, key: str, old: bytes | None, new: bytes, ttl: float) -> bool:
        """Write a value where it is ``old``; see `Store`."""
        check_value(new, self.max_value_bytes)

        def work(connection: Connection, now: float) -> bool:
            row = _find(connection, _value(key), now)
            if (row and row[0]) != old:
                return False
            _put(connection, key, new, now + ttl)
            return True

        return await self._write(work)

    async def delete(self, key: str, old: bytes | None = None) -> bool:
        """Delete a value; see `Store`."""

        def work(connection: Connection, now: float) -> bool:
            row = _find(connection, _value(key), now)
            if row is None or (old is not None and row[0] != old):
                return False
            connection.execute("DELETE FROM entries WHERE key = ?", (_value(key),))
            return True

        return await self._write(work)

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add to a counter; see `Store`. Raises ValueError beyond 64 bits."""
        name = f"{key}:c"

        def work(connection: Connection, now: float) -> int:
            row = _find(connection, name, now)
            number, expires = (row[0], row[3]) if row else (0, now + ttl)
            number = check_number(number + amount)
            connection.execute(_WRITE, (name, number, None, None, expires))
            return number

        return await self._write(work)

    async def lease(self, key: str, owner: str, ttl: float) -> int | None:
        """Take or renew a lease; see `Store`."""
        name = f"{key}:l"

        def work(connection: Connection, now: float) -> int | None:
            before, holder, until, _ = _find(connection, name, now) or (0, None, now, now)
            held = until > now
            if held and holder != owner:
                return None
            epoch = int(before) if held else int(before) + 1
            connection.execute(_WRITE, (name, epoch, owner, now + ttl, now + ttl + EPOCH_SECONDS))
            return epoch

        return await self._write(work)

    async def release(self, key: str, owner: str) -> bool:
        """Give a lease back; see `Store`."""
        name = f"{key}:l"

        def work(connection: Connection, now: float) -> bool:
            row = _find(connection, name, now)
            if row is None or row[1] != owner or row[2] <= now:
                return False
            connection.execute(_WRITE, (name, row[0], None, now, now + EPOCH_SECONDS))
            return True

        return await self._write(work)

    async def purge(self) -> int:
        """Delete what has expired, in small steps between which others work; return how many there were."""
        count = 0
        while deleted := await self._write(_purge):
            count += deleted
        return count

    async def aclose(self) -> None:
        """Close the file and end the thread. What is asked for afterwards opens it again."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                await asyncio.get_running_loop().run_in_executor(thread, self._file.close)
            finally:
                thread.shutdown(wait=False)

    async def _write(self, work: Callable[[Connection, float], T]) -> T:
        """Do ``work`` as one transaction; it waits for other processes' before it begins."""
        clock = self._clock

        def transaction(connection: Connection) -> T:
            if self._file.purge_is_due():
                _purge(connection, clock())
            connection.execute("BEGIN IMMEDIATE")
            with connection:  # commits, or rolls back
                return work(connection, clock())

        return await self._run(transaction)

    async def _run(self, work: Callable[[Connection], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "firsttoken-sqlite")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._file.run, work)


class _File(SqliteFile):
    """The store's file, in which what has expired is deleted now and then."""

    def __init__(self, settings: Settings, name: str) -> None:
        place = Place(settings.path, f"{name or 'default'}.sqlite", "The store (sqlite)", "store.path")
        busy = settings.timeout * 0.8  # the error is to come before the caller gives up
        own = not settings.path
        # Of a temporary file nothing need be left after a power cut, and a corrupt one can be replaced.
        super().__init__(place, busy, synchronous="OFF" if own else "NORMAL", replace=own)
        self._writes = 0

    def purge_is_due(self) -> bool:
        """Count a write; say whether it is one that also deletes what has expired."""
        self._writes += 1
        return self._writes % PURGE_EVERY == 0

    def prepare(self, connection: Connection) -> None:
        """Make the table."""
        set_limit(connection, MAX_FILE_BYTES)
        connection.execute(_SCHEMA)
        connection.execute("CREATE INDEX IF NOT EXISTS expiry ON entries (expires)")

    def full(self) -> None:
        """Have the next write make room first."""
        self._writes = -1


def _value(key: str) -> str:
    return f"{key}:v"


def _find(connection: Connection, name: str, now: float) -> tuple[Any, ...] | None:
    """Return value (or number), owner, until and expires of what has not expired."""
    query = "SELECT value, owner, until, expires FROM entries WHERE key = ? AND expires > ?"
    row: tuple[Any, ...] | None = connection.execute(query, (name, now)).fetchone()
    return row


def _put(connection: Connection, key: str, value: bytes, expires: float) -> None:
    connection.execute(_WRITE, (_value(key), value, None, None, expires))


def _purge(connection: Connection, now: float) -> int:
    return connection.execute(_PURGE, (now, PURGE_ROWS)).rowcount
