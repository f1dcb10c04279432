"""An SQLite file that processes share: where it is, how it is opened, and what becomes of its errors.

Used by one thread at a time: that of its owner, so that the event loop never waits for the disk.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from firsttoken.errors import FirstTokenError, StoreError

if TYPE_CHECKING:
    from sqlite3 import Connection

T = TypeVar("T")
_PAGE_BYTES = 4096


class Place(NamedTuple):
    """Where a file is, and what messages call it."""

    path: str
    """Empty: ``name`` in the directory of this user for temporary files."""
    name: str
    title: str
    """Begins an error message, such as "The store (sqlite)"."""
    setting: str
    """What to set where that directory cannot be used, such as "store.path"."""


class SqliteFile:
    """A connection to a file in WAL mode, opened at its first use and again after the file was replaced.

    A write waits up to ``busy`` seconds for those of other processes. ``replace`` says whether a file that is
    corrupt is deleted. Errors become an ``error``, which names neither the path nor any content.
    """

    def __init__(
        self,
        place: Place,
        busy: float,
        *,
        synchronous: str,
        replace: bool,
        error: type[FirstTokenError] = StoreError,
    ) -> None:
        self._place = place
        self._busy = busy
        self._synchronous = synchronous
        self._replace = replace
        self._error = error
        self._connection: Connection | None = None
        self._at = Path()
        self._identity: tuple[int, int] | None = None

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do ``work`` with the connection. Raises ``error``, and what else ``work`` raises."""
        import sqlite3

        title = self._place.title
        try:
            return work(self._open())
        except OSError as error:
            self.close()
            raise self._error(f"{title} cannot open its file ({type(error).__name__}).") from error
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            if name == "SQLITE_FULL":
                self.full()
            elif not name.startswith("SQLITE_BUSY"):
                self.close()
            if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) and self._replace:
                self._discard()
            raise self._error(f"{title} cannot be had ({name}).") from error

    def prepare(self, connection: Connection) -> None:
        """Make the tables; called for each new connection."""
        raise NotImplementedError

    def full(self) -> None:
        """Take notice that a write found no room."""

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
        place = self._place
        self._at = Path(place.path) if place.path else self._directory() / place.name
        self._identity = _identity(self._at)  # of what is found to be corrupt, if it is
        self._connection = self._connect(self._at)
        self._identity = _identity(self._at)
        return self._connection

    def _connect(self, path: Path) -> Connection:
        import sqlite3

        connection = sqlite3.connect(path, timeout=self._busy, isolation_level=None, check_same_thread=False)
        try:
            _set_wal(connection, self._busy)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            self.prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _discard(self) -> None:
        """Delete a corrupt file of our own, unless another process did so already."""
        if _identity(self._at) == self._identity:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._at}{suffix}").unlink(missing_ok=True)

    def _directory(self) -> Path:
        """Return the directory of this user for temporary files, made if need be. Raises OSError.

        Whoever else could write there could have this process read what they like.
        """
        user = os.getuid() if hasattr(os, "getuid") else None
        path = Path(tempfile.gettempdir()) / f"firsttoken-{'user' if user is None else user}"
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
        private = stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o077
        if user is not None and not private:
            title, setting = self._place.title, self._place.setting
            raise self._error(f"{title} found its directory open to other users; set {setting}.")
        return path


def set_limit(connection: Connection, size: int) -> None:
    """Limit a file to ``size`` bytes, and its log to a small part of that once it is quiet."""
    connection.execute(f"PRAGMA max_page_count = {size // _PAGE_BYTES}")
    connection.execute(f"PRAGMA journal_size_limit = {size // 64}")


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


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
