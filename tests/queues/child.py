"""A process that works on a queue together with others, for tests/queues/test_sqlite.py.

Its arguments: the file, and "send" or "take". It says what it has sent or finished, a line each, once that is
certain, and goes on until it is killed or there is nothing left.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys

from firsttoken.queues.sqlite import SqliteQueue
from firsttoken.settings import SqliteQueue as Settings


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def send(queue: SqliteQueue) -> None:
    for number in itertools.count():
        body = f"{os.getpid()}/{number}"
        await queue.send(body.encode())
        say(body)


async def take(queue: SqliteQueue) -> None:
    while found := await queue.receive(3, 60, 0):
        for delivery in found:
            await queue.done(delivery)
            say(delivery.body.decode())


async def main(path: str, work: str) -> None:
    queue = SqliteQueue(Settings(path=path))
    await (send if work == "send" else take)(queue)
    await queue.aclose()


asyncio.run(main(*sys.argv[1:]))
