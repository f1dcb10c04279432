"""An SQLite file as the store: what the processes of one machine share without a server.

All work is done in one thread of its own, with Python's own sqlite3, so the event loop never waits for the
disk.
"""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from firsttoken.errors import StoreError
from firsttoken.settings import SqliteStore as Settings
from firsttoken.stores.keys import check_number, check_value

if TYPE_CHECKING:
    from sqlite3 import Connection

T = TypeVar("T")

EPOCH_SECONDS = 7_200.0
"""How long the epoch of a lease that nobody holds is remembered."""
MAX_FILE_BYTES = 1024**3
PURGE_EVERY = 64
"""Writes of one process after which `PURGE_ROWS` expired rows are deleted at most."""
PURGE_ROWS = 128
_PAGE_BYTES = 4096
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


class _File:
    """The connection to the file, opened where it is used first. Lives in the store's thread."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._path = Path(settings.path) if settings.path else None
        self._name = name or "default"
        self._busy = settings.timeout * 0.8  # the error is to come before the caller gives up
        self._connection: Connection | None = None
        self._at = Path()
        self._identity: tuple[int, int] | None = None
        self._writes = 0

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do ``work`` with the connection. Raises StoreError and ValueError, and nothing else."""
        import sqlite3

        try:
            return work(self._open())
        except OSError as error:
            self.close()
            raise StoreError(f"The store (sqlite) cannot open its file ({type(error).__name__}).") from error
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            if name == "SQLITE_FULL":
                self._writes = -1  # the next write makes room first
            elif not name.startswith("SQLITE_BUSY"):
                self.close()
            if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) and self._path is None:
                self._discard()
            raise StoreError(f"The store (sqlite) cannot be had ({name}).") from error

    def purge_is_due(self) -> bool:
        """Count a write; say whether it is one that also deletes what has expired."""
        self._writes += 1
        return self._writes % PURGE_EVERY == 0

    def close(self) -> None:
        """Close the connection, if there is one."""
        import sqlite3

        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _open(self) -> Connection:
        if self._connection is not None:
            if _identity(self._at) == self._identity:
                return self._connection
            self.close()  # the file was deleted or replaced: nobody else sees what is written to the old one
        self._at = self._path or _directory() / f"{self._name}.sqlite"
        self._identity = _identity(self._at)  # of what is found to be corrupt, if it is
        self._connection = self._connect(self._at)
        self._identity = _identity(self._at)
        return self._connection

    def _connect(self, path: Path) -> Connection:
        import sqlite3

        connection = sqlite3.connect(path, timeout=self._busy, isolation_level=None, check_same_thread=False)
        try:
            _set_wal(connection, self._busy)
            # Of a temporary file nothing need be left after a power cut.
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if self._path else 'OFF'}")
            connection.execute(f"PRAGMA max_page_count = {MAX_FILE_BYTES // _PAGE_BYTES}")
            connection.execute(f"PRAGMA journal_size_limit = {MAX_FILE_BYTES // 64}")
            connection.execute(_SCHEMA)
            connection.execute("CREATE INDEX IF NOT EXISTS expiry ON entries (expires)")
        except BaseException:
            connection.close()
            raise
        return connection

    def _discard(self) -> None:
        """Delete a corrupt file of our own, unless another process did so already."""
        if _identity(self._at) == self._identity:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._at}{suffix}").unlink(missing_ok=True)


def _set_wal(connection: Connection, seconds: float) -> None:
    """Let readers and a writer work at once. SQLite does not wait for another process that does the same."""
    import sqlite3

    limit = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.005)
        else:
            return


def _directory() -> Path:
    """Return the directory of this user for temporary files, made if need be. Raises StoreError, OSError.

    Whoever else could write there could have this process read what they like.
    """
    user = os.getuid() if hasattr(os, "getuid") else None
    path = Path(tempfile.gettempdir()) / f"firsttoken-{'user' if user is None else user}"
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o077
    if user is not None and not private:
        raise StoreError("The store (sqlite) found its directory open to other users; set store.path.")
    return path


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
