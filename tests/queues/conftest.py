"""The queue under test: every kind of every file ``kinds_*.py`` beside this one; see kinds.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from firsttoken.queues import Delivery, Queue
from tests.queues.kinds import Kind, Opened

KINDS: dict[str, Kind] = {
    kind.name: kind
    for path in sorted(Path(__file__).parent.glob("kinds_*.py"))
    for kind in import_module(f"tests.queues.{path.stem}").KINDS
}
HIDDEN = 60.0
LIMIT = 60.0
"""Seconds that a test may truly take."""


@dataclass
class Subject:
    """A queue of some kind, and the loop that it lives in."""

    kind: Kind
    opened: Opened
    run: Callable[[Coroutine[Any, Any, Any]], Any]

    @property
    def queue(self) -> Queue:
        return self.opened.queue

    async def receive(self, limit: int = 10, hidden: float = HIDDEN, wait: float = 0.0) -> list[Delivery]:
        """Take what is there; `limit` messages at most."""
        receive = self.opened.receive or self.queue.receive
        return list(await receive(limit, hidden, wait))

    async def take(self, count: int, hidden: float = HIDDEN) -> list[Delivery]:
        """Take exactly so many messages, however many receives that needs: a service may give fewer."""
        found: list[Delivery] = []
        while len(found) < count:
            found += await self.receive(count - len(found), hidden, 1.0)
        return found

    async def later(self, seconds: float) -> None:
        """Let time pass for the queue, whole ticks of it."""
        await self.opened.pass_time(max(seconds, self.opened.tick) * 1.1)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """A kind of queue."""
    return KINDS[request.param]


def opened(kind: Kind, directory: Path) -> Iterator[Subject]:
    """Open an empty queue of a kind in a loop of its own."""
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:

        async def bounded(work: Coroutine[Any, Any, Any]) -> Any:
            async with asyncio.timeout(LIMIT):
                return await work

        queue = runner.run(stack.enter_async_context(kind.open(directory)))
        try:
            yield Subject(kind, queue, lambda work: runner.run(bounded(work)))
        finally:
            runner.run(stack.aclose())


@pytest.fixture
def subject(kind: Kind, tmp_path: Path) -> Iterator[Subject]:
    """An empty queue of the kind."""
    yield from opened(kind, tmp_path)


@pytest.fixture(params=[name for name, kind in KINDS.items() if kind.pulls])
def pulling(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """An empty queue whose messages a test can come by."""
    yield from opened(KINDS[request.param], tmp_path)


@pytest.fixture(params=[name for name, kind in KINDS.items() if kind.max_deliveries])
def limiting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """An empty queue that itself makes dead letters of what was handed out too often."""
    yield from opened(KINDS[request.param], tmp_path)


@pytest.fixture(params=[name for name, kind in KINDS.items() if kind.unreachable])
def away(request: pytest.FixtureRequest, tmp_path: Path) -> Queue:
    """A queue whose service is not there."""
    return KINDS[request.param].unreachable(tmp_path)
