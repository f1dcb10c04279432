"""A token bucket: so much a minute, refilled all the time, and never more than a minute's worth at once."""

from __future__ import annotations

from math import inf

from firsttoken.telemetry.record import Quota

MINUTE = 60.0
_SLACK = 1e-3
"""Less than one of anything: a timer that fires a trifle early must not have to fire again."""
_LONG_RESET = 120.0
"""Seconds until a reset that a limit by the minute never has: the limit is by the day."""
_DAY = 86_400.0


class Bucket:
    """How much of one limit is left. Every question takes the time ``now``, in seconds of any clock.

    The limit is the configured one, the one that the target told, or the lower of both; while there is none,
    everything fits. What is left may become negative: others spend from the same limit, and answers become
    longer than expected. In any span of time at most one limit, and what is refilled in that time, is let
    through. All operations take constant time.
    """

    __slots__ = ("_at", "_configured", "_left", "_rate", "limit")

    def __init__(self, limit: float = 0.0) -> None:
        self._configured = limit or inf
        self.limit = self._configured
        """How much a minute, infinite while unknown."""
        self._rate = self.limit / MINUTE
        self._left = self.limit
        self._at = -inf

    @property
    def known(self) -> bool:
        """Whether there is a limit."""
        return self.limit < inf

    def left(self, now: float) -> float:
        """Return what is left, negative while more was spent than there was."""
        if now > self._at:
            if self._left < self.limit:
                self._left = min(self.limit, self._left + (now - self._at) * self._rate)
            self._at = now
        return self._left

    def has(self, amount: float, now: float) -> bool:
        """Return whether ``amount`` can be taken now; more than the whole limit counts as all of it."""
        return min(amount, self.limit) <= self.left(now) + _SLACK

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until ``amount`` (any: also that of several calls) can be taken."""
        missing = amount - self.left(now)
        return missing / self._rate if self.known and missing > _SLACK else 0.0

    def take(self, amount: float) -> float:
        """Take what `has` has allowed, and return how much that is."""
        taken = min(amount, self.limit)
        self._left -= taken
        return taken

    def debit(self, amount: float) -> None:
        """Take what is spent already, or give it back where ``amount`` is negative."""
        self._left = min(self.limit, self._left - amount)

    def debit_others(self, amount: float) -> None:
        """Take what others have spent, but never leave more than a minute's debt behind."""
        if self.known:
            self._left = min(self.limit, max(min(-self.limit, self._left), self._left - amount))

    def adapt(self, quota: Quota, now: float) -> None:
        """Believe the target: lower what is left at once, and learn the limit and how fast it refills."""
        if quota.limit > 0:
            self._learn(quota, now)
        if self.known:
            self._left = min(self.left(now), float(quota.remaining))

    def _learn(self, quota: Quota, now: float) -> None:
        limit = min(self._configured, float(quota.limit))
        self.left(now)
        if limit != self.limit:
            self._left = min(limit, self._left)
            self.limit = limit
        self._rate = limit / MINUTE
        if quota.reset > _LONG_RESET:
            spent = max(0, quota.limit - quota.remaining)
            self._rate = min(self._rate, max(spent / quota.reset, limit / _DAY))


Amounts = tuple[float, float, float]
"""Of requests, of tokens, and of tokens of answers where these have a limit of their own."""


class Quotas:
    """The buckets of one target: requests, tokens, and tokens of answers. Something fits if all allow it."""

    __slots__ = ("output", "pending", "requests", "spent", "tokens")

    def __init__(self, rpm: float, tpm: float, output_tpm: float) -> None:
        self.requests = Bucket(rpm)
        self.tokens = Bucket(tpm)
        self.output = Bucket(output_tpm)
        self.spent: Amounts = (0.0, 0.0, 0.0)
        """What this process has spent since it started, less what it gave back."""
        self.pending = 0.0
        """Tokens of answers that were taken and not settled yet."""

    @property
    def buckets(self) -> tuple[Bucket, Bucket, Bucket]:
        """All of them, in the order of `Amounts`."""
        return self.requests, self.tokens, self.output

    @property
    def known(self) -> bool:
        """Whether any limit is."""
        return self.requests.known or self.tokens.known or self.output.known

    def fit(self, amounts: Amounts, now: float) -> bool:
        """Return whether a call of these amounts can be made now."""
        requests, tokens, output = amounts
        return (
            self.requests.has(requests, now)
            and self.tokens.has(tokens, now)
            and (not output or self.output.has(output, now))
        )

    def take(self, amounts: Amounts) -> Amounts:
        """Take what fits, and return what was taken."""
        requests, tokens, output = amounts
        requests, tokens = self.requests.take(requests), self.tokens.take(tokens)
        output = self.output.take(output) if output else 0.0
        self.pending += output
        self._spend(requests, tokens, output)
        return requests, tokens, output

    def settle(self, taken: Amounts, used: Amounts) -> None:
        """Put what was used in place of what was taken."""
        requests, tokens, output = used[0] - taken[0], used[1] - taken[1], used[2] - taken[2]
        self.requests.debit(requests)
        self.tokens.debit(tokens)
        if output:
            self.output.debit(output)
        self.pending -= taken[2]
        self._spend(requests, tokens, output)

    def wait(self, amounts: Amounts, now: float) -> float:
        """Return the seconds until all of this can be taken (of several calls: added up)."""
        return max([bucket.wait(amount, now) for bucket, amount in zip(self.buckets, amounts, strict=True)])

    def clamp(self, amounts: Amounts) -> Amounts:
        """Return what a call of these amounts is charged: never more than a limit."""
        requests, tokens, output = amounts
        return (
            min(requests, self.requests.limit),
            min(tokens, self.tokens.limit),
            min(output, self.output.limit),
        )

    def headroom(self, now: float) -> float:
        """Return the share of the scarcest limit that is left, 0 to 1; 1 while no limit is known."""
        shares = [bucket.left(now) / bucket.limit for bucket in self.buckets if bucket.known]
        return max(0.0, min(shares, default=1.0))

    def _spend(self, requests: float, tokens: float, output: float) -> None:
        spent = self.spent
        self.spent = (spent[0] + requests, spent[1] + tokens, spent[2] + output)
