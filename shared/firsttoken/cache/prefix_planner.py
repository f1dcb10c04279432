"""Which prefixes of a prompt are worth writing to a provider's cache, learned from the calls that come.

A prefix is written only from its second sighting in time on, when the expected reads pay for it and the
ledger grants it. One that the provider holds is marked always: reading costs nothing extra. The same is done
on paper, where every write that pays is granted: what that would have brought is what loans are judged by.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from firsttoken.cache.break_even import Arrivals, Ledger, Odds, decide, reuses, saving, surcharge
from firsttoken.cache.prices import Prices
from firsttoken.model import Usage

ENTRIES = 4096
_KEPT = {"5m": 300.0, "1h": 3600.0}
_DEPTHS = 4


class Prefix(Struct):
    """What is known of one prefix."""

    arrivals: Arrivals
    odds: Odds
    seen: int = 1
    held: int = 0
    """Tokens of it that the provider keeps, as far as is known, and until when."""
    held_until: float = 0.0
    writing_until: float = 0.0
    """A call that writes it is under way: others can neither read it yet nor need to write it."""
    paper: int = 0
    """Tokens of it that the provider would keep, had all been written that pays, and until when."""
    paper_until: float = 0.0
    followed: bool = False
    """Whether another prefix goes on where this one ends."""


Sized = tuple[Prefix, int]
"""A prefix, and up to which token of a prompt it goes."""


class Plan(Struct):
    """What was decided for one call: the positions of the prefixes to mark, and what that may cost."""

    marks: tuple[int, ...] = ()
    reserved: float = 0.0
    marked: tuple[Sized, ...] = ()
    """What is marked."""
    noted: tuple[Sized, ...] = ()
    """What is marked on paper, and what comes of that."""
    paper: float = 0.0
    started: float = 0.0


class Planner:
    """Decides for one target. Times are seconds on any clock that goes on.

    Memory: `ENTRIES` prefixes of about 0.7 kB; those that were used least recently go. Time: constant for
    each prefix of a call.
    """

    def __init__(self, prices: Prices, ttl: str, ledger: Ledger | None = None) -> None:
        self.ledger = ledger or Ledger()
        self._prices = prices
        self._ttl = ttl if ttl != "1h" or prices.write_1h else "5m"
        self._kept = _KEPT[self._ttl]
        self._free = prices.write_for(self._ttl) <= 1
        self._known: OrderedDict[bytes, Prefix] = OrderedDict()
        self._population = [Odds() for _ in range(_DEPTHS + 1)]
        self._open: deque[tuple[float, Prefix, int]] = deque(maxlen=2 * ENTRIES)
        """Predictions whose time is not over: until when, of what, after how many sightings."""

    @property
    def ttl(self) -> str:
        """For how long the provider is asked to keep what is marked."""
        return self._ttl

    def sight(self, key: bytes, now: float, before: Iterable[bytes] = ()) -> Prefix:
        """Note that a prompt begins with a prefix, and return what is known of it.

        A conversation grows: ``before`` holds what its prefix may have been in the calls before, the latest
        first. A branch goes on with what was known where it branched off.
        """
        self._judge(now)
        known = self._known.get(key)
        if known is None:
            known = next((self._known[old] for old in before if old in self._known), None)
            known = known and _branch(known)
        if known is None:
            known = Prefix(Arrivals(last=now), Odds())
        else:
            self._note(known, now)
        self._known[key] = known
        self._known.move_to_end(key)
        if len(self._known) > ENTRIES:
            self._known.popitem(last=False)
        return known

    def plan(self, prefixes: Sequence[Sized], now: float) -> Plan:
        """Decide for the prefixes of one prompt, the shortest first, each with its tokens from the start.

        A prefix that has grown comes twice: with the tokens that it had, and with those that it has.
        """
        if prefixes and not self._free:
            self.ledger.tick(now, surcharge(self._prices, prefixes[-1][1], self._ttl))
        read, written = self._choose(prefixes, now)
        written, amount = self._granted(prefixes, read, written)
        for position in written:
            prefixes[position][0].writing_until = now + self._kept
        marks = (*read, *written)
        plan = Plan(marks, amount, tuple([prefixes[position] for position in marks]), started=now)
        if not self._free:
            self._note_on_paper(plan, prefixes, now)
        return plan

    def began(self, plan: Plan) -> None:
        """Note that the answer has begun: from here on others can read what this call has written."""
        until = plan.started + self._kept
        for prefix, tokens in plan.marked:
            prefix.writing_until = 0.0
            prefix.held = tokens
            prefix.held_until = max(prefix.held_until, until)
        for prefix, tokens in plan.noted:
            prefix.paper = tokens
            prefix.paper_until = max(prefix.paper_until, until)

    def ended(self, plan: Plan, usage: Usage | None) -> None:
        """Note the bill of an answer; None where it is not known: then the worst is taken for granted."""
        if usage is None:
            self.failed(plan, billed=True)
            return
        if not (usage.cached or usage.cache_write):
            for prefix, _ in plan.marked:
                prefix.held_until = 0.0  # shorter than the provider's minimum, or lost
        paid = surcharge(self._prices, usage.cache_write, self._ttl) if plan.marks else 0.0
        saved = saving(self._prices, usage.cached) if plan.marks else 0.0
        self.ledger.settle(plan.reserved, saved - paid)
        if plan.noted:
            self.ledger.note(min(plan.paper, saving(self._prices, usage.input)))

    def failed(self, plan: Plan, *, billed: bool = False) -> None:
        """Note that there was no answer; ``billed`` where it may have to be paid for nevertheless."""
        for prefix, _ in plan.marked:
            prefix.writing_until = 0.0
        if billed:
            self.ledger.settle(plan.reserved, -plan.reserved)
        else:
            self.ledger.cancel(plan.reserved)

    def _choose(
        self, prefixes: Sequence[Sized], now: float, *, paper: bool = False
    ) -> tuple[list[int], list[int]]:
        """Return the positions of what can be read, and after it of what would pay to be written."""
        read: list[int] = []
        written: list[int] = []
        base = 0
        for position, (prefix, tokens) in enumerate(prefixes):
            if tokens < self._prices.minimum or tokens <= base:
                continue
            held, until = (prefix.paper, prefix.paper_until) if paper else (prefix.held, prefix.held_until)
            if held >= tokens and until > now:
                # What comes before it is read with it: nothing of that needs to be written.
                read, written, base = [*read, position], [], tokens
            elif (paper or prefix.writing_until <= now) and self._pays(prefix, tokens):
                written.append(position)
                base = tokens
        return read, written

    def _granted(
        self, prefixes: Sequence[Sized], read: list[int], written: list[int]
    ) -> tuple[list[int], float]:
        """Return what of it may be written, and the surcharge that is reserved for it."""
        amount = self._surcharge(prefixes, read, written)
        if not written or self.ledger.grant(amount):
            return written, amount
        # Whoever reads a longer prefix reads the shortest as well: nothing is likelier to pay a loan back.
        shortest = written[:1]
        prefix, _ = prefixes[shortest[0]]
        amount = self._surcharge(prefixes, read, shortest)
        if not prefix.arrivals.sure(self._chance(prefix)) or not self.ledger.grant(amount, sure=True):
            return [], 0.0
        return shortest, amount

    def _note_on_paper(self, plan: Plan, prefixes: Sequence[Sized], now: float) -> None:
        read, written = self._choose(prefixes, now, paper=True)
        plan.noted = tuple([prefixes[position] for position in (*read, *written)])
        saved = saving(self._prices, prefixes[read[-1]][1]) if read else 0.0
        plan.paper = saved - self._surcharge(prefixes, read, written)

    def _surcharge(self, prefixes: Sequence[Sized], read: list[int], written: list[int]) -> float:
        if not written:
            return 0.0
        known = prefixes[read[-1]][1] if read else 0
        return surcharge(self._prices, prefixes[written[-1]][1] - known, self._ttl)

    def _pays(self, prefix: Prefix, tokens: int) -> bool:
        if self._free:
            return True
        if not prefix.arrivals.in_time:
            return False
        return decide(self._prices, tokens, reuses(self._chance(prefix)), ttl=self._ttl) == "mark"

    def _chance(self, prefix: Prefix) -> float:
        """Return how likely the next call comes in time.

        Guessed from the gaps, then by how such guesses went for all prefixes seen so often, then for this.
        """
        guess = prefix.arrivals.chance(self._kept)
        return prefix.odds.given(self._population[min(prefix.seen, _DEPTHS)].given(guess))

    def _note(self, prefix: Prefix, now: float) -> None:
        predicted, depth = prefix.arrivals.in_time, min(prefix.seen, _DEPTHS)
        prefix.arrivals.note(now, self._kept)
        if predicted and prefix.arrivals.in_time:
            prefix.odds.note(won=True)
            self._population[depth].note(won=True)
        prefix.seen += 1
        prefix.followed = False
        if prefix.arrivals.in_time:
            self._open.append((now + self._kept, prefix, prefix.seen))

    def _judge(self, now: float) -> None:
        """Count the predictions that did not come true."""
        waiting = self._open
        while waiting and waiting[0][0] <= now:
            _, prefix, seen = waiting.popleft()
            if prefix.seen == seen and not prefix.followed:
                prefix.odds.note(won=False)
                self._population[min(seen, _DEPTHS)].note(won=False)


def _branch(known: Prefix) -> Prefix:
    known.followed = True
    arrivals, odds = replace(known.arrivals), replace(known.odds)
    return replace(known, arrivals=arrivals, odds=odds, writing_until=0.0, followed=False)
