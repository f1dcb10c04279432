"""When requests arrive: a random process, how its rate changes with time, or a trace.

Gaps are drawn for a process of one arrival a second and then laid over the rate as it changes, so that bursts
(gamma), days and surges combine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import replace

from firsttoken.settings.base import NotNegative, Positive, Section, Share

_HALVINGS = 60


class Surge(Section, frozen=True):
    """More requests for a while: ``factor`` times the rate from ``at`` to ``until`` (seconds)."""

    at: NotNegative
    until: Positive
    factor: Annotated[float, Meta(ge=1, le=1000)] = 5.0


class Diurnal(Section, frozen=True):
    """A day: the rate swings around its mean, lowest at the start and ``period`` seconds later."""

    period: Positive
    swing: Share = 0.8
    """Share of the mean rate: at 0.8 it goes from 0.2 to 1.8 of it."""


class Arrivals(Section, frozen=True):
    """How requests arrive; they never wait for answers to earlier ones."""

    process: Literal["poisson", "gamma", "constant"] = "poisson"
    rate: Positive = 20.0
    """Requests a second, the mean without surges."""
    shape: Annotated[float, Meta(ge=0.01, le=1000)] = 0.25
    """Of gamma: 1 is Poisson, less comes in bursts (gaps vary by 1/sqrt(shape) of their mean)."""
    diurnal: Diurnal | None = None
    surges: list[Surge] = []  # noqa: RUF012 - msgspec copies it for each value
    trace: str = ""
    """Instead of all this: a CSV file with the times, and perhaps token counts, of requests."""
    speed: Positive = 1.0
    """How much faster than it was recorded a trace is replayed."""

    def scaled(self, scale: float) -> Arrivals:
        """Return the same in a time that is ``scale`` times as long; the rate stays, and so does a trace."""
        surges = [replace(surge, at=surge.at * scale, until=surge.until * scale) for surge in self.surges]
        day = self.diurnal and replace(self.diurnal, period=self.diurnal.period * scale)
        return replace(self, surges=surges, diurnal=day)

    def times(self, seconds: float, rng: random.Random) -> Iterator[float]:
        """Yield the times of arrival before ``seconds``, ascending, each drawn when it is asked for."""
        gap = self._gap(rng)
        total, now, end = 0.0, 0.0, self._expected(seconds)
        while (total := total + gap()) < end:
            now = self._when(total, now, seconds)
            yield now

    def mean(self, seconds: float) -> float:
        """Return the expected number of requests a second over ``seconds``."""
        return self._expected(seconds) / seconds

    def _gap(self, rng: random.Random) -> Callable[[], float]:
        """Return what draws gaps of 1 on average."""
        if self.process == "constant":
            return lambda: 1.0
        if self.process == "gamma":
            return lambda: rng.gammavariate(self.shape, 1 / self.shape)
        return lambda: rng.expovariate(1.0)

    def _expected(self, now: float) -> float:
        """Return how many requests are expected until ``now``."""
        more = (
            (surge.factor - 1) * (self._plain(min(now, surge.until)) - self._plain(min(now, surge.at)))
            for surge in self.surges
        )
        return self._plain(now) + sum(more)

    def _plain(self, now: float) -> float:
        if self.diurnal is None:
            return self.rate * now
        turn = 2 * math.pi / self.diurnal.period
        return self.rate * (now - self.diurnal.swing * math.sin(turn * now) / turn)

    def _when(self, expected: float, low: float, high: float) -> float:
        """Return when so many requests are expected, between two times."""
        if self.diurnal is None and not self.surges:
            return expected / self.rate
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if self._expected(middle) < expected:
                low = middle
            else:
                high = middle
        return low
