"""A queue in an SQLite file: what the processes of one machine share without a server.

All work is done in one thread of its own, with Python's own sqlite3, so the event loop never waits for the
disk. What is asked for while the disk is busy is written together, in one transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from firsttoken.errors import QueueError
from firsttoken.queues.queue import Dead, Delivery, Depth
from firsttoken.settings import SqliteQueue as Settings
from firsttoken.stores.sqlite_file import Place, SqliteFile, set_limit

if TYPE_CHECKING:
    from sqlite3 import Connection

    from firsttoken.providers.http import HttpClient

T = TypeVar("T")
Work = Callable[["Connection", float], T]
"""What is done with the file, at a time of day."""

MAX_FILE_BYTES = 1024**3
BUSY_SECONDS = 5.0
"""How long a write waits for those of other processes."""
FIRST_POLL, MAX_POLL = 0.01, 0.25
"""Seconds between looks into an empty queue, each half as long again as the one before."""
TOGETHER = 256
"""Writes that are put into one transaction at most."""

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL,
        visible REAL NOT NULL, count INTEGER NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS visibility ON messages (visible, id)",
    """CREATE TABLE IF NOT EXISTS dead (
        id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL
    )""",
)
_SEND = "INSERT INTO messages (body, visible, count) VALUES (?, ?, 0)"
_READY = "SELECT id, body, count FROM messages WHERE visible <= ? ORDER BY visible, id LIMIT ?"
_CLAIM = "UPDATE messages SET visible = ?, count = count + 1 WHERE id = ?"
_EXTEND = "UPDATE messages SET visible = ? WHERE id = ? AND count = ?"
_DONE = "DELETE FROM messages WHERE id = ? AND count = ?"
_BURY = "INSERT INTO dead (body, reason, at) VALUES (?, ?, ?)"
_OLDEST = "SELECT id FROM dead ORDER BY id LIMIT ?"
_MOVE = "INSERT INTO messages (body, visible, count) SELECT body, ?, 0 FROM dead ORDER BY id LIMIT ?"
_DEPTH = """SELECT count(*) FILTER (WHERE visible <= :now),
    count(*) FILTER (WHERE visible > :now AND count = 0),
    count(*) FILTER (WHERE visible > :now AND count > 0),
    (SELECT count(*) FROM dead) FROM messages"""


class _Receipt(NamedTuple):
    number: int
    times: int
    """How often the message was handed out: a later delivery is another's."""


class SqliteQueue:
    """Messages and dead letters as rows of two tables; ``clock`` is the time of day in Unix seconds.

    What `send` and `bury` returned from is on the disk (``synchronous = FULL``). A process that is killed
    loses nothing: what it had is handed out again when its time is over. The file holds `MAX_FILE_BYTES` at
    most, dead letters included, which stay until they are purged; then sending is a QueueError.
    """

    pulls = True
    max_body_bytes = 1024 * 1024
    max_delay = 10 * 366 * 86_400.0

    def __init__(self, settings: Settings, *, name: str = "", clock: Callable[[], float] = time.time) -> None:
        self._file = _File(settings, name)
        self._most = settings.max_deliveries
        self._clock = clock
        self._thread: ThreadPoolExecutor | None = None
        self._writes: deque[tuple[Work[Any], Future[Any]]] = deque()
        """Waiting for the thread: as many as there are callers that wait for them."""
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        """Of the receives of this process that found nothing yet; set when something is sent."""

    async def send(self, body: bytes, delay: float = 0.0) -> None:
        """Add a message; see `Queue`. Costs one synchronous write, shared with others at the same time."""
        if len(body) > self.max_body_bytes:
            raise ValueError(f"The message has {len(body)} bytes; expected at most {self.max_body_bytes}.")
        delay = min(max(delay, 0.0), self.max_delay)
        await self._write(lambda connection, now: connection.execute(_SEND, (body, now + delay)))
        if delay == 0:
            self._wake()

    async def receive(self, limit: int, hidden: float, wait: float) -> Sequence[Delivery]:
        """Take messages, the longest ready first, in one transaction; see `Queue`.

        While there are none the file is looked at every `MAX_POLL` seconds (some 50 us each), and at once
        when this process sends something. Who stops waiting at the wrong moment loses a delivery, no message.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        pause, woken = FIRST_POLL, asyncio.Event()
        self._waiting[woken] = loop
        try:
            while True:
                woken.clear()
                found = await self._claim(limit, hidden)
                left = end - loop.time()
                if found or left <= 0:
                    return found
                try:
                    async with asyncio.timeout(min(pause, left)):
                        await woken.wait()
                except TimeoutError:
                    pause = min(pause * 1.5, MAX_POLL)
        finally:
            del self._waiting[woken]

    async def extend(self, delivery: Delivery, hidden: float) -> bool:
        """Hide a message; see `Queue`. Another delivery of it is another's."""
        receipt = cast("_Receipt", delivery.receipt)

        def work(connection: Connection, now: float) -> bool:
            return connection.execute(_EXTEND, (now + hidden, *receipt)).rowcount == 1

        return await self._write(work)

    async def done(self, delivery: Delivery) -> None:
        """Delete a message, unless it was handed out again meanwhile; see `Queue`."""
        receipt = cast("_Receipt", delivery.receipt)
        await self._write(lambda connection, _: connection.execute(_DONE, receipt))

    async def bury(self, body: bytes, reason: str) -> None:
        """Add a dead letter; see `Queue`."""
        await self._write(lambda connection, now: _bury(connection, body, reason, now))

    async def dead(self, limit: int) -> Sequence[Dead]:
        """Return dead letters, the oldest first; see `Queue`."""

        def work(connection: Connection) -> list[Dead]:
            rows = connection.execute("SELECT body, id, reason, at FROM dead ORDER BY id LIMIT ?", (limit,))
            return [Dead(body, str(number), reason, at) for body, number, reason, at in rows]

        return await self._run(work)

    async def redrive(self, limit: int) -> int:
        """Move dead letters back, the oldest first, in one transaction; see `Queue`."""

        def work(connection: Connection, now: float) -> int:
            connection.execute(_MOVE, (now, limit))
            return _forget(connection, limit)

        count = await self._write(work)
        self._wake()
        return count

    async def purge_dead(self, limit: int) -> int:
        """Delete dead letters, the oldest first; see `Queue`."""
        return await self._write(lambda connection, _: _forget(connection, limit))

    async def depth(self) -> Depth:
        """Count all messages, which takes longer the more there are: a tenth of a second for a million."""
        now = self._clock()
        row = await self._run(lambda connection: connection.execute(_DEPTH, {"now": now}).fetchone())
        return Depth(*row)

    async def aclose(self) -> None:
        """Close the file and end the thread. What is asked for afterwards opens it again."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                await asyncio.get_running_loop().run_in_executor(thread, self._file.close)
            finally:
                thread.shutdown(wait=False)

    async def _claim(self, limit: int, hidden: float) -> Sequence[Delivery]:
        now = self._clock()
        # Readers do not wait for each other: many who poll an empty queue do not take its lock.
        if not await self._run(lambda connection: connection.execute(_READY, (now, 1)).fetchall()):
            return ()
        return await self._write(lambda connection, now: self._take(connection, now, limit, hidden))

    def _take(self, connection: Connection, now: float, limit: int, hidden: float) -> Sequence[Delivery]:
        """Hand messages out; those that were handed out too often become dead letters."""
        taken: list[Delivery] = []
        while len(taken) < limit:
            rows = connection.execute(_READY, (now, limit - len(taken))).fetchall()
            if not rows:
                break
            for number, body, count in rows:
                if count >= self._most:
                    _bury(connection, body, f"handed out {count} times", now)
                    connection.execute(_DONE, (number, count))
                else:
                    connection.execute(_CLAIM, (now + hidden, number))
                    taken.append(Delivery(body, str(number), count + 1, _Receipt(number, count + 1)))
            if hidden <= 0:
                break  # they are ready again
        return taken

    def _wake(self) -> None:
        """Let who waits look at once. Those of other loops and processes look soon."""
        here = asyncio.get_running_loop()
        for woken, loop in list(self._waiting.items()):
            if loop is here:
                woken.set()

    async def _write(self, work: Work[T]) -> T:
        """Do ``work`` in a transaction, together with what else is waiting for one."""
        future: Future[T] = Future()
        self._writes.append((work, future))
        self._executor().submit(self._flush)
        return await asyncio.wrap_future(future)

    async def _run(self, work: Callable[[Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor(), self._file.run, work)

    def _executor(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "firsttoken-queue")
        return self._thread

    def _flush(self) -> None:
        """Do all writes that wait, in the thread; whoever asked later finds nothing left to do."""
        batch: list[tuple[Work[Any], Future[Any]]] = []
        while self._writes and len(batch) < TOGETHER:
            work, future = self._writes.popleft()
            if future.set_running_or_notify_cancel():
                batch.append((work, future))
        if batch and not self._commit(batch, last=len(batch) == 1):
            for one in batch:  # where a message does not fit any more, one can still be deleted
                self._commit([one], last=True)

    def _commit(self, batch: list[tuple[Work[Any], Future[Any]]], *, last: bool) -> bool:
        """Do writes in one transaction and tell who waits; say whether they fitted into the file."""

        def transaction(connection: Connection) -> list[Any]:
            connection.execute("BEGIN IMMEDIATE")
            with connection:  # commits, or rolls back
                now = self._clock()
                return [work(connection, now) for work, _ in batch]

        self._file.is_full = False
        try:
            results = self._file.run(transaction)
        except Exception as error:  # whatever went wrong, who waits must hear of it
            if self._file.is_full and not last:
                return False
            for _, future in batch:
                future.set_exception(error)
            if not isinstance(error, QueueError):
                raise
        else:
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)
        return True


class _File(SqliteFile):
    """The queue's file; a corrupt one is never deleted."""

    def __init__(self, settings: Settings, name: str) -> None:
        title = "The queue (sqlite)"
        place = Place(settings.path, f"{name or 'default'}-queue.sqlite", title, "queue.path")
        super().__init__(place, BUSY_SECONDS, synchronous="FULL", replace=False, error=QueueError)
        self.is_full = False

    def prepare(self, connection: Connection) -> None:
        """Make the tables."""
        set_limit(connection, MAX_FILE_BYTES)
        for statement in _SCHEMA:
            connection.execute(statement)

    def full(self) -> None:
        """Remember that a write found no room."""
        self.is_full = True


def _bury(connection: Connection, body: bytes, reason: str, now: float) -> None:
    # A lone surrogate is no text for SQLite.
    text = reason[:1000].encode(errors="replace").decode()
    connection.execute(_BURY, (body, text, now))


def _forget(connection: Connection, limit: int) -> int:
    """Delete the oldest dead letters; return how many there were."""
    return connection.execute(f"DELETE FROM dead WHERE id IN ({_OLDEST})", (limit,)).rowcount  # noqa: S608


def create(settings: Settings, _client: HttpClient, name: str) -> SqliteQueue:
    """Return the queue in the configured file; ``name`` tells files of the temporary directory apart."""
    return SqliteQueue(settings, name=name)
