"""The ledger of a fleet: what caching has saved is a counter in the store; each instance holds a slice of it.

Instances of a function are short-lived. With a ledger each, every one of them would be on probation, and its
first write would be on loan; with one for all of them there is one probation and one first write.
"""

from __future__ import annotations

from contextlib import suppress
from math import ceil

from firsttoken.cache.break_even import SHARE, Ledger
from firsttoken.errors import StoreError
from firsttoken.policies.shadow import Shadow
from firsttoken.stores.store import Store

KEPT = 30 * 86_400.0
"""Seconds for which a fleet's ledger is kept: after that there is a probation, and a first write, again."""
EVERY = 60.0
"""Seconds between two looks at the store; what a short-lived instance saves in less is lost with it."""
SOON = 5.0
"""The same where a write has to wait for it."""
SLICE = 2
"""How many writes of the size of the latest an instance holds money for."""


class SharedLedger(Ledger):
    """One instance's part of the ledger of a target, for all tenants: the operator pays one bill for it.

    A write is paid with money that was taken from the store before, so instances never spend the same money
    twice, and what an instance holds when it dies counts as spent. No call waits for the store: it is asked
    beside the calls, at most every `EVERY` seconds, or `SOON` where a write waits. While it is down, what is
    held here and what reads bring is spent, and there are no loans. Amounts are whole tokens there.
    """

    def __init__(self, store: Store, shadow: Shadow, name: str) -> None:
        super().__init__()
        self._store = store
        self._shadow = shadow
        self._key = f"prefix-ledger:{name}"
        self._untold = 0.0
        """Of what is on paper, what others do not know."""
        self._loan = 0.0
        """Of the balance, what is on loan: only for what is sure to be read."""
        self._want = 0.0
        """What a write costs, as the latest prompt and those that were refused one say."""
        self._asked = 0.0
        """The loan that is wanted."""
        self._next = 0.0
        self._waits = False
        """Whether a write was refused since the last look."""
        self._empty = False
        """Whether there was nothing to take at the last look."""
        self._busy = False

    def grant(self, amount: float, *, sure: bool = False) -> bool:
        """Reserve the surcharge of a write out of what is held here; see `Ledger`."""
        room = self.balance - self.reserved
        if amount <= max(room if sure else room - self._loan, 0.0):
            self.reserved += amount
            return True
        self._want, self._waits = max(self._want, amount), True
        if sure:
            self._asked = amount
        return False

    def note(self, result: float) -> None:
        """Note what would have come of a call on paper."""
        super().note(result)
        self._untold += result

    def tick(self, now: float, amount: float = 0.0) -> None:
        """Ask the store beside the call, where it is time to; ``amount`` is what the next write may cost."""
        self._want = max(self._want, amount) if self._waits else amount
        soon = self._waits and not self._busy and (not self._empty or self._may_borrow())
        if now < self._next - (EVERY - SOON) * soon:
            return
        dropped = self._shadow.dropped
        self._busy, self._next = True, now + EVERY
        self._shadow.run(self._sync())
        if self._shadow.dropped > dropped:
            self._busy = False

    async def give_back(self) -> None:
        """Put everything back that is held here: this instance ends."""
        with suppress(StoreError):
            await self._tell()
            await self._put(self.balance - self.reserved)

    def _may_borrow(self) -> bool:
        return 0 < self._asked * self.proof <= self.paper

    async def _sync(self) -> None:
        try:
            await self._exchange()
        finally:
            self._busy = False

    async def _exchange(self) -> None:
        """Take what is wanted, or put back what is not."""
        held = self.balance - self.reserved
        free, target = held - self._loan, SLICE * self._want
        if free > target:
            await self._tell()  # if the store is down, that is found out before money is on its way
            await self._put(free - target)
        elif free < self._want:
            self._empty = not await self._take(target - max(free, 0.0), 0.0)
            if self._empty:
                await self._tell()
            if self._empty and self._asked:
                await self._borrow(self._asked)
        if self._loan and not self._asked:
            await self._put(min(self._loan, self.balance - self.reserved))
        self._asked, self._waits = 0.0, False

    async def _borrow(self, amount: float) -> None:
        mark, first = f"{self._key}:first", b"%d" % ceil(amount)
        known = await self._store.get(mark)
        if known is None:
            if amount * self.proof > self.paper or not await self._store.swap(mark, None, first, KEPT):
                return
            known = first
        if await self._take(amount, max(float(known), self.paper * SHARE)):
            self._loan += amount

    async def _tell(self) -> None:
        """Tell others what came of the paper, and learn what came of theirs."""
        told, self._untold = int(self._untold), self._untold - int(self._untold)
        self.paper = await self._store.add(f"{self._key}:paper", told, KEPT) + self._untold

    async def _take(self, amount: float, line: float) -> bool:
        """Take money out of the store, where that leaves it with no more debt than ``line``."""
        wanted = ceil(amount)
        if await self._store.add(f"{self._key}:balance", -wanted, KEPT) < -ceil(line):
            await self._store.add(f"{self._key}:balance", wanted, KEPT)
            return False
        self.balance += wanted
        return True

    async def _put(self, amount: float) -> None:
        """Put money into the store. Where that fails it may be there, so it counts as gone here."""
        given = int(amount)
        if given > 0:
            self.balance -= given
            self._loan = max(0.0, self._loan - given)
            await self._store.add(f"{self._key}:balance", given, KEPT)


class Ledgers:
    """The ledgers of one process, shared where ``store`` is. Memory: 0.5 kB for each target and model."""

    def __init__(self, store: Store | None, shadow: Shadow) -> None:
        self._store = store
        self._shadow = shadow
        self._known: dict[str, SharedLedger] = {}

    def of(self, name: str) -> Ledger:
        """Return the ledger of a target's model."""
        if self._store is None:
            return Ledger()
        if name not in self._known:
            self._known[name] = SharedLedger(self._store, self._shadow, name)
        return self._known[name]

    async def aclose(self) -> None:
        """Put back what this instance holds."""
        for ledger in self._known.values():
            await ledger.give_back()
