"""``Idempotency-Key`` over several instances: who waits, who takes over, and what a store's loss costs."""

from __future__ import annotations

import asyncio

import pytest
from api.keyed import SLOW, WHOLE, DownStore, instance, same, send, store
from policies.models import END, HELLO, Scripted, say
from support import Answer
from virtual_time import run

from firsttoken.api import idempotency
from firsttoken.api.claim import Claim, Kept
from firsttoken.settings import Idempotency, Server


def test_another_instance_waits_and_then_repeats() -> None:
    """While an owner lives its lease is renewed; who waits gets heartbeats, then the same answer."""

    async def work() -> None:
        slow = (say("one "), 16.0, say("two"), END)
        model, shared = Scripted(slow), store()
        sections = {
            "idempotency": Idempotency(lease=3),
            "server": Server(log=False, heartbeat_seconds=4),
        }
        here, there = (instance(model, shared, **sections) for _ in range(2))
        first = asyncio.ensure_future(send(here))
        await asyncio.sleep(1)
        answers = await asyncio.gather(*[send(there) for _ in range(3)])
        assert 16 <= asyncio.get_running_loop().time() < 17
        assert len(model.calls) == 1
        beat = b": keep-alive\n\n"
        for answer in answers:
            assert answer.pieces.count(beat) == 3
            assert answer.body.replace(beat, b"") == (await first).body.replace(beat, b"")
        replays = [await send(here), await send(there)]
        assert same(*replays)
        assert beat not in replays[0].body

    run(work())


def test_who_dies_is_replaced() -> None:
    """A lease that is not renewed expires, and one of those who wait runs the call."""

    async def work() -> None:
        model, shared = Scripted(HELLO), store()
        dead, first, second = (instance(model, shared) for _ in range(3))
        died = asyncio.ensure_future(send(dead))
        model._scripts = ((1000.0,), HELLO)
        await asyncio.sleep(1)
        run_of = next(iter(idempotency._runs.values()))
        run_of._claim.renew = None
        run_of._claim._store = DownStore("swap", "delete", "put", "get")
        answers = await asyncio.gather(send(first), send(second))
        assert 15 <= asyncio.get_running_loop().time() < 22
        assert same(*answers)
        assert len(model.calls) == 2
        died.cancel()
        await asyncio.wait({died})

    run(work())


def test_who_was_taken_for_dead_changes_nothing() -> None:
    """An owner that comes back after another one took over can neither write its answer nor free the key."""

    async def work() -> None:
        shared = store()
        settings = Idempotency()
        frozen, other = (Claim(shared, settings, "idempotency:t:1", "f") for _ in range(2))
        assert await frozen.take() is None
        await asyncio.sleep(settings.lease + 1)
        assert await other.take() is None
        await frozen.renew()
        assert not await frozen.keep(Kept(200, [], b"old", ""))
        await frozen.free()
        assert await other.keep(Kept(200, [], b"new", ""))
        found = await Claim(shared, settings, "idempotency:t:1", "f").take()
        assert found is not None
        assert found.body == b"new"

    run(work())


@pytest.mark.parametrize("lost", ["answer", "mark of another version", "answer of another version"])
def test_what_the_store_lost_is_done_again(lost: str) -> None:
    """A mark without its answer, or one that cannot be read, is replaced."""

    async def work() -> None:
        model, shared = Scripted(HELLO), store()
        app = instance(model, shared)
        await send(app)
        mark, answer = sorted((name for _, name in shared._entries), key=len)
        if lost == "answer":
            await shared.delete(answer)
        else:
            await shared.put(mark if "mark" in lost else answer, b"v\xc1", 1000)
        assert (await send(app)).text() == "Hello"
        assert len(model.calls) == 2
        assert "x-firsttoken-replayed" in (await send(app)).headers

    run(work())


ALL = ("get", "get_many", "put", "swap", "delete")


def test_without_a_store_the_call_runs() -> None:
    """No failure: calls in flight still share, a later one runs again, and a header says so."""

    async def work() -> None:
        model = Scripted(SLOW)
        app = instance(model, DownStore(*ALL))
        answers: list[Answer] = await asyncio.gather(*[send(app) for _ in range(5)])
        assert same(*answers)
        assert len(model.calls) == 1
        assert {answer.headers["x-firsttoken-idempotency"] for answer in answers} == {"local"}
        assert (await send(app)).status == 200
        assert len(model.calls) == 2

    run(work())


@pytest.mark.parametrize("down", [("put",), ("swap",), ("put", "swap", "delete")])
def test_a_store_that_goes_down_meanwhile_harms_nobody(down: tuple[str, ...]) -> None:
    """The answer is sent all the same; what could not be kept is done again when the lease is over."""

    async def work() -> None:
        model, shared = Scripted(SLOW), DownStore()
        app = instance(model, shared)
        first = asyncio.ensure_future(send(app))
        await asyncio.sleep(4)
        shared.down = set(down)
        assert (await first).text() == WHOLE
        shared.down = set()
        assert (await send(app)).text() == WHOLE
        assert len(model.calls) == 2

    run(work())


def test_a_store_that_goes_down_while_one_waits() -> None:
    """Who waits for another instance and loses the store runs the call itself, and says so."""

    async def work() -> None:
        model, shared = Scripted(SLOW), DownStore()
        first = asyncio.ensure_future(send(instance(model, shared)))
        await asyncio.sleep(1)
        second = asyncio.ensure_future(send(instance(model, shared)))
        await asyncio.sleep(1)
        shared.down = {"get"}
        answers = await asyncio.gather(first, second)
        assert [answer.text() for answer in answers] == [WHOLE] * 2
        assert answers[1].headers["x-firsttoken-idempotency"] == "local"

    run(work())
