"""When a prompt cache pays: what a write costs, what reads save, and how likely the reads are.

The future is unknown, so no rule that ever pays for a write can promise that it is read. What can be
promised is a bound, and `Ledger` keeps it: money is put into writes only as far as reads have brought it in
before, but for the first write, which is made when it is all but sure to be read.
All amounts here are in tokens at the price of input, so that they hold in any currency.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from firsttoken.cache.prices import Prices

Decision = Literal["nothing", "mark", "explicit"]
FORGET = 0.9
"""What counts of each older observation, for every newer one: rates change."""
MAX_REUSES = 50.0
PROOF = 10.0
"""How many times the surcharge of the first write must have been saved on paper."""
SHARE = 0.02
"""Of what was saved on paper, that may be lost on later writes that nobody reads; see `Ledger`."""
RUN = 6
"""Calls in a row that came in time: from there on the next one is believed to come too."""
SURE = 0.9
"""The least chance of that."""


def surcharge(prices: Prices, tokens: int, ttl: str) -> float:
    """Return what it costs more to write so many tokens to the cache than only to read them."""
    return tokens * max(0.0, prices.write_for(ttl) - 1)


def saving(prices: Prices, tokens: float) -> float:
    """Return what is saved when so many tokens are read from the cache."""
    return tokens * (1 - prices.read)


def storing(prices: Prices, tokens: int, seconds: float) -> float:
    """Return what it costs to make an explicit cache: its tokens are read once, then stored so long."""
    return tokens * (1 + prices.storage_share(seconds))


def reuses(chance: float) -> float:
    """Return how often a prefix is read, on average, until it expires.

    Each read begins its time anew, so it goes on as long as one call after the other comes in time, each with
    this ``chance``.
    """
    return min(chance / (1 - chance), MAX_REUSES) if chance < 1 else MAX_REUSES


def decide(  # noqa: PLR0913 - the terms of one sum
    prices: Prices,
    tokens: int,
    expected: float,
    *,
    ttl: str = "5m",
    seconds: float = 300.0,
    hits: float = 0.0,
    marks: bool = True,
) -> Decision:
    """Return what to do with a prefix that is expected to be used so often again before it expires.

    ``marks`` says whether the provider takes markers; where it does not, an explicit cache that lives for
    ``seconds`` may pay. ``hits`` is the share of calls for which the provider caches by itself.
    """
    if tokens < prices.minimum:
        return "nothing"
    gain = expected * saving(prices, tokens)
    if marks:
        return "mark" if gain >= surcharge(prices, tokens, ttl) else "nothing"
    if not prices.storage:
        return "nothing"
    return "explicit" if gain * (1 - hits) > storing(prices, tokens, seconds) else "nothing"


class Arrivals(Struct):
    """When calls with one prefix came: enough of it to tell how likely the next one comes in time."""

    last: float = 0.0
    count: float = 0.0
    """Gaps between calls, older ones count less."""
    seconds: float = 0.0
    """Their sum."""
    run: int = 0
    """Calls in a row, up to the latest, that came while the prefix was kept."""
    shortest: int = -1
    """The shortest run that ended, lately; -1 where none has."""

    @property
    def in_time(self) -> bool:
        """Whether the latest call came while the prefix was kept."""
        return self.run > 0

    def note(self, now: float, kept: float) -> None:
        """Note a call at ``now``; ``kept`` is for how many seconds the provider keeps a prefix."""
        gap = now - self.last
        self.count = self.count * FORGET + 1
        self.seconds = self.seconds * FORGET + gap
        self.last = now
        if gap < kept:
            self.run += 1
            return
        self.shortest = self.run if self.shortest < 0 else min(self.run, 2 * self.shortest + 1)
        self.run = 0

    def chance(self, kept: float) -> float:
        """Return how likely the next call comes within ``kept`` seconds, if calls come at random.

        That is the exponential distribution's answer, with its rate as uncertain as so few gaps leave it
        (Lomax); 0 before the second call.
        """
        if not self.count:
            return 0.0
        return 1 - (self.seconds / (self.seconds + kept)) ** self.count if self.seconds + kept else 1.0

    def sure(self, chance: float) -> bool:
        """Return whether the next call all but certainly comes in time; ``chance`` is what is guessed of it.

        It is in the first half of a run as short as any before, or in a long run, longer where others ended.
        """
        if 0 < self.run < self.shortest / 2:
            return True
        return self.run >= (RUN if self.shortest < 0 else 2 * RUN) and chance >= SURE

    def rate(self) -> float:
        """Return calls a second, as far as is known."""
        return self.count / max(self.seconds, 1.0)


class Odds(Struct):
    """How often calls came in time after all, where a prediction was made before."""

    trials: float = 0.0
    wins: float = 0.0

    def note(self, *, won: bool) -> None:
        """Note an outcome."""
        self.trials = self.trials * FORGET + 1
        self.wins = self.wins * FORGET + won

    def given(self, prior: float) -> float:
        """Return the chance, where ``prior`` counts as much as one outcome."""
        return (prior + self.wins) / (1 + self.trials)


class Ledger:
    """What caching has saved and cost; says whether another write may be paid for.

    A write is granted out of what reads have saved. Before there is any of that a write takes a loan, and
    gets it only where it is sure to be read, after a probation on paper: there, all that pays is written and
    read for nothing. The first loan needs ``proof`` times its amount on paper; later ones leave a debt of at
    most that amount, or `SHARE` of what is on paper. So at any time, whatever comes::

        cost with caching <= cost without + max(surcharge of the first write, SHARE * cost without)

    as long as the provider keeps what it was paid to keep. Proof: reads only add to the balance, a write
    takes no more from it than was reserved, and no more can be on paper than the prompts have cost.
    """

    def __init__(self, balance: float = 0.0) -> None:
        self.balance = balance
        """What reads have saved, less what writes have cost."""
        self.reserved = 0.0
        """Surcharges of writes whose bill has not come."""
        self.paper = 0.0
        """What would have been saved, had all been written that pays."""
        self.proof = PROOF
        """How many times the amount of the first loan must be on paper."""
        self.first = 0.0
        """The surcharge of the first write, which was made on a loan."""

    def grant(self, amount: float, *, sure: bool = False) -> bool:
        """Reserve the surcharge of a write, if it may be made; ``sure``: it is all but sure to be read."""
        room = self.balance - self.reserved
        if amount > max(room, 0.0) and not (sure and self._lend(amount, room)):
            return False
        self.reserved += amount
        return True

    def cancel(self, reserved: float) -> None:
        """Give a reservation back: the write was not made, or not billed."""
        self.reserved -= reserved

    def settle(self, reserved: float, result: float) -> None:
        """Replace a reservation by what came of it."""
        self.reserved -= reserved
        self.balance += result

    def note(self, result: float) -> None:
        """Note what would have come of a call on paper."""
        self.paper += result

    def tick(self, now: float, amount: float = 0.0) -> None:
        """Note the time, and what the next write may cost. Nothing to do for a ledger of one process."""

    def _lend(self, amount: float, room: float) -> bool:
        if self.first:
            return amount - room <= max(self.first, self.paper * SHARE)
        if amount * self.proof > self.paper:
            return False
        self.first = amount
        return True
