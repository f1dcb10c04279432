"""One producer and its followers: what each one reads, and when it is woken."""

from __future__ import annotations

import asyncio

import pytest
from virtual_time import run

from firsttoken.policies.broadcast import Broadcast


def make(limit: int = 1000) -> Broadcast[int]:
    """A broadcast of numbers that count as one byte each."""
    return Broadcast(limit, lambda _: 1)


async def read(items: Broadcast[int], into: list[int]) -> None:
    async for number in items.follow():
        into.append(number)  # noqa: PERF401 - looked at while it grows


def test_a_wake_up_is_one_for_whatever_came_together() -> None:
    """A follower that sleeps is woken once for a batch, whatever its length, and reads all of it."""

    async def work() -> None:
        items = make()
        batch: list[int] = []
        task = asyncio.ensure_future(read(items, batch))
        await asyncio.sleep(0)
        for _ in range(3):
            for number in range(10):
                items.append(number)
            assert not items._waiting
            await asyncio.sleep(0)
            assert batch == list(range(10))
            batch.clear()
        items.finish()
        await task

    run(work())


def test_an_end_comes_once() -> None:
    """What is said after the end changes nothing, and who comes after the end still gets all."""

    async def work() -> None:
        items = make()
        items.append(1)
        items.finish()
        items.finish(ValueError("too late"))
        late: list[int] = []
        await read(items, late)
        assert late == [1]

    run(work())


def test_an_error_stands_behind_the_last_item() -> None:
    """Every follower gets all items and then the error, with its own frames only."""

    async def work() -> None:
        items = make()
        items.append(1)
        items.finish(ValueError("broken"))
        for _ in range(20):
            got: list[int] = []
            with pytest.raises(ValueError, match="broken") as caught:
                await read(items, got)
            assert got == [1]
            assert len(caught.traceback) < 5

    run(work())


def test_a_follower_that_leaves_leaves_nothing() -> None:
    """One that is cancelled while it sleeps is forgotten at once, not at the next item."""

    async def work() -> None:
        items = make()
        for _ in range(5):
            task = asyncio.ensure_future(read(items, []))
            await asyncio.sleep(0)
            assert items.followed
            task.cancel()
            await asyncio.wait({task})
        assert not items.followed
        assert not items._waiting

    run(work())


def test_over_the_limit_only_what_is_unread_is_held() -> None:
    """The producer waits for the slowest; with nobody there everything is dropped."""

    async def work() -> None:
        items = make(limit=10)
        got: list[int] = []
        stream = items.follow()
        items.append(0)
        got.append(await anext(stream))
        for number in range(1, 20):
            items.append(number)
        assert not items.joinable
        waiting = asyncio.ensure_future(items.room())
        await asyncio.sleep(0)
        got += [await anext(stream) for _ in range(8)]
        assert not waiting.done()
        got += [await anext(stream) for _ in range(3)]
        await waiting
        assert got == list(range(12))
        assert items.items == list(range(12, 20))
        await stream.aclose()
        assert items.items == []
        for number in range(50):
            items.append(number)
            await items.room()
        assert len(items.items) <= 11

    run(work())
