"""The state of one target in this process: closed, open until a probe succeeds, or cooling down.

Pure and fast: a call is decided on the local copy alone. What happens here is told to the other instances,
and what happened there arrives, beside the calls (`firsttoken.policies.board`). Two rules open it: failures
in a row for this instance only, and for all of them what follows the failures of all instances.

What tells an outage from errors that are usual is how the next call after a failure ends. So of the successes
only those are counted that directly follow a failure, and only while the fleet has failures worth asking: one
addition a failure, at most one more after it, and none in a fleet that is well.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from math import inf, log
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from firsttoken.errors import (
    FirstTokenError,
    StoreError,
    UnavailableError,
    UpstreamRateLimitError,
)
from firsttoken.policies.board import MEMORY, Board, Shared
from firsttoken.policies.counted import FULL, Counted
from firsttoken.policies.stats import is_failure
from firsttoken.settings import Breaker as Settings

MAX_COOL = 300.0
"""Seconds that a target is left alone at most, however long it asks for."""
RATE_LIMITED = "rate_limit_exceeded"
"""The code of a refusal that is the target's wish, not ours: clients know what to do about it."""
_MAX_GUESS = 30.0
"""The same, where it names no time."""
_NEWS = 1.0
"""Seconds by which a cool-down has to be longer than the known one to be told to others."""
_YOUNG = 1.0
"""Seconds after the first call, and after a recovery, in which nothing is asked: all calls are young then,
and what fails at once does so before what succeeds later. Longer would let a cold fleet in an outage call on.
"""

State = Literal["closed", "open", "half_open", "cooling"]


class View(Struct, frozen=True):
    """A circuit for people to read."""

    state: State
    seconds_left: float
    """Until it may be called, or probed; 0 where that is now."""
    since: float
    """Unix seconds; 0: since the process began."""
    error: str
    """The code of the last failure."""
    failures: int
    """In the present window; of all instances as far as this one knows."""
    n: int
    """Openings in a row before this one."""


class Circuit:
    """The state of one target. `refusal` costs a fraction of a microsecond while it is closed.

    Memory: constant, and the calls that are late now. Times are Unix seconds, as the instances share them,
    and because they go on while an instance is frozen.
    """

    def __init__(self, name: str, settings: Settings, board: Board) -> None:
        self.name = name
        self.settings = settings
        self.board = board
        self.term = 0
        """Grows when it opens and when it closes: the outcome of a call sent in an earlier one is no news."""
        self.late: set[Callable[[], None]] = set()
        """Calls whose first token is late: told when it opens."""
        self.probing = False
        """Whether this instance probes the target now."""
        self._until = 0.0
        self._n = 0
        self._opened = self._closed = 0.0
        self._election = 0.0
        self._streak = self._before = self._total = 0
        self._failed_at = -inf
        self._asking = False
        """Whether the fleet wants to know what follows the last failure here."""
        self._worth = -1
        """The last window in which the fleet had failures worth asking."""
        self._young = 0.0
        """Until when all calls are young."""
        self._followed = -1
        """The success that was last told to have followed a failure."""
        self._bucket = self._in_window = 0
        self._code = ""
        self._cool = self._cool_since = self._asked = self._told = 0.0
        self._refusals = 0
        self._shared = Shared()
        self._epoch = 0
        board.watch(name, self.apply)

    @property
    def cooling(self) -> bool:
        """Whether the target asked to be left alone for now."""
        return self._cool > self.board.wall()

    @property
    def is_open(self) -> bool:
        """Whether calls are refused because of failures, be it until a probe has succeeded."""
        return self._until > 0

    def refusal(self) -> UnavailableError | None:
        """Return why the target is not to be called now, or None. Never waits."""
        if not (self._until or self._cool or not self._young):
            return None
        now = self.board.wall()
        self._young = self._young or now + _YOUNG
        if self._cool:
            if (left := self._cool - now) > 0:
                asked = f" (it asked for {self._asked:g} s)" if self._asked > MAX_COOL else ""
                message = f"{self.name} asks to wait: not called for {left:.1f} s{asked}."
                return UnavailableError(message, status=429, code=RATE_LIMITED, retry_after=left)
            self._cool = 0.0
        if not self._until:
            return None
        if (left := self._until - now) > 0:
            message = f"{self.name} fails ({self._code}): not called for {left:.1f} s."
            return UnavailableError(message, retry_after=left)
        if left < -MEMORY:
            self._close(now)  # nobody called in the meantime, so nobody probed
            return None
        message = f"{self.name} failed ({self._code}): not called until a probe has succeeded."
        return UnavailableError(message, retry_after=min(1.0, self.settings.probe_timeout))

    def due(self) -> bool:
        """Return whether it is time to elect who probes; the next yes is some seconds away."""
        now = self.board.wall()
        if self.probing or not 0 < self._until <= now or now < max(self._cool, self._election):
            return False
        self._election = now + self.board.spread(self.settings.stale)
        return True

    def succeeded(self, term: int) -> int:
        """Note that an answer began in time; return what `failed` wants should it break later."""
        if term == self.term:
            self._before, self._streak = self._streak, 0
            self._refusals = 0
            self._total += 1
            if self._asking:
                self._follow()
        return self._total

    def note(self, error: FirstTokenError, term: int, began: int = -1) -> None:
        """Note how a call ended that was sent in ``term``: a failure, a wish to wait, or nothing to us."""
        if isinstance(error, UpstreamRateLimitError):
            self._cool_down(error)
        elif is_failure(error):
            self.failed(error, term, began)

    def failed(self, error: FirstTokenError, term: int, began: int = -1) -> None:
        """Count a failure; ``began``: what `succeeded` said when the same call's answer began."""
        if error.retry_after is not None:
            self._cool_down(error)
        if term != self.term:
            return
        now = self.board.wall()
        self._code = error.code or error.type
        self._take_back(began)
        recent = now - self._failed_at <= MEMORY
        self._streak = self._streak + 1 if recent else 1
        self._failed_at = now
        told = 0 <= began == self._followed
        followed = Counted(1, int(not told), 1) if told or (self._asking and recent) else Counted(1)
        self._asking = False
        bucket = int(now / self.settings.window)
        self._in_window = self._in_window + 1 if bucket == self._bucket else 1
        self._bucket = bucket
        if self._streak >= self.settings.consecutive:
            self._open_here()
        if not self.board.alone and self._in_window < FULL:
            self.board.shadow.run(self._report(self._shared.epoch, bucket, followed))

    def apply(self, shared: Shared) -> None:
        """Take over what other instances found out."""
        if 0 < shared.epoch < self._epoch:
            return  # read before what we wrote ourselves
        self._shared = shared
        now = self.board.wall()
        if shared.cool > max(now, self._cool):
            self._cool_since = now if now >= self._cool else self._cool_since
            self._cool = self._told = min(shared.cool, now + MAX_COOL)
            self._asked = 0.0
        if shared.epoch > self._epoch:
            self._epoch = shared.epoch
            if shared.until > now - MEMORY:
                self._code = shared.code
                until = min(shared.until, now + self.settings.max_open * (1 + self.settings.jitter))
                self._open(min(shared.opened, now), until, shared.n)
                return
        if self._until and shared.healthy and shared.probed >= self._opened:
            self._close(now)

    def settled(self, shared: Shared) -> bool:
        """Take over ``shared`` and return whether another instance's probe makes one of ours needless."""
        self.apply(shared)
        now = self.board.wall()
        if not 0 < self._until <= now:
            return True
        if shared.healthy or now - shared.probed >= self.settings.open:
            return False
        self._open_here()
        return True

    async def probed(self, error: FirstTokenError | None, term: int) -> None:
        """Take in how a probe ended that was sent in ``term``, and tell the others."""
        if error is None or not is_failure(error):
            if error is not None:
                self.note(error, term)
            await self._recovered()
        elif self._until <= 0:
            self.failed(error, term)
        elif self._until <= self.board.wall():
            self._code = error.code or error.type
            await self._relapsed()

    @property
    def state(self) -> State:
        """The state in a word; ``half_open``: the open time is over, and a probe decides."""
        now = self.board.wall()
        if self._until > now:
            return "open"
        if self._cool > now:
            return "cooling"
        return "half_open" if self._until else "closed"

    def view(self) -> View:
        """Return the state, for status pages."""
        now = self.board.wall()
        state = self.state
        left = max(0.0, self._until - now, self._cool - now)
        since = {"cooling": self._cool_since, "closed": self._closed}.get(state, self._opened)
        fresh = int(now / self.settings.window) == self._bucket
        return View(state, left, since, self._code, self._in_window if fresh else 0, self._n)

    def _open_here(self) -> None:
        """Open it for this instance."""
        now = self.board.wall()
        n = self._n + 1 if self._until or now - self._closed < MEMORY else 0
        self._open(now, now + self._open_time(n), n)

    def _open(self, opened: float, until: float, n: int) -> None:
        self._opened, self._until, self._n = opened, until, n
        self._election = 0.0
        self._streak = self._before = 0
        self._asking = False
        self.term += 1
        for give_up in tuple(self.late):
            give_up()

    def _close(self, now: float) -> None:
        self._until, self._closed = 0.0, now
        self._young = now + _YOUNG
        self._streak = self._before = 0
        self._asking = False
        self.term += 1

    def _open_time(self, n: int) -> float:
        settings = self.settings
        most = settings.max_open / settings.open
        grown = settings.growth <= 1 or n < log(max(most, 1)) / log(settings.growth)
        seconds = settings.open * settings.growth**n if grown else settings.max_open
        return min(seconds, settings.max_open) * (1 + settings.jitter * (2 * self.board.rng.random() - 1))

    def _take_back(self, began: int) -> None:
        """Undo the success of a call whose answer broke off later."""
        if began == self._total:
            self._streak += self._before
            self._before = 0

    def _cool_down(self, error: FirstTokenError) -> None:
        now = self.board.wall()
        asked = error.retry_after
        if asked is None or not asked > 0:
            if now < self._cool:
                return  # calls sent together are refused together: that is one refusal
            asked = min(2.0 ** min(self._refusals, 5), _MAX_GUESS)
            self._refusals += 1
        until = now + min(asked, MAX_COOL)
        if until <= self._cool:
            return
        self._cool_since = now if now >= self._cool else self._cool_since
        self._cool, self._asked = until, asked
        if until - self._told > _NEWS and not self.board.alone:
            self._told = until
            self.board.shadow.run(self._tell_cool(until))

    async def _tell_cool(self, until: float) -> None:
        def change(current: Shared) -> Shared | None:
            return replace(current, cool=until) if until > current.cool else None

        self.apply(await self.board.update(self.name, change))

    def _follow(self) -> None:
        """Tell the fleet that a success followed the last failure here."""
        self._asking = False
        if self.board.wall() - self._failed_at <= MEMORY:
            self._followed = self._total
            self.board.shadow.run(self.board.count(self.name, self._shared.epoch, Counted(0, 1)))

    async def _report(self, epoch: int, bucket: int, one: Counted) -> None:
        """Count a failure for all, and open it for all when that was one too many.

        What follows is judged in the order in which calls end, not by when they were sent: where several are
        under way their ends are as independent, and to wait for the end of one sent later would mean to look
        on for the time that two failing calls take. An instance adds no more than `consecutive` to an outage
        before it opens by itself, and calls that fail together (with their connection, say) are counted as
        failures only, as nobody has asked yet what follows.
        """
        counted = await self.board.count(self.name, epoch, one)
        if bucket == self._bucket:
            self._in_window = max(self._in_window, counted.failures)
        if counted.worth_asking(self.settings):
            self._worth = bucket
            self.board.hasten()
        # On into the next window: what is known there would be little, and little may look like an outage.
        if 0 <= bucket - self._worth <= 1 and self.board.wall() >= self._young:
            self._asking = self._streak > 0
        if not counted.outage(self.settings):
            return
        now = self.board.wall()
        if self._shared.epoch != epoch or self._shared.until > now:
            return  # opened, or probed, in the meantime

        def change(current: Shared) -> Shared | None:
            if current.epoch != epoch or current.until > now:
                return None
            again = current.until or (current.healthy and now - current.probed < MEMORY)
            n = max(current.n + 1 if again else 0, self._n if self._until else 0)
            return Shared(
                epoch=current.next_epoch(now),
                n=n,
                opened=now,
                until=now + self._open_time(n),
                cool=current.cool,
                code=self._code,
            )

        try:
            shared = await self.board.update(self.name, change)
        except StoreError:
            if not self._until:
                self._open_here()
            return
        self.apply(shared)

    async def _recovered(self) -> None:
        now = self.board.wall()
        was_open = self._until > 0
        if was_open:
            self._close(now)

        def change(current: Shared) -> Shared | None:
            if current.until:
                epoch = current.next_epoch(now)
                return replace(current, epoch=epoch, until=0.0, probed=now, healthy=True)
            return replace(current, probed=now, healthy=True) if was_open else None

        with suppress(StoreError):
            self.apply(await self.board.update(self.name, change))

    async def _relapsed(self) -> None:
        epoch = self._shared.epoch
        self._open_here()
        now, until, n = self._opened, self._until, self._n

        def change(current: Shared) -> Shared | None:
            if current.epoch != epoch:
                return None
            failed = replace(current, probed=now, healthy=False)
            if not current.until:
                return failed  # open for some only: the others are well, and hear of it when they ask
            return replace(failed, epoch=current.next_epoch(now), n=n, opened=now, until=until)

        with suppress(StoreError):
            self.apply(await self.board.update(self.name, change))
