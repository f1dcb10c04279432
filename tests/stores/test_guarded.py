"""The guard around a store: bounded in time, left alone while it is down, asked again by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from firsttoken.errors import StoreError
from firsttoken.settings import MemoryStore as MemorySettings
from firsttoken.stores.guarded import FIRST_PAUSE, MAX_PAUSE, OPEN_SECONDS, Guarded
from firsttoken.stores.keys import MAX_TTL
from firsttoken.stores.memory import MemoryStore
from tests.virtual_time import run

TIMEOUT = 0.25
OPERATIONS: dict[str, Callable[[Guarded], Any]] = {
    "get": lambda store: store.get("k"),
    "get_many": lambda store: store.get_many(["k"]),
    "put": lambda store: store.put("k", b"v", 60),
    "swap": lambda store: store.swap("k", None, b"v", 60),
    "delete": lambda store: store.delete("k"),
    "add": lambda store: store.add("k", 1, 60),
    "lease": lambda store: store.lease("k", "me", 60),
    "release": lambda store: store.release("k", "me"),
    "purge": lambda store: store.purge(),
}


class Patient(MemoryStore):
    """A store that can be ill: it raises what ``fault`` is, or takes that many seconds."""

    def __init__(self) -> None:
        super().__init__(MemorySettings())
        self.fault: BaseException | float | None = None
        self.asked = 0

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if name not in OPERATIONS:
            return method

        async def asked(*arguments: Any) -> Any:
            self.asked += 1
            if isinstance(self.fault, BaseException):
                raise self.fault
            await asyncio.sleep(self.fault or 0)
            return await method(*arguments)

        return asked


def guarded(prefix: str = "p") -> tuple[Guarded, Patient]:
    store = Patient()
    return Guarded(store, MemorySettings(prefix=prefix, timeout=TIMEOUT)), store


async def fails(store: Guarded) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await store.get("k")
    return caught.value


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    "fault",
    [StoreError("gone"), OSError("10.0.0.1:6379"), RuntimeError("secret"), KeyError("k"), 1e6],
    ids=repr,
)
def test_every_failure_is_a_store_error(name: str, fault: BaseException | float) -> None:
    """Whatever happens behind it, an operation ends in time with a StoreError that tells no secrets."""

    async def main() -> None:
        store, inner = guarded()
        inner.fault = fault
        with pytest.raises(StoreError) as caught:
            await OPERATIONS[name](store)
        assert now() <= (60 if name == "purge" else TIMEOUT)
        assert "secret" not in str(caught.value)
        assert "10.0.0.1" not in str(caught.value)
        assert store.down
        assert store.failures == 1
        assert store.error == str(caught.value)
        asked = inner.asked
        with pytest.raises(StoreError):
            await OPERATIONS[name](store)
        assert inner.asked == asked

    run(main())


def test_the_pause_doubles_up_to_a_limit() -> None:
    """After each further failure the store is left alone for twice as long; an answer ends that."""

    async def main() -> None:
        store, inner = guarded()
        inner.fault = OSError()
        await fails(store)
        pause = FIRST_PAUSE
        for _ in range(8):
            asked = inner.asked
            await asyncio.sleep(pause - 0.01)
            error = await fails(store)
            assert inner.asked == asked
            assert error.retry_after == pytest.approx(0.01)
            await asyncio.sleep(0.02)
            await fails(store)
            assert inner.asked == asked + 1
            pause = min(2 * pause, MAX_PAUSE)
        inner.fault = None
        await asyncio.sleep(MAX_PAUSE)
        assert await store.get("k") is None
        assert not store.down
        assert store.failures == 9
        inner.fault = OSError()
        error = await fails(store)
        assert error.retry_after == pytest.approx(FIRST_PAUSE)

    run(main())


def test_one_operation_tries_again() -> None:
    """While one operation tries a store that was down, all others still get their answer at once."""

    async def main() -> None:
        store, inner = guarded()
        inner.fault = OSError()
        await fails(store)
        await asyncio.sleep(FIRST_PAUSE)
        inner.fault, inner.asked = 0.1, 0
        trial = asyncio.create_task(store.get("k"))
        await asyncio.sleep(0)
        for _ in range(5):
            await fails(store)
        assert inner.asked == 1
        assert await trial is None
        assert await store.get("k") is None
        assert inner.asked == 2

    run(main())


def test_who_leaves_while_trying_lets_the_next_one_try() -> None:
    """A trial that was cancelled says nothing: the next operation is the next trial."""

    async def main() -> None:
        store, inner = guarded()
        inner.fault = OSError()
        await fails(store)
        await asyncio.sleep(FIRST_PAUSE)
        inner.fault = 0.1
        trial = asyncio.create_task(store.get("k"))
        await asyncio.sleep(0.05)
        trial.cancel()
        await asyncio.wait([trial])
        assert trial.cancelled()
        assert await store.get("k") is None
        assert not store.down
        assert store.failures == 1

    run(main())


def test_failures_at_one_time_are_one() -> None:
    """Operations that were under way when the first one failed don't make the pause longer."""

    async def main() -> None:
        store, inner = guarded()
        inner.fault = 1e6
        tasks = [asyncio.create_task(store.get("k")) for _ in range(20)]
        await asyncio.wait(tasks)
        assert all(isinstance(task.exception(), StoreError) for task in tasks)
        assert store.failures == 20
        inner.fault = None
        await asyncio.sleep(FIRST_PAUSE)
        assert await store.get("k") is None

    run(main())


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), MAX_TTL * 2])
def test_a_time_to_live_is_positive_and_finite(ttl: float) -> None:
    """What has no end, or has ended, is a ValueError and does not reach the store."""

    async def main() -> None:
        store, inner = guarded()
        for work in (
            store.put("k", b"", ttl),
            store.swap("k", None, b"", ttl),
            store.add("k", 1, ttl),
            store.lease("k", "me", ttl),
        ):
            with pytest.raises(ValueError, match="time to live"):
                await work
        assert inner.asked == 0
        assert not store.down

    run(main())


def test_what_no_store_can_do_is_refused() -> None:
    """Empty keys and owners, too large values and numbers: a ValueError, and the store is not down."""

    async def main() -> None:
        store, _ = guarded()
        for work in (
            store.get(""),
            store.get_many(["a", ""]),
            store.lease("k", "", 60),
            store.release("k", ""),
            store.add("k", 2**63, 60),
            store.put("k", bytes(store.max_value_bytes + 1), 60),
        ):
            with pytest.raises(ValueError, match=r"expected|at most|64 bits"):
                await work
        assert not store.down

    run(main())


def test_keys_are_prefixed_and_fit() -> None:
    """Deployments with different prefixes don't see each other's keys, however long those are."""

    async def main() -> None:
        inner = Patient()
        one, other = (Guarded(inner, MemorySettings(prefix=prefix)) for prefix in ("one", ""))
        await one.put("k", b"1", 60)
        assert await inner.get("one:k") == b"1"
        assert await other.get("k") is None
        long = "k" * 5000
        await one.put(long, b"2", 60)
        assert await one.get_many([long, "k", "none"]) == {long: b"2", "k": b"1"}
        assert await other.get(long) is None

    run(main())


class Slow(Patient):
    """A store that must be opened first, which takes a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.opened = 0

    async def open(self) -> None:
        self.opened += 1
        await asyncio.sleep(self.seconds)


def test_opening_is_not_the_stores_time() -> None:
    """Imports may take longer than an operation; they are done once."""

    async def main() -> None:
        inner = Slow(OPEN_SECONDS - 1)
        store = Guarded(inner, MemorySettings(timeout=TIMEOUT))
        assert await store.get("k") is None
        assert now() == pytest.approx(OPEN_SECONDS - 1)
        await store.open()
        assert await store.get("k") is None
        assert inner.opened == 1

    run(main())


def test_opening_is_bounded_too() -> None:
    """A store that cannot be opened is down, like one that does not answer."""

    async def main() -> None:
        store = Guarded(Slow(1e6), MemorySettings(timeout=TIMEOUT))
        with pytest.raises(StoreError):
            await store.open()
        assert now() == pytest.approx(OPEN_SECONDS)
        assert store.down

    run(main())


def test_closing_never_fails() -> None:
    """A store that cannot be closed properly does not keep a process from ending."""

    class Stuck(Patient):
        async def aclose(self) -> None:
            await asyncio.sleep(1e6)

    class Gone(Patient):
        async def aclose(self) -> None:
            raise StoreError("gone")

    async def main() -> None:
        for inner in (Stuck(), Gone()):
            await Guarded(inner, MemorySettings()).aclose()

    run(main())
