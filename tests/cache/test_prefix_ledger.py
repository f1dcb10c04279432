"""The ledger that instances share: one probation, one first write, no money spent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from virtual_time import run

from benchmarks.caching_workloads import CLAUDE, Sent, Workload, bills, workloads
from firsttoken.cache.break_even import PROOF, SHARE, Ledger
from firsttoken.cache.prefix_ledger import EVERY, SLICE, SOON, Ledgers, SharedLedger
from firsttoken.cache.prefix_planner import Planner
from firsttoken.errors import StoreError
from firsttoken.policies.shadow import MAX_PENDING, Shadow
from firsttoken.settings import MemoryStore
from firsttoken.stores.memory import MemoryStore as Memory

NAME = "p/claude-opus-5"
BALANCE = f"prefix-ledger:{NAME}:balance"
PAPER = f"prefix-ledger:{NAME}:paper"


class Fleet:
    """A store that instances share, and their ledgers."""

    def __init__(self) -> None:
        self.store = Shared(MemoryStore())
        self.shadow = Shadow()

    def instance(self) -> SharedLedger:
        return SharedLedger(self.store, self.shadow, NAME)

    async def tick(self, ledger: SharedLedger, now: float, amount: float = 0.0) -> None:
        """Let a ledger look at the store, if it is time to."""
        ledger.tick(now, amount)
        await self.shadow.settle(5)

    async def balance(self) -> int:
        return await self.store.add(BALANCE, 0, 1.0)


class Shared(Memory):
    """A memory that several instances share, and that can be down."""

    shared = True

    def __init__(self, settings: MemoryStore) -> None:
        super().__init__(settings)
        self.down = False
        self.asked = 0

    async def add(self, key: str, amount: int, ttl: float) -> int:
        self.asked += 1
        if self.down:
            raise StoreError("no")
        await asyncio.sleep(0.01)
        return await super().add(key, amount, ttl)


def test_what_one_instance_saved_another_one_spends() -> None:
    """A new instance of a funded deployment is not on probation: its second call may write."""

    async def scenario() -> None:
        fleet = Fleet()
        one, two = fleet.instance(), fleet.instance()
        one.settle(0, 10_000)
        await fleet.tick(one, 0.0, 500)
        assert one.balance == SLICE * 500
        assert await fleet.balance() == 9_000
        await fleet.tick(two, 0.0, 500)
        assert two.grant(500)
        assert await fleet.balance() == 8_000

    run(scenario())


def test_instances_never_spend_the_same_money() -> None:
    """However many want it at once, they get no more than there is."""

    async def scenario() -> None:
        fleet = Fleet()
        await fleet.store.add(BALANCE, 5_000, 1e6)
        instances = [fleet.instance() for _ in range(40)]
        for instance in instances:
            instance.tick(0.0, 300)
        await fleet.shadow.settle(5)
        granted = sum([300 for instance in instances if instance.grant(300)])
        assert 0 < granted <= 5_000
        assert sum([instance.balance for instance in instances]) + await fleet.balance() == 5_000

    run(scenario())


def test_one_first_write_for_all() -> None:
    """The probation is one for all instances, and so is the loan of the first write."""

    async def scenario() -> None:
        fleet = Fleet()
        instances = [fleet.instance() for _ in range(5)]
        for instance in instances:
            instance.note(100 * PROOF / 5)
            await fleet.tick(instance, 0.0, 100)
            assert not instance.grant(100, sure=True)
        for instance in instances:
            await fleet.tick(instance, EVERY, 100)
        assert [instance.grant(100, sure=True) for instance in instances].count(True) == 1
        assert await fleet.balance() == -100

    run(scenario())


def test_without_proof_there_is_no_loan() -> None:
    """Neither for what is not sure to be read, nor before enough was saved on paper."""

    async def scenario() -> None:
        fleet = Fleet()
        one = fleet.instance()
        one.note(99 * PROOF)
        for now in range(0, 500, 20):
            await fleet.tick(one, now, 100)
            assert not one.grant(100, sure=True)
        one.note(PROOF)
        for now in range(500, 1_000, 20):
            await fleet.tick(one, now, 100)
            assert not one.grant(100)
        assert await fleet.balance() == 0

    run(scenario())


def test_a_loan_pays_only_for_what_is_sure_and_is_given_back() -> None:
    """What was lent and is not wanted any more goes back to the store."""

    async def scenario() -> None:
        fleet = Fleet()
        one = fleet.instance()
        one.note(200 * PROOF)
        assert not one.grant(100, sure=True)
        await fleet.tick(one, 0.0, 100)
        assert not one.grant(100)
        assert one.grant(100, sure=True)
        one.cancel(100)
        await fleet.tick(one, EVERY, 0.0)
        await fleet.tick(one, 2 * EVERY, 0.0)
        assert await fleet.balance() == 0
        assert not one.grant(100)

    run(scenario())


def test_a_loan_of_one_that_died_is_not_lent_again() -> None:
    """Until it is a small share of what was saved on paper."""

    async def scenario() -> None:
        fleet = Fleet()
        dead, alive = fleet.instance(), fleet.instance()
        dead.note(100 * PROOF)
        assert not dead.grant(100, sure=True)
        await fleet.tick(dead, 0.0, 100)
        assert dead.grant(100, sure=True)
        for now, enough in ((0.0, False), (EVERY, False), (2 * EVERY, True)):
            alive.note(200 / SHARE if enough else 0.0)
            alive.grant(100, sure=True)
            await fleet.tick(alive, now, 100)
            assert alive.grant(100, sure=True) is enough
        assert await fleet.balance() == -200

    run(scenario())


def test_while_the_store_is_down_there_is_no_new_credit() -> None:
    """What is held and what reads bring is spent; nothing is lent, and nothing vanishes."""

    async def scenario() -> None:
        fleet = Fleet()
        one, new = fleet.instance(), fleet.instance()
        one.settle(0, 1_000)
        await fleet.tick(one, 0.0, 500)
        fleet.store.down = True
        new.note(1e6)
        for number in range(5):
            assert not new.grant(500, sure=True)
            await fleet.tick(new, EVERY * number, 500)
            await fleet.tick(one, EVERY * number, 500)
        assert one.grant(500)
        one.settle(500, 4_000)
        await fleet.tick(one, EVERY * 10, 100)
        fleet.store.down = False
        await fleet.tick(one, EVERY * 20, 100)
        assert one.balance + await fleet.balance() >= 1_000
        assert not new.grant(500, sure=True)

    run(scenario())


def test_an_instance_that_ends_gives_back_what_it_holds() -> None:
    """Where it may say good-bye; a store that is down holds nobody up."""

    async def scenario() -> None:
        fleet = Fleet()
        ledgers = Ledgers(fleet.store, fleet.shadow)
        ledger = ledgers.of(NAME)
        assert ledgers.of(NAME) is ledger
        ledger.settle(0, 700)
        ledger.note(300)
        await ledgers.aclose()
        assert await fleet.balance() == 700
        assert await fleet.store.add(PAPER, 0, 1.0) == 300
        fleet.store.down = True
        ledger.settle(0, 700)
        await ledgers.aclose()

    run(scenario())


def test_without_a_shared_store_each_has_its_own() -> None:
    """A ledger of one process has nobody to ask."""
    ledgers = Ledgers(None, Shadow())
    assert type(ledgers.of(NAME)) is Ledger
    assert ledgers.of(NAME) is not ledgers.of(NAME)


@pytest.mark.parametrize("funded", [True, False])
def test_the_store_is_asked_rarely(*, funded: bool) -> None:
    """Once a minute; sooner where a write waits and there may be money for it."""

    async def scenario() -> None:
        fleet = Fleet()
        one = fleet.instance()
        await fleet.store.add(BALANCE, 1_000_000 * funded, 1e6)
        await fleet.tick(one, 0.0, 100)
        asked = fleet.store.asked
        for now in range(1, int(EVERY)):
            await fleet.tick(one, now, 100)
        assert fleet.store.asked == asked
        assert not one.grant(5_000)
        await fleet.tick(one, EVERY - 1, 100)
        assert (fleet.store.asked > asked) is funded
        assert one.grant(5_000) is funded
        assert SOON < EVERY

    run(scenario())


def test_no_room_in_the_background_is_no_harm() -> None:
    """What was not asked is asked the next time."""

    async def scenario() -> None:
        fleet = Fleet()
        one = fleet.instance()
        await fleet.store.add(BALANCE, 1_000, 1e6)
        for _ in range(MAX_PENDING):
            fleet.shadow.run(asyncio.sleep(1))
        await fleet.tick(one, 0.0, 100)
        assert not one.grant(100)
        await fleet.tick(one, EVERY, 100)
        assert one.grant(100)

    run(scenario())


def test_short_lived_instances_never_lose_more_than_one_first_write() -> None:
    """Instances, four at a time, that die without a word: never is more lost than one may lose."""

    async def scenario() -> None:
        fleet = Fleet()
        waiting, alive = workloads(5, 200), []
        cost = plain = worst = 0.0
        while True:
            while len(alive) < 4 and (workload := next(waiting, None)):
                alive.append(bills(workload, Planner(workload.prices, workload.ttl, fleet.instance())))
            if not alive:
                break
            bill = next(alive[0], None)
            alive = [*alive[1:], alive[0]] if bill else alive[1:]
            cost, plain = cost + (bill or (0, 0))[0], plain + (bill or (0, 0))[1]
            worst = max(worst, cost - plain)
            await fleet.shadow.settle(5)
        first = float(await fleet.store.get(f"prefix-ledger:{NAME}:first"))
        assert worst <= first
        assert cost < 0.65 * plain

    run(scenario())


def test_a_short_conversation_of_a_funded_deployment_is_cached() -> None:
    """Three turns with a new instance: the second writes, the third reads."""

    async def scenario() -> None:
        fleet = Fleet()
        await fleet.store.add(BALANCE, 100_000, 1e6)
        calls = tuple(Sent(turn * 30.0, ((b"x", 8_000),), 8_100) for turn in range(3))
        planner = Planner(CLAUDE, "5m", fleet.instance())
        turns: Iterator[Any] = bills(Workload(CLAUDE, "5m", calls), planner)
        costs = []
        for cost, plain in turns:
            costs.append(cost / plain)
            await fleet.shadow.settle(5)
        assert costs[0] == 1 < costs[1]
        assert costs[2] < 0.2

    run(scenario())
