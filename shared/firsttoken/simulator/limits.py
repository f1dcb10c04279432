"""Simulated rate limits: a bucket of requests and one of tokens for each model, refilled all the time.

As providers do, a request is charged when it arrives: its prompt and as much output as it may ask for.
"""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from firsttoken.errors import UpstreamRateLimitError
from firsttoken.simulator.profile import Profile

MINUTE = 60.0
_MODELS = 1024


class Quota(Struct, frozen=True):
    """What is left of one limit; ``reset`` is the seconds until all of it is there again."""

    limit: int
    remaining: int
    reset: float


class _Bucket:
    """How much of a limit is used up. The limit is said with each question: a header may change it."""

    __slots__ = ("_at", "_used")

    def __init__(self) -> None:
        self._at = 0.0
        self._used = 0.0

    def used(self, limit: int, now: float) -> float:
        self._used = max(0.0, self._used - (now - self._at) * limit / MINUTE)
        self._at = now
        return self._used

    def charge(self, amount: float) -> None:
        self._used += amount


class Limits:
    """The buckets of one region, one pair a model. Memory: `_MODELS` pairs, those used least go first."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, dict[str, _Bucket]] = OrderedDict()

    def take(self, model: str, profile: Profile, tokens: int, now: float) -> None:
        """Charge a request of ``tokens``. Raises UpstreamRateLimitError where it does not fit."""
        rows = [
            (name, bucket, limit, amount)
            for (name, limit), amount in zip(_limits(profile), (1, tokens), strict=True)
            if limit and (bucket := self._buckets(model)[name])
        ]
        for name, bucket, limit, amount in rows:
            used = bucket.used(limit, now)
            if used + amount > limit:
                raise _too_much(model, name, limit, used, amount)
        for _, bucket, _, amount in rows:
            bucket.charge(amount)

    def quotas(self, model: str, profile: Profile, now: float) -> dict[str, Quota]:
        """Return what is left of ``requests`` and ``tokens``, those that are limited."""
        left = {}
        for name, limit in _limits(profile):
            if limit:
                used = self._buckets(model)[name].used(limit, now)
                left[name] = Quota(limit, max(0, int(limit - used)), used / limit * MINUTE)
        return left

    def _buckets(self, model: str) -> dict[str, _Bucket]:
        if model not in self._models:
            self._models[model] = {"requests": _Bucket(), "tokens": _Bucket()}
            if len(self._models) > _MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(model)
        return self._models[model]


def _limits(profile: Profile) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("requests", profile.rpm), ("tokens", profile.tpm)


def _too_much(model: str, name: str, limit: int, used: float, amount: int) -> UpstreamRateLimitError:
    """Return the error; a request that is larger than the whole limit will never fit: no time is named."""
    message = (
        f"Rate limit reached for {model} on {name} per min: limit {limit}, used {used:.0f},"
        f" requested {amount}."
    )
    wait = (used + amount - limit) / limit * MINUTE if amount <= limit else None
    return UpstreamRateLimitError(message, retry_after=wait)
