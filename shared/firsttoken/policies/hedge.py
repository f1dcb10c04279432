"""A second call to another target when the first token is later than usual: whoever begins first answers.

The first call runs in the caller's own task, as if there were no hedge; what a healthy call pays is a timer.
Only a late one gets a task, for the second call. When that one wins, the caller's task is cancelled where it
waits for the first, and catches it here, as `asyncio.timeout` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from msgspec.structs import replace

from firsttoken.errors import FirstTokenError, UnavailableError
from firsttoken.model import Call, Model
from firsttoken.policies.budget import Bucket
from firsttoken.policies.opened import Opened, Policy, open_model
from firsttoken.policies.stats import Stats, slow_after
from firsttoken.policies.target import Target
from firsttoken.settings import Breaker
from firsttoken.settings import Hedge as Limits

BURST = 10.0
"""Hedges that a quiet time saves up, at most."""
_STEP = 0.05
"""Seconds between two looks at a call, at least."""


class Hedge(Policy):
    """A model that is asked twice, once too late for its target.

    Too late is, since that target was called, its ``quantile`` of recent first tokens (at least ``floor``)
    while ``calm()`` and the budget allows: each call earns ``budget`` of a hedge, from 0. Or it is what its
    breaker would call slow, always: that is a failover that does not give the first one up. Calls that are
    not streamed, and those with fields of one format only, are not hedged. ``targets`` are the route's, by
    name, the preferred one first. Memory: some hundred bytes for a call under way.
    """

    def __init__(
        self,
        model: Model,
        limits: Limits,
        targets: Mapping[str, Target],
        breaker: Breaker,
        *,
        calm: Callable[[], bool],
    ) -> None:
        self.model = model
        self.budget = Bucket(BURST, 0.0)
        self.calm = calm
        self.step = max(_STEP, min(limits.floor, breaker.slow, breaker.slow_floor))
        """Seconds between two looks at a call: no target may be late before the first, or unseen for long."""
        self._limits = limits
        self._targets = targets
        self._preferred = next(iter(targets.values()))
        self._breaker = breaker

    async def open(self, call: Call) -> Opened:
        """Open the answer that begins first. Raises the first call's error when both fail."""
        if not call.request.stream or call.source.unknown:
            return await open_model(self.model, call)
        self.budget.give(self._limits.budget)
        return await _Race(self, call).run()

    def limits_of(self, target: str) -> tuple[float, float]:
        """Return the seconds after which a call to ``target`` may, and must, be doubled."""
        stats = self._targets.get(target, self._preferred).stats
        slow = slow_after(stats, self._breaker)
        return min(slow, self._usual(stats)), slow

    def others(self, tried: set[str]) -> bool:
        """Return whether a target is left for a second call."""
        return not self._targets.keys() <= tried

    def _usual(self, stats: Stats) -> float:
        limits = self._limits
        usual = stats.quantile(limits.quantile) if stats.samples >= limits.samples else None
        return self._breaker.slow if usual is None else max(limits.floor, usual)


class _Race:
    """One call and, where it is late, its second."""

    def __init__(self, hedge: Hedge, call: Call) -> None:
        self._hedge = hedge
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._cancelling = self._task.cancelling()
        self._began = self._loop.time()
        self._second: asyncio.Task[Opened] | None = None
        self._paid = False
        self._alone = False
        """Whether the first call is over."""
        self._overtaken = False
        """Whether the second call cancelled it."""
        self._beaten = False
        """... and nobody else did."""
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(hedge.step, self._look)

    async def run(self) -> Opened:
        """Open the answer of the call, or of its second. Leaves neither of them running."""
        try:
            opened = await self._winner()
        except BaseException:
            await self._drop_second()
            raise
        if self._second is not None:
            try:
                await self._drop_second()
            except BaseException:
                await opened.aclose()
                raise
        return opened

    async def _winner(self) -> Opened:
        try:
            return await self._first()
        except asyncio.CancelledError:
            if not self._beaten:
                raise
            failed = None
        except FirstTokenError as error:
            if self._second is None:
                raise
            failed = error
        second = cast("asyncio.Task[Opened]", self._second)
        try:
            opened = await second
        except FirstTokenError as error:
            gated = isinstance(failed, UnavailableError) and not isinstance(error, UnavailableError)
            if failed is None or gated:
                raise
            failed.add_note(f"hedge: {error}")
            raise failed from failed.__cause__
        self._second = None
        return opened

    async def _first(self) -> Opened:
        try:
            return await open_model(self._hedge.model, self._call)
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._alone = True
            self._beaten = self._overtaken and self._task.uncancel() <= self._cancelling

    def _look(self) -> None:
        """Start the second call if it is time; look again if not yet."""
        hedge, now = self._hedge, self._loop.time()
        target, since = self._waits_for()
        may, must = hedge.limits_of(target)
        if not hedge.others(self._call.tried):
            self._timer = None
        elif now >= since + must:
            self._start()
        elif now >= since + may and hedge.calm() and hedge.budget.take():
            self._paid = True
            self._start()
        else:
            due = since + (may if now < since + may else must)
            self._timer = self._loop.call_at(min(due, now + hedge.step), self._look)

    def _waits_for(self) -> tuple[str, float]:
        """Return the target that is called now, and since when; before that it is the preferred one."""
        for attempt in reversed(self._call.record.attempts):
            if attempt.finished is None and attempt.first_chunk is None:
                return attempt.target, attempt.started
        return "", self._began

    def _start(self) -> None:
        self._timer = None
        second = replace(self._call, kind="hedge")
        self._second = self._loop.create_task(open_model(self._hedge.model, second))
        self._second.add_done_callback(self._done)

    def _done(self, second: asyncio.Task[Opened]) -> None:
        if second.cancelled():
            return
        error = second.exception()
        if error is None and not self._alone:
            self._overtaken = True
            self._task.cancel()  # it waits in the first call, so that is what ends
        elif isinstance(error, UnavailableError) and self._paid:
            self._hedge.budget.give(1)  # nobody was called

    async def _drop_second(self) -> None:
        second, self._second = self._second, None
        if second is None:
            return
        if not second.done():
            second.cancel()
            await asyncio.wait((second,))
        if not second.cancelled() and second.exception() is None:
            await second.result().aclose()
