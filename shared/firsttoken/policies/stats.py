"""What one process has seen of one target: how many calls are under way, and how soon answers begin."""

from __future__ import annotations

from collections import deque

from firsttoken.errors import (
    FirstTokenError,
    UnavailableError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
)
from firsttoken.settings import Breaker

WINDOW = 256
_REFRESH = 16
LEARNED = 50
"""Samples from which a quantile is trusted."""


def is_failure(error: FirstTokenError) -> bool:
    """Return whether an error speaks against the target: not a 429, nor what it rightly refused."""
    neutral = (UpstreamRateLimitError, UpstreamRefusedError, UnavailableError)
    return isinstance(error, UpstreamError) and not isinstance(error, neutral)


class Stats:
    """Counts, recent outcomes and times to first token (seconds) of one target. Memory: `WINDOW` of each."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.calls = 0
        self.failures = 0
        self._failed: deque[bool] = deque(maxlen=WINDOW)
        self._ttft: deque[float] = deque(maxlen=WINDOW)
        self._sorted: list[float] = []
        self._new = 0

    def ended(self, *, failed: bool | None) -> None:
        """Note that a call is over; None where nobody waited for its end, which says nothing."""
        self.in_flight -= 1
        if failed is not None:
            self.failures += failed
            self._failed.append(failed)

    @property
    def error_rate(self) -> float:
        """The share of the recent calls that failed, 0 to 1."""
        return sum(self._failed) / len(self._failed) if self._failed else 0.0

    @property
    def samples(self) -> int:
        """How many times to first token are known."""
        return len(self._ttft)

    def began(self, seconds: float) -> None:
        """Note a time to first token (of a streamed answer)."""
        self._ttft.append(seconds)
        self._new += 1

    def gave_up(self, seconds: float) -> None:
        """Note that no first token had come after ``seconds``: a sample only where it says something."""
        if (slow := self.quantile(0.95)) is not None and seconds > slow:
            self.began(seconds)

    def quantile(self, q: float) -> float | None:
        """Return a quantile of the recent times to first token, at most `_REFRESH` samples old."""
        if not self._ttft:
            return None
        if self._new >= _REFRESH or not self._sorted:
            self._sorted = sorted(self._ttft)
            self._new = 0
        return self._sorted[min(int(q * len(self._sorted)), len(self._sorted) - 1)]


def slow_after(stats: Stats, settings: Breaker) -> float:
    """Return the seconds after which a first token of this target is suspiciously late.

    The configured limit, or sooner where the target's P95 is known: so many times that, within bounds.
    """
    usual = stats.quantile(0.95) if stats.samples >= LEARNED else None
    if usual is None or not settings.slow_factor:
        return settings.slow
    return min(settings.slow, max(settings.slow_floor, settings.slow_factor * usual))
