"""When a prompt cache pays: what a write costs, what reads save, and how likely the reads are.

The future is unknown, so no rule that ever pays for a write can promise that it is read. What can be promised
is a bound, and `Ledger` keeps it: money is put into writes only as far as reads have brought it in before.
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
    in_time: bool = False
    """Whether the latest gap was shorter than the prefix is kept."""

    def note(self, now: float, kept: float) -> None:
        """Note a call at ``now``; ``kept`` is for how many seconds the provider keeps a prefix."""
        gap = now - self.last
        self.count = self.count * FORGET + 1
        self.seconds = self.seconds * FORGET + gap
        self.in_time = gap < kept
        self.last = now

    def chance(self, kept: float) -> float:
        """Return how likely the next call comes within ``kept`` seconds, if calls come at random.

        That is the exponential distribution's answer, with its rate as uncertain as so few gaps leave it
        (Lomax); 0 before the second call.
        """
        if not self.count:
            return 0.0
        return 1 - (self.seconds / (self.seconds + kept)) ** self.count if self.seconds + kept else 1.0

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

    A write is granted out of what reads have saved, or out of ``share`` of everything that was spent. The
    first write is on credit. So at any time, whatever comes::

        cost with caching <= cost without * (1 + share) + surcharge of the first write

    as long as the provider keeps what it was paid to keep. Proof: a grant needs balance + share * spent -
    reserved >= surcharge, but for the first; reads only add to the balance, and a write takes no more from it
    than was reserved. Once reads have paid for the first write, nothing is lost any more.
    """

    def __init__(self, share: float = 0.0) -> None:
        self.balance = 0.0
        self.spent = 0.0
        """What all prompts would have cost without caching."""
        self.reserved = 0.0
        """Surcharges of writes whose bill has not come."""
        self.first = 0.0
        """The surcharge of the first write."""
        self._share = share
        self._credit = True
        self._billed = False

    def grant(self, amount: float) -> bool:
        """Reserve the surcharge of a write, if it may be made."""
        if amount > self.balance + self._share * self.spent - self.reserved and not self._credit:
            return False
        if self._credit and amount > 0:
            self._credit = False
            self.first = amount
        self.reserved += amount
        return True

    def cancel(self, reserved: float) -> None:
        """Give a reservation back: the write was not made, or not billed."""
        self.reserved -= reserved
        if reserved and reserved == self.first and not self._billed:
            self._credit, self.first = True, 0.0

    def settle(self, reserved: float, result: float, spent: float) -> None:
        """Replace a reservation by what came of it; ``spent`` is the call's cost without caching."""
        self._billed = self._billed or reserved > 0
        self.reserved -= reserved
        self.balance += result
        self.spent += spent
