"""The queue in a file: what happens to its processes, its file, and deliveries that are not ours any more."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from firsttoken.errors import QueueError
from firsttoken.providers.http import HttpClient
from firsttoken.queues import create_queue, sqlite
from firsttoken.queues.sqlite import SqliteQueue
from firsttoken.settings import SqliteQueue as Settings
from tests.queues.kinds_sqlite import Clock

CHILD = Path(__file__).with_name("child.py")
LONG = 60.0
GARBAGE = b"this is no database. " * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite"


def at(path: Path, clock: Clock | None = None, most: int = 10) -> SqliteQueue:
    return SqliteQueue(Settings(path=str(path), max_deliveries=most), clock=clock or Clock())


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(bounded())


def child(path: Path, work: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, CHILD, path, work], stdout=subprocess.PIPE, text=True)


async def bodies(queue: SqliteQueue) -> list[bytes]:
    """Take all that is there."""
    found = []
    while taken := await queue.receive(100, LONG, 0):
        found += [delivery.body for delivery in taken]
    return found


def test_what_was_sent_outlives_its_sender(path: Path) -> None:
    """A process that is killed at any moment has lost nothing that `send` returned from."""
    senders = [child(path, "send") for _ in range(2)]
    said = [sender.stdout.readline() for sender in senders for _ in range(30)]
    for sender in senders:
        sender.kill()
        said += sender.communicate()[0].splitlines(keepends=True)
    whole = {line.strip().encode() for line in said if line.endswith("\n")}
    found = run(_taken(path))
    assert len(whole) >= 60
    assert whole <= set(found)
    assert len(found) == len(set(found))


async def _taken(path: Path, ahead: float = 0.0) -> list[bytes]:
    clock = Clock()
    await clock.forward(ahead)
    queue = at(path, clock)
    found = await bodies(queue)
    await queue.aclose()
    return found


def test_a_worker_that_is_killed_loses_nothing(path: Path) -> None:
    """What it had comes again when its time is over; what was finished does not; nothing is taken by two."""
    count = 300

    async def fill() -> None:
        queue = at(path)
        await asyncio.gather(*[queue.send(b"%d" % number) for number in range(count)])
        await queue.aclose()

    run(fill())
    workers = [child(path, "take") for _ in range(3)]
    lines = [workers[0].stdout.readline() for _ in range(5)]
    workers[0].kill()
    for worker in workers:
        lines += worker.communicate(timeout=60)[0].splitlines(keepends=True)
    finished = [line.strip().encode() for line in lines if line.endswith("\n")]
    again = run(_taken(path, LONG + 1))
    assert len(finished) == len(set(finished))
    # It may have been killed between finishing one and saying so.
    missing = {b"%d" % number for number in range(count)} - set(finished) - set(again)
    assert len(missing) <= 1
    assert len(again) <= 3
    assert not set(finished) & set(again)


def test_a_delivery_that_is_over_is_another_workers(path: Path) -> None:
    """Once a message was handed out again, who had it before can neither keep nor finish it."""

    async def main() -> None:
        clock = Clock()
        queue = at(path, clock)
        await queue.send(b"body")
        (first,) = await queue.receive(1, LONG, 0)
        await clock.forward(LONG + 1)
        assert await queue.extend(first, LONG)
        await clock.forward(LONG + 1)
        (second,) = await queue.receive(1, LONG, 0)
        assert not await queue.extend(first, LONG)
        await queue.done(first)
        assert await queue.extend(second, 0)
        assert await bodies(queue) == [b"body"]
        await queue.aclose()

    run(main())


def test_a_full_file_still_lets_messages_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room a send is a QueueError, and only a send; finished messages make room."""
    monkeypatch.setattr(sqlite, "MAX_FILE_BYTES", 256 * 1024)

    async def main() -> None:
        queue = at(path)
        filling = [queue.send(b"x" * 10_000) for _ in range(100)]
        with pytest.raises(QueueError, match="SQLITE_FULL"):
            await asyncio.gather(*filling)
        taken = await queue.receive(3, LONG, 0)
        results = await asyncio.gather(
            queue.send(b"x" * 100_000), *[queue.done(delivery) for delivery in taken], return_exceptions=True
        )
        assert [type(result) for result in results] == [QueueError, type(None), type(None), type(None)]
        await queue.send(b"x" * 10_000)
        await queue.aclose()

    run(main())


def test_a_send_that_is_given_up_harms_no_other(path: Path) -> None:
    """Who stops waiting for its write, or asks for what cannot be, does not take others' writes with it."""

    async def main() -> None:
        queue = at(path)
        sends = [asyncio.create_task(queue.send(b"%d" % number)) for number in range(50)]
        await asyncio.sleep(0)
        for task in sends[::5]:
            task.cancel()
        await asyncio.wait(sends)
        kept = {b"%d" % number for number in range(50) if number % 5}
        assert kept <= set(await bodies(queue))
        with pytest.raises(OverflowError):
            await queue.redrive(2**70)
        await queue.send(b"after")
        assert await bodies(queue) == [b"after"]
        await queue.aclose()

    run(main())


def test_one_look_finds_what_another_process_sent(path: Path) -> None:
    """Who waits looks again and again, and finds what it was not woken for."""

    async def main() -> None:
        one, other = at(path), at(path)
        waiting = asyncio.create_task(one.receive(1, LONG, 30))
        await asyncio.sleep(0)
        await other.send(b"body")
        assert [delivery.body for delivery in await waiting] == [b"body"]
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await one.receive(1, LONG, 30)
        assert not one._waiting
        await one.aclose()
        await other.aclose()

    run(main())


def test_dead_letters_keep_their_order(path: Path) -> None:
    """The oldest are shown, sent again and deleted first."""

    async def main() -> None:
        queue = at(path)
        for number in range(4):
            await queue.bury(b"%d" % number, "no")
        assert [letter.body for letter in await queue.dead(2)] == [b"0", b"1"]
        assert await queue.redrive(1) == 1
        assert await queue.purge_dead(1) == 1
        assert [letter.body for letter in await queue.dead(10)] == [b"2", b"3"]
        assert await bodies(queue) == [b"0"]
        await queue.aclose()

    run(main())


def test_the_default_file_is_this_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path it is in a directory that only this user can open, beside the store's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def main() -> None:
        queue = create_queue(Settings(), HttpClient(), name="0a1b")
        await queue.send(b"body")
        assert (tmp_path / f"firsttoken-{os.getuid()}" / "0a1b-queue.sqlite").is_file()
        await queue.aclose()

    run(main())


def test_a_corrupt_file_is_left_alone(path: Path) -> None:
    """A queue is never thrown away: a QueueError, every time, and no byte changed."""
    path.write_bytes(GARBAGE)

    async def main() -> None:
        queue = at(path)
        for _ in range(2):
            with pytest.raises(QueueError, match="SQLITE_NOTADB"):
                await queue.send(b"body")
        await queue.aclose()

    run(main())
    assert path.read_bytes() == GARBAGE
