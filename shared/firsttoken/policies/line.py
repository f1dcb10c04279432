"""The calls that wait for a target's quota: by priority, fair between tenants, first come first served."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import islice
from math import inf

from firsttoken.errors import UnavailableError
from firsttoken.model import Call
from firsttoken.policies.bucket import Amounts

HEADER = "x-firsttoken-priority"
_RANKS: Mapping[str, int] = {"high": 0, "normal": 1, "low": 2}
BACKGROUND = len(_RANKS)
"""The priority of calls that nobody waits for: below all others."""


def rank_of(call: Call, priorities: Mapping[str, str]) -> int:
    """Return a call's priority, 0 for the highest: its tenant's, or a lower one that its header asks for.

    A call that nobody waits for has the lowest.
    """
    if call.background:
        return BACKGROUND
    rank = _RANKS[priorities.get(call.tenant, "normal")]
    return max(rank, _RANKS.get(call.headers.get(HEADER, ""), rank))


class Reservation:
    """What a call has, or waits for: its part of the target's limits."""

    __slots__ = ("amounts", "future", "named", "prompt", "rank", "tenant", "until")

    def __init__(self, amounts: Amounts, prompt: int, *, named: bool, tenant: str) -> None:
        self.amounts = amounts
        """Asked for; once granted, what was taken."""
        self.prompt = prompt
        """Estimated input tokens."""
        self.named = named
        """Whether the request names a limit of its answer's tokens."""
        self.tenant = tenant
        self.rank = 1
        """Its priority, 0 for the highest."""
        self.until = inf
        """How long it waits at most; a time of the loop's clock."""
        self.future: asyncio.Future[UnavailableError | None] | None = None
        """While it waits: None once it was granted, or why it was refused."""


class Line:
    """Waiting reservations. Within a priority each tenant has its turn, within a tenant the oldest has.

    Taking the next one, adding and removing take constant time; the rest looks at all of them. Memory: as
    many as the caller lets in.
    """

    def __init__(self) -> None:
        self._ranks: tuple[OrderedDict[str, OrderedDict[Reservation, None]], ...]
        self._ranks = tuple([OrderedDict() for _ in range(BACKGROUND + 1)])
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, reservation: Reservation) -> bool:
        return reservation in self._ranks[reservation.rank].get(reservation.tenant, ())

    def __iter__(self) -> Iterator[Reservation]:
        """All of them, in no order that means anything."""
        return (item for tenants in self._ranks for waiting in tenants.values() for item in waiting)

    def head(self) -> Reservation | None:
        """Return whose turn it is."""
        for tenants in self._ranks:
            for waiting in tenants.values():
                return next(iter(waiting))
        return None

    def add(self, reservation: Reservation) -> None:
        """Let one more wait."""
        self._ranks[reservation.rank].setdefault(reservation.tenant, OrderedDict())[reservation] = None
        self._count += 1

    def serve(self, reservation: Reservation) -> None:
        """Remove the `head`: the next turn is another tenant's."""
        self.remove(reservation)
        tenants = self._ranks[reservation.rank]
        if reservation.tenant in tenants:
            tenants.move_to_end(reservation.tenant)

    def remove(self, reservation: Reservation) -> None:
        """Let one go that waits here."""
        tenants = self._ranks[reservation.rank]
        waiting = tenants[reservation.tenant]
        del waiting[reservation]
        self._count -= 1
        if not waiting:
            del tenants[reservation.tenant]

    def before(self, newcomer: Reservation) -> Iterator[Reservation]:
        """Return those who come before a newcomer: higher priorities, and the turns until its own."""
        for tenants in self._ranks[: newcomer.rank]:
            for waiting in tenants.values():
                yield from waiting
        tenants = self._ranks[newcomer.rank]
        turns = len(tenants.get(newcomer.tenant, ())) + 1
        for waiting in tenants.values():
            yield from islice(waiting, turns)

    def victim(self, newcomer: Reservation) -> Reservation | None:
        """Return who must go when a newcomer finds no place: the latest of those who count least.

        That is the lowest priority below the newcomer's; else, in its own, a tenant with more than it has.
        """
        for tenants in reversed(self._ranks[newcomer.rank + 1 :]):
            if tenants:
                longest = max(tenants.values(), key=len)
                return next(reversed(longest))
        tenants = self._ranks[newcomer.rank]
        longest = max(tenants.values(), key=len, default=OrderedDict())
        few = len(tenants.get(newcomer.tenant, ())) + 1
        return next(reversed(longest)) if len(longest) > few else None
