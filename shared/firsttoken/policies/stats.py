"""What one process has seen of one target: how many calls are under way, and how soon answers begin."""

from __future__ import annotations

from collections import deque

from firsttoken.settings import Breaker

WINDOW = 256
_REFRESH = 16
LEARNED = 50
"""Samples from which a quantile is trusted."""


class Stats:
    """Counts and recent times to first token (seconds) of one target. Memory: `WINDOW` numbers."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.calls = 0
        self.failures = 0
        self._ttft: deque[float] = deque(maxlen=WINDOW)
        self._sorted: list[float] = []
        self._new = 0

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
