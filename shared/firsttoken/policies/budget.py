"""Token buckets filled by events, not by time: what is extra (retries, hedges) stays a share of all calls."""

from __future__ import annotations

from firsttoken.settings import Retry

_ROUNDING = 1e-9
"""Ten times a tenth is a little less than one."""


class Bucket:
    """A number of tokens between 0 and ``capacity``."""

    __slots__ = ("_capacity", "tokens")

    def __init__(self, capacity: float, tokens: float) -> None:
        self._capacity = capacity
        self.tokens = tokens

    def give(self, amount: float) -> None:
        """Add to the tokens; what does not fit is lost."""
        self.tokens = min(self._capacity, self.tokens + amount)

    def take(self) -> bool:
        """Take one token; say whether there was one."""
        if self.tokens < 1 - _ROUNDING:
            return False
        self.tokens = max(0.0, self.tokens - 1)
        return True


class Budgets:
    """The retry budget of each target, as in gRFC A6: full at first, a retry costs 1, a success refills.

    In a steady outage a target gets ``budget`` retries of one instance, and no more. Memory: one number a
    target; targets are configured, so their number is bounded.
    """

    def __init__(self, limits: Retry) -> None:
        self._limits = limits
        self._buckets: dict[str, Bucket] = {}

    def take(self, target: str) -> bool:
        """Pay for one retry because of ``target``; say whether its budget allows one."""
        return self._bucket(target).take()

    def give(self, target: str) -> None:
        """Note that ``target`` answered."""
        self._bucket(target).give(self._limits.refill)

    def _bucket(self, target: str) -> Bucket:
        bucket = self._buckets.get(target)
        if bucket is None:
            budget = self._limits.budget
            bucket = self._buckets[target] = Bucket(budget, budget)
        return bucket
