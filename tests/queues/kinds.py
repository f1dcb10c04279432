"""What a kind of queue tells the conformance suite about itself.

A file ``kinds_<name>.py`` in this directory with ``KINDS = [Kind(...), ...]`` puts its kinds to the tests of
test_conformance.py; nothing else needs to know of it. Kinds start their server once for the process (skipping
where it is not installed) and give each test queues of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from firsttoken.queues import Delivery, Queue

Receive = Callable[[int, float, float], Awaitable[Sequence[Delivery]]]


@dataclass
class Opened:
    """An empty queue under test, with empty dead letters."""

    queue: Queue
    pass_time: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Lets so many seconds pass for the queue: by a clock that the test sets, or else truly."""
    receive: Receive | None = None
    """For a queue that does not pull, what the service pushed."""
    exact_depth: bool = True
    """Whether `depth` counts everything at once, not None."""
    tick: float = 1.0
    """The shortest time that the service can tell: it keeps delays in whole ticks."""


@dataclass(frozen=True)
class Kind:
    """A kind of queue: how to open one, in a directory for its files, and one whose service is away."""

    name: str
    open: Callable[[Path], AbstractAsyncContextManager[Opened]]
    unreachable: Callable[[Path], Queue] | None = None
    pulls: bool = True
    """Whether a test can come by its messages."""
    max_deliveries: int | None = None
    """After how many the queue itself makes a message a dead letter; None: it does not."""
