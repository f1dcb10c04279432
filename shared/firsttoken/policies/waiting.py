"""Where calls wait for a target's quota: bounded, woken by one timer, and no longer than it is worth."""

from __future__ import annotations

import asyncio

from firsttoken.errors import UnavailableError
from firsttoken.policies.bucket import Amounts, Quotas
from firsttoken.policies.line import Line, Reservation
from firsttoken.policies.quota_sync import QuotaSync

_NOTHING: Amounts = (0.0, 0.0, 0.0)


class WaitingRoom:
    """Waiting calls of one target, at most ``places``. Its timer runs only while somebody waits."""

    def __init__(self, quotas: Quotas, places: int, sync: QuotaSync | None) -> None:
        self._quotas = quotas
        self._places = places
        self._sync = sync
        self._line = Line()
        self._timer: asyncio.TimerHandle | None = None
        self.shed = 0
        """Calls that were not let through."""

    def __len__(self) -> int:
        return len(self._line)

    def enter(self, newcomer: Reservation, now: float, until: float) -> None:
        """Grant what fits although others wait (they count less), or let it wait until then at most.

        Raises UnavailableError at once where waiting is in vain. Time grows with those who wait.
        """
        wait = self._predicted(newcomer, now)
        if not wait:
            newcomer.amounts = self._quotas.take(newcomer.amounts)
            return
        if now + wait > until:
            raise self.refusal(f"The target's rate limit is used up for {wait:.1f} s.", wait)
        if len(self._line) >= self._places:
            victim = self._line.victim(newcomer)
            if victim is None:
                raise self.refusal("Too many calls wait for the target.", wait)
            self._dismiss(victim, "A call that comes first took the place in the queue.", now)
        newcomer.until = until
        newcomer.future = asyncio.get_running_loop().create_future()
        self._line.add(newcomer)
        self._rearm(now)

    async def wait(self, reservation: Reservation) -> None:
        """Wait for a reservation that has entered. Raises UnavailableError when that takes too long."""
        future = reservation.future
        if future is None:
            return
        try:
            refusal = await future
        except asyncio.CancelledError:
            if reservation in self._line:
                self._line.remove(reservation)
            elif not future.cancelled() and future.result() is None:
                self._quotas.settle(reservation.amounts, _NOTHING)
            self.serve()
            raise
        if refusal is not None:
            raise refusal

    def serve(self) -> None:
        """Grant all that fits, dismiss those who waited too long, and set the timer for the next."""
        if not len(self._line) and self._timer is None:
            return
        now = asyncio.get_running_loop().time()
        if self._sync is not None:
            self._sync.touch(now)
        self._grant(now)
        expired = [item for item in self._line if item.until <= now]
        for item in expired:
            self._dismiss(item, "The target's rate limit left no room in time.", now)
        if expired:
            self._grant(now)
        self._rearm(now)

    def refusal(self, why: str, wait: float | None) -> UnavailableError:
        """Return the error of a call that is not let through."""
        self.shed += 1
        return UnavailableError(why, retry_after=wait)

    def _predicted(self, newcomer: Reservation, now: float) -> float:
        """Return the seconds until all that come first, and this one, can have been granted."""
        requests, tokens, output = self._quotas.clamp(newcomer.amounts)
        for other in self._line.before(newcomer):
            amounts = self._quotas.clamp(other.amounts)
            requests, tokens, output = requests + amounts[0], tokens + amounts[1], output + amounts[2]
        return self._quotas.wait((requests, tokens, output), now)

    def _grant(self, now: float) -> None:
        while (head := self._line.head()) is not None:
            if head.future is not None and not head.future.done():
                if not self._quotas.fit(head.amounts, now):
                    return
                head.amounts = self._quotas.take(head.amounts)
                head.future.set_result(None)
            self._line.serve(head)

    def _dismiss(self, reservation: Reservation, why: str, now: float) -> None:
        self._line.remove(reservation)
        if reservation.future is not None and not reservation.future.done():
            wait = self._quotas.wait(self._quotas.clamp(reservation.amounts), now)
            reservation.future.set_result(self.refusal(why, wait))

    def _rearm(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (head := self._line.head()) is not None:
            ready = now + self._quotas.wait(self._quotas.clamp(head.amounts), now)
            at = min([ready, *[item.until for item in self._line]])
            self._timer = asyncio.get_running_loop().call_at(at, self.serve)
