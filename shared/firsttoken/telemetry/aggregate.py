"""What this process has counted since it began: the figures behind ``GET /metrics``."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from firsttoken.telemetry.figures import OTHER, Figures
from firsttoken.telemetry.record import Record
from firsttoken.telemetry.sketch import Sketch

Key = tuple[str, ...]
V = TypeVar("V")

LATENCIES = ("ttft", "ttlt", "per_token")


class Family(dict[Key, V]):
    """One metric: a value for each set of labels. Beyond ``limit`` sets all others share one, of `OTHER`."""

    def __init__(self, labels: Key, limit: int, new: Callable[[], V]) -> None:
        super().__init__()
        self.labels = labels
        self._limit = limit
        self._new = new

    def at(self, key: Key) -> Key:
        """Return the key that counts for ``key``, which then has a value."""
        if key not in self:
            if len(self) >= self._limit:
                key = (OTHER,) * len(key)
            if key not in self:
                self[key] = self._new()
        return key


class Aggregate:
    """Counters and latencies of all calls.

    Memory: at most ``series`` + 1 sets of labels a metric, 200 bytes each and 18 kB for each set that has
    latencies: 4 MB with 200. Time: 5 us a call.
    """

    def __init__(self, dimensions: Collection[str], series: int) -> None:
        own = tuple(name for name in ("model", "target", "tenant") if name in dimensions)
        self._own = own
        self.calls = Family((*own, "outcome", "error"), series, int)
        self.tokens = Family((*own, "type"), series, int)
        self.cost = Family(own, series, float)
        self.cache = Family((*own, "result"), series, int)
        self.attempts = Family(("target", "kind", "outcome"), series, int)
        self.latencies = {name: Family(own, series, Sketch) for name in LATENCIES}

    def add(self, record: Record, figures: Figures) -> None:
        """Count one call that has ended."""
        own = tuple([getattr(figures, name) for name in self._own])
        self.calls[self.calls.at((*own, figures.outcome, figures.error))] += 1
        for kind, count in (
            ("input", record.input_tokens),
            ("output", record.output_tokens),
            ("cached", record.cached_tokens),
        ):
            if count:
                self.tokens[self.tokens.at((*own, kind))] += count
        if record.cost:
            self.cost[self.cost.at(own)] += record.cost
        if record.cache:
            self.cache[self.cache.at((*own, record.cache))] += 1
        if not record.coalesced:  # else they are counted with the call that they were made for
            for attempt in record.attempts:
                key = self.attempts.at((attempt.target, attempt.kind, attempt.outcome))
                self.attempts[key] += 1
        for name, family in self.latencies.items():
            seconds = getattr(figures, name)
            if seconds is not None:
                family[family.at(own)].add(seconds)

    def merge(self, other: Aggregate) -> None:
        """Add what another process has counted, under the same dimensions."""
        for mine, theirs in (
            (self.calls, other.calls),
            (self.tokens, other.tokens),
            (self.cache, other.cache),
            (self.attempts, other.attempts),
        ):
            for key, count in theirs.items():
                mine[mine.at(key)] += count
        for key, cost in other.cost.items():
            self.cost[self.cost.at(key)] += cost
        for name, family in self.latencies.items():
            for key, sketch in other.latencies[name].items():
                family[family.at(key)].merge(sketch)
