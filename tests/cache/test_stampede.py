"""Many who ask the same at once, or find the same old answer: how many of them reach the target."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cache.caches import SLOW, WHOLE, Instance, SharedStore, asked, later, text
from policies.models import END, HELLO, Scripted, collect, say
from stores.servers import redis_server
from virtual_time import run

from firsttoken.cache.lease import Turn
from firsttoken.errors import UpstreamError, UpstreamRefusedError
from firsttoken.policies.coalesce import Coalesced
from firsttoken.settings import Coalesce, RedisStore, SqliteStore
from firsttoken.stores import create_store

QUICK = (0.6, say("quick"), END)
"""An answer that is there before who waits for it gives up."""


def test_instances_make_a_new_answer_once() -> None:
    """While one instance makes it the others look for it, and are answered soon after it is whole."""

    async def work() -> None:
        model, store = Scripted(QUICK), SharedStore()
        fleet = [Instance(model, store) for _ in range(20)]
        told = await asyncio.gather(*[one.ask() for one in fleet])
        assert {text(chunks) for _, chunks in told} == {"quick"}
        assert sorted(state for state, _ in told) == ["hit"] * 19 + ["miss"]
        assert len(model.calls) == 1
        assert 0.6 <= asyncio.get_running_loop().time() < 1.5

    run(work())


@pytest.mark.parametrize(("deadline", "waited"), [(60.0, 3.0), (6.0, 2.0)])
def test_nobody_waits_long(deadline: float, waited: float) -> None:
    """Who has waited three seconds, or a third of its time, makes the answer itself."""

    async def work() -> None:
        model, store = Scripted(SLOW), SharedStore()
        first = Instance(model, store)
        (task,) = await later(first.ask())
        assert (await Instance(model, store).ask(deadline=deadline))[0] == "miss"
        assert model.times == [0.0, pytest.approx(waited)]
        await task

    run(work())


def test_a_turn_is_kept_as_long_as_it_takes() -> None:
    """The lease is renewed while an answer takes longer than it."""

    async def work() -> None:
        slow = (100.0, *HELLO)
        model, store = Scripted(slow), SharedStore()
        (task,) = await later(Instance(model, store, lease=5).ask())
        for _ in range(9):
            await asyncio.sleep(10)
            assert await store.lease(turn_name(store), "me", 5) is None
        await task
        assert await store.lease(turn_name(store), "me", 5) == 2

    run(work())


def turn_name(store: SharedStore) -> str:
    return next(key for kind, key in store._entries if kind == "lease")


def test_who_dies_is_replaced() -> None:
    """A lease that is not renewed any more is taken over by one of those who wait."""

    async def work() -> None:
        model, store = Scripted((1000.0,), QUICK), SharedStore()
        dead = Instance(model, store, lease=1)
        (task,) = await later(dead.ask())
        dead.shadow.run = lambda work: work.close()  # it neither renews nor gives back
        told = await asyncio.gather(*[Instance(model, store, lease=1).ask() for _ in range(3)])
        assert {text(chunks) for _, chunks in told} == {"quick"}
        assert len(model.calls) == 2
        assert 1 <= model.times[1] < 1.6
        task.cancel()
        await asyncio.wait({task})

    run(work())


def test_a_renewal_that_is_late_takes_nothing() -> None:
    """A turn that was given back is not renewed any more, not even by what was under way."""

    async def work() -> None:
        store = SharedStore()
        turn = Turn(store, Instance(Scripted()).shadow, "k", 3.0)
        assert await turn.take() == 1
        renewing = asyncio.ensure_future(turn._renew())
        await turn.free()
        await renewing
        assert await store.lease("cache-turn:k", "other", 3.0) == 2
        await turn._renew()
        assert not turn.held

    run(work())


@pytest.mark.parametrize(
    "script",
    [
        (0.6, UpstreamError("Down.")),
        (0.6, say("Hi", finish="content_filter")),
        (0.6, UpstreamRefusedError("No.", status=404)),
    ],
    ids=["error", "filtered", "not found"],
)
def test_nobody_waits_for_an_answer_that_is_not_kept(script: Any) -> None:
    """When the first answer is none to keep the others are told, and make theirs at the same time."""

    async def work() -> None:
        model, store = Scripted(script), SharedStore()
        fleet = [Instance(model, store) for _ in range(10)]
        await asyncio.gather(*[one.ask() for one in fleet], return_exceptions=True)
        assert len(model.calls) == 10
        assert asyncio.get_running_loop().time() < 2.2

    run(work())


def test_the_first_client_leaving_harms_nobody() -> None:
    """Its turn is given back, and one of those who wait has it next."""

    async def work() -> None:
        model, store = Scripted((5.0, *HELLO), QUICK), SharedStore()
        first = Instance(model, store)
        (task,) = await later(first.ask())
        others = await later(*[Instance(model, store).ask() for _ in range(9)])
        await asyncio.sleep(0.3)
        task.cancel()
        told = await asyncio.gather(*others)
        assert {text(chunks) for _, chunks in told} == {"quick"}
        assert len(model.calls) == 2

    run(work())


@pytest.mark.parametrize("shared", [True, False], ids=["one store", "no store"])
def test_an_old_answer_is_renewed_once(shared: bool) -> None:
    """All who find it are answered at once; one instance renews it beside them, then all have the new one."""

    async def work() -> None:
        model = Scripted((say("old"), END), (2.0, say("new"), END))
        store = SharedStore() if shared else None
        fleet = [Instance(model, store, ttl=10, max_age=100) for _ in range(10 if shared else 1)]
        for one in fleet:
            await one.ask()
        await asyncio.sleep(11)
        now = asyncio.get_running_loop().time()
        for _ in range(3):
            for one in fleet:
                call = asked()
                assert text(await collect(one, call)) == "old"
                assert call.record.cache == "stale"
        assert asyncio.get_running_loop().time() == now
        await asyncio.sleep(5)
        for one in fleet:  # the first look at the new one may still give the old
            await one.ask()
        told = [await one.ask() for one in fleet]
        assert {(state, text(chunks)) for state, chunks in told} == {("hit", "new")}
        assert len(model.calls) == 2

    run(work())


def test_an_old_answer_survives_a_renewal_that_fails() -> None:
    """The old answer goes on being given; the target is asked once for the time of a lease."""

    async def work() -> None:
        model = Scripted((say("old"), END), (UpstreamError("Down."),))
        one = Instance(model, SharedStore(), ttl=10, max_age=1000, lease=30)
        await one.ask()
        await asyncio.sleep(11)
        for _ in range(60):
            state, chunks = await one.ask()
            assert (state, text(chunks)) == ("stale", "old")
            await asyncio.sleep(1)
        assert len(model.calls) == 1 + 2
        await asyncio.sleep(1000)
        with pytest.raises(UpstreamError):
            await one.ask()

    run(work())


@pytest.mark.parametrize("script", [(say("x", finish="content_filter"),), (UpstreamRefusedError("No."),)])
def test_a_renewal_that_is_none_replaces_nothing(script: Any) -> None:
    """What is not to be kept does not take the old answer's place."""

    async def work() -> None:
        one = Instance(Scripted((say("old"), END), script), SharedStore(), ttl=10, max_age=1000)
        await one.ask()
        await asyncio.sleep(11)
        await one.ask()
        other = Instance(Scripted(HELLO), one.store, ttl=10, max_age=1000)
        assert [(s, text(c)) for s, c in [await one.ask(), await other.ask()]] == [("stale", "old")] * 2

    run(work())


def test_an_old_answer_is_renewed_without_a_store() -> None:
    """While the store is down each instance renews what it holds."""

    async def work() -> None:
        store = SharedStore()
        one = Instance(Scripted((say("old"), END), (say("new"), END)), store, ttl=10)
        await one.ask()
        store.down = True
        await asyncio.sleep(11)
        assert [text((await one.ask())[1]) for _ in range(2)] == ["old", "new"]

    run(work())


def test_the_first_of_those_who_share_leaves() -> None:
    """Behind `Coalesced` the answer belongs to none of the clients: it is made once, and kept."""

    async def work() -> None:
        model = Scripted(SLOW)
        one = Instance(model, SharedStore())
        shared = Coalesced(one.cached, Coalesce(mode="on"))
        first, *others = await later(*[collect(shared, asked()) for _ in range(100)])
        await asyncio.sleep(2.5)
        first.cancel()
        assert {text(chunks) for chunks in await asyncio.gather(*others)} == {WHOLE}
        assert len(model.calls) == 1
        assert (await one.ask())[0] == "hit"

    run(work())


@contextmanager
def settings_of(kind: str, directory: Path) -> Iterator[Any]:
    if kind == "sqlite":
        yield SqliteStore(path=str(directory / "store.sqlite"), timeout=20.0)
        return
    with redis_server() as server:
        yield RedisStore(url=server.url, timeout=20.0)


def start(settings: Any, calls: int, shared: bool, lease: float = 30.0) -> subprocess.Popen[str]:
    child = Path(__file__).with_name("child.py")
    words = [msgspec.json.encode(settings).decode(), str(calls), "shared" if shared else "", str(lease)]
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, str(child), *words], stdin=pipe, stdout=pipe, text=True)


def counted(settings: Any) -> int:
    async def work() -> int:
        store = create_store(settings)
        try:
            return await store.add("upstream", 0, 60.0)
        finally:
            await store.aclose()

    return asyncio.run(work())


@pytest.mark.parametrize("shared", [True, False], ids=["coalesced", "apart"])
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_thousand_misses_over_four_processes(kind: str, shared: bool, tmp_path: Path) -> None:
    """With the lease alive one of a thousand calls in four processes reaches the target."""
    with settings_of(kind, tmp_path) as settings:
        children = [start(settings, 250, shared) for _ in range(4)]
        try:
            for child in children:
                assert child.stdout.readline() == "ready\n"
            for child in children:
                child.stdin.write("go\n")
                child.stdin.flush()
            told = [json.loads(child.stdout.readline()) for child in children]
        finally:
            for child in children:
                child.kill()
                child.communicate()
        assert sum(good for good, _ in told) == 1000
        assert counted(settings) == 1


def test_a_process_that_is_killed_is_replaced(tmp_path: Path) -> None:
    """The lease of a killed process runs out, and another one makes the answer."""
    with settings_of("sqlite", tmp_path) as settings:
        first, second = start(settings, 1, shared=False, lease=1.0), start(settings, 20, shared=False)
        try:
            for child in (first, second):
                assert child.stdout.readline() == "ready\n"
            first.stdin.write("hang\n")
            first.stdin.flush()
            assert first.stdout.readline() == "asked\n"
            first.kill()
            second.stdin.write("go\n")
            second.stdin.flush()
            assert json.loads(second.stdout.readline())[0] == 20
        finally:
            for child in (first, second):
                child.kill()
                child.communicate()
        assert counted(settings) == 2
