"""Rounds with backoff over what is below, until an answer begins.

Failover comes first: a round is a call to every target that may answer, so a retry begins only when all of
them failed. What was begun is never tried again here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from msgspec.structs import replace

from firsttoken.errors import DeadlineError, FirstTokenError, UnavailableError, UpstreamRateLimitError
from firsttoken.model import Call, Model
from firsttoken.policies.budget import Budgets
from firsttoken.policies.opened import Opened, Policy, open_model
from firsttoken.settings import Retry as Limits

USEFUL = 0.1
"""Seconds that must be left of a call after a wait; with less of them another round is of no use."""


class Retry(Policy):
    """A model that is asked again, at most ``limits.attempts`` times in all.

    The wait before round n (the first call is round 0) is random between 0 and ``base * 2 ** n``, at most
    ``cap`` (full jitter). A Retry-After wins: at least so long is waited, or there is no further round. A
    round is paid from the budget of the target that failed last; when nobody was called it is free.
    """

    def __init__(
        self,
        model: Model,
        limits: Limits,
        budgets: Budgets,
        *,
        rng: Random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._model = model
        self._limits = limits
        self._budgets = budgets
        self._rng = rng
        self._sleep = sleep

    async def open(self, call: Call) -> Opened:
        """Open the answer. Raises the last error of a target that was called, or that of the gates."""
        before = len(call.record.attempts)
        cause: FirstTokenError | None = None
        number = 0
        while True:
            try:
                opened = await open_model(self._model, call)
            except FirstTokenError as error:
                failed = error
            else:
                self._budgets.give(call.record.target)
                return opened
            if cause is None or not isinstance(failed, UnavailableError):
                cause = failed
            number += 1
            wait = self._wait(failed, number, call.deadline)
            if wait is None or not self._paid(call, before):
                raise cause
            await self._sleep(wait)
            call = replace(call, tried=set(), kind="retry")

    def _wait(self, error: FirstTokenError, number: int, deadline: float) -> float | None:
        """Return the seconds before round ``number``, or None when there must not be one."""
        limits = self._limits
        if number >= limits.attempts or not error.retryable or isinstance(error, DeadlineError):
            return None
        if (asked := error.retry_after) is not None:
            if asked > limits.cap:
                return None
            # Not all who were told the same time come back at the same moment.
            wait = min(limits.cap, asked + self._rng.uniform(0, max(limits.base, asked / 10)))
        elif isinstance(error, UnavailableError):
            return None  # a gate that names no time sheds load: coming back would defeat it
        else:
            throttled = isinstance(error, UpstreamRateLimitError)
            base = limits.throttle_base if throttled else limits.base
            wait = self._rng.uniform(0, min(limits.cap, base * 2**number))
        room = deadline - asyncio.get_running_loop().time() - wait
        return wait if room >= USEFUL else None

    def _paid(self, call: Call, before: int) -> bool:
        attempts = call.record.attempts
        return len(attempts) == before or self._budgets.take(attempts[-1].target)
