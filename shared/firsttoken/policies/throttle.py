"""Adaptive throttling: the fewer calls a target accepts, the more of them are held back here.

Google SRE's client-side rule (https://sre.google/sre-book/handling-overload/): a call is rejected with the
probability ``(requests - factor * accepts) / (requests + 1)``. It is the softer line beside the breaker.
"""

from __future__ import annotations

import asyncio
from random import Random

from firsttoken.errors import FirstTokenError, UnavailableError
from firsttoken.model import Call, Model
from firsttoken.policies.opened import Ending, Opened, Policy, open_model
from firsttoken.policies.stats import is_failure
from firsttoken.settings import Throttle as Settings

BUCKETS = 12
MAX_REJECTED = 0.9
"""One call in ten is sent whatever happened: with none sent, a recovery would be noticed minutes late."""


class Throttled(Policy):
    """A model that is sent about ``factor`` times what it accepts. Constant time and memory.

    A call counts when it is made, and as accepted until it fails: an answer takes seconds, and a burst is no
    outage. Only the target's failures count, so neither a client's mistake nor a cool-down throttles.
    """

    def __init__(self, model: Model, settings: Settings, rng: Random) -> None:
        self._model = model
        self._settings = settings
        self._rng = rng
        self._window = _Window(settings.window / BUCKETS)

    @property
    def rejecting(self) -> float:
        """The probability with which the next call is rejected."""
        window, settings = self._window, self._settings
        if window.requests < settings.minimum:
            return 0.0
        share = (window.requests - settings.factor * window.accepts) / (window.requests + 1)
        return min(max(0.0, share), MAX_REJECTED)

    async def open(self, call: Call) -> Opened:
        """Open the answer, or raise UnavailableError for what the target would most likely not accept."""
        window = self._window
        window.turn(asyncio.get_running_loop().time())
        share = self.rejecting
        if share and self._rng.random() < share:
            window.add_rejected()
            message = f"The target accepts too few calls: {share:.0%} of them are held back now."
            raise UnavailableError(message)
        slot = window.add()

        def ended(ending: Ending) -> None:
            if ending.error is not None and is_failure(ending.error):
                window.take_back(slot)

        try:
            opened = await open_model(self._model, call)
        except FirstTokenError as error:
            if is_failure(error):
                window.take_back(slot)
            raise
        opened.ends.append(ended)
        return opened


class _Window:
    """Requests and accepts of the last `BUCKETS` slots of ``width`` seconds."""

    __slots__ = ("_accepts", "_requests", "_slot", "_width", "accepts", "requests")

    def __init__(self, width: float) -> None:
        self._width = width
        self._slot = 0
        self._requests = [0] * BUCKETS
        self._accepts = [0] * BUCKETS
        self.requests = 0
        self.accepts = 0

    def turn(self, now: float) -> None:
        """Forget what is older than the window."""
        slot = int(now / self._width)
        for old in range(max(self._slot, slot - BUCKETS) + 1, slot + 1):
            index = old % BUCKETS
            self.requests -= self._requests[index]
            self.accepts -= self._accepts[index]
            self._requests[index] = self._accepts[index] = 0
        self._slot = slot

    def add(self) -> int:
        """Count a call as accepted and return its slot."""
        self._accepts[self._slot % BUCKETS] += 1
        self.accepts += 1
        self.add_rejected()
        return self._slot

    def add_rejected(self) -> None:
        """Count a call that is not sent."""
        self._requests[self._slot % BUCKETS] += 1
        self.requests += 1

    def take_back(self, slot: int) -> None:
        """Count the call of ``slot`` as not accepted after all."""
        if slot > self._slot - BUCKETS:
            self._accepts[slot % BUCKETS] -= 1
            self.accepts -= 1
