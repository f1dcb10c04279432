"""The statistics behind a comparison of two series of positive values, without a library.

Location: the Mann-Whitney U test, with the Hodges-Lehmann estimate of the shift and Moses' interval of it.
Tail: the bootstrap of a quantile. Both are told how much less than independent the values are
(`inflation`), so that a drift within a run widens intervals instead of passing for a difference.
Sources: Hollander, Wolfe, Chicken, Nonparametric Statistical Methods, 3rd ed., chapter 4; Cliff,
Psychological Bulletin 114 (1993) 494; Holm, Scandinavian Journal of Statistics 6 (1979) 65.
"""

from __future__ import annotations

import math
import random
import statistics
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_NORMAL = statistics.NormalDist()
_EXACT = 25
"""The largest size of both samples for which the distribution of U is counted out."""
_BATCHES = 20
_HALVINGS = 44
"""Of a range of logarithms: what is left is far below any clock."""


class Shift(NamedTuple):
    """A difference with its confidence interval, as a share: 0.1 is ten per cent more."""

    estimate: float
    low: float
    high: float


class Location(NamedTuple):
    """What the rank test says: U, its two-sided p, and Cliff's delta (1: all later values are larger)."""

    u: float
    p: float
    delta: float


def inflation(values: Sequence[float]) -> float:
    """Return how many times the variance of the mean exceeds that of independent values; at least 1.

    Estimated from the means of 20 batches of neighbours, so ``values`` stand in the order of time. Fewer
    than 40 values say too little and count as independent. Time and memory grow with their number.
    """
    size = len(values) // _BATCHES
    if size < 2:
        return 1.0
    used = values[: size * _BATCHES]
    spread = statistics.pvariance(used)
    if not spread:
        return 1.0
    means = [statistics.fmean(used[at : at + size]) for at in range(0, len(used), size)]
    return max(1.0, size * statistics.variance(means) / spread)


def mann_whitney(before: Sequence[float], after: Sequence[float], inflated: float = 1.0) -> Location:
    """Test whether ``after`` tends to be larger; ``inflated`` multiplies the variance of U.

    Exact for up to 25 independent values a side without ties, else the normal approximation with
    corrections for ties and continuity. Time is n log n.
    """
    n, m = len(before), len(after)
    ordered = sorted(before)
    ends = [(bisect_left(ordered, value), bisect_right(ordered, value)) for value in after]
    u = sum(low + high for low, high in ends) / 2
    delta = 2 * u / (n * m) - 1
    tied = _tied(before, after)
    if not tied and inflated <= 1 and max(n, m) <= _EXACT:
        return Location(u, _exact(int(u), n, m), delta)
    spread = deviation(n, m, tied) * math.sqrt(inflated)
    z = max(abs(u - n * m / 2) - 0.5, 0.0) / spread if spread else 0.0
    return Location(u, min(1.0, 2 * _NORMAL.cdf(-z)), delta)


def deviation(n: int, m: int, tied: float = 0.0) -> float:
    """Return the standard deviation of U; ``tied`` is the sum of t**3 - t over groups of t equal values."""
    total = n + m
    return math.sqrt(max(n * m / 12 * (total + 1 - tied / (total * (total - 1))), 0.0))


def _tied(before: Sequence[float], after: Sequence[float]) -> float:
    counts = Counter(before)
    counts.update(after)
    return float(sum(count**3 - count for count in counts.values() if count > 1))


def _exact(u: int, n: int, m: int) -> float:
    """Return the two-sided p of U: twice the share of orders of n + m values with a U as far out, or 1.

    The counts are the coefficients of the Gaussian binomial, the product of (1 - q**(m+i)) / (1 - q**i).
    """
    ways = [1] + [0] * (n * m)
    for i in range(1, n + 1):
        for at in range(n * m, m + i - 1, -1):
            ways[at] -= ways[at - m - i]
        for at in range(i, n * m + 1):
            ways[at] += ways[at - i]
    return min(1.0, 2 * sum(ways[: min(u, n * m - u) + 1]) / math.comb(n + m, n))


def hodges_lehmann(
    before: Sequence[float], after: Sequence[float], alpha: float, inflated: float = 1.0
) -> Shift:
    """Return the median of all ratios after / before, less 1, with its interval of confidence 1 - alpha.

    Ratios, because what slows a service down multiplies its times. The n m ratios are never held: each
    bound takes 44 passes over both samples. All values are above 0.
    """
    x = sorted(math.log(value) for value in before)
    y = sorted(math.log(value) for value in after)
    pairs = len(x) * len(y)
    half = _NORMAL.inv_cdf(1 - alpha / 2) * deviation(len(x), len(y)) * math.sqrt(inflated)
    low = max(math.floor(pairs / 2 - half), 1)
    middle = (_difference(x, y, (pairs + 1) // 2) + _difference(x, y, pairs // 2 + 1)) / 2
    bounds = (_difference(x, y, low), _difference(x, y, pairs + 1 - low))
    return Shift(math.expm1(middle), *map(math.expm1, bounds))


def _difference(x: Sequence[float], y: Sequence[float], rank: int) -> float:
    """Return the difference y - x of that rank (from 1) among all, to within rounding."""
    low, high = y[0] - x[-1], y[-1] - x[0]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if _at_most(x, y, middle) >= rank:
            high = middle
        else:
            low = middle
    return high


def _at_most(x: Sequence[float], y: Sequence[float], limit: float) -> int:
    found, at = 0, 0
    for value in x:  # the larger it is, the more of y lie below value + limit
        bound = value + limit
        while at < len(y) and y[at] <= bound:
            at += 1
        found += at
    return found


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return the smallest value that a share ``q`` does not exceed (nearest rank); ``ordered`` is sorted."""
    return ordered[max(math.ceil(q * len(ordered)) - 1, 0)]


def tail_ratios(
    before: Sequence[float], after: Sequence[float], q: float, draws: int, rng: random.Random
) -> list[float]:
    """Return ``draws`` bootstrap ratios after / before of the quantile ``q``, less 1, sorted.

    A quantile of n draws with replacement is the value at ceil(n U) of the sorted ones, where U is the
    k-th smallest of n uniform numbers and so follows Beta(k, n - k + 1). Drawing U instead of n values has
    the same distribution, and takes as long for a million values as for ten. Where exceedances come in
    clusters (`inflation`), n is the number of independent values that they are worth.
    """
    first, second = _Resampled(before, q), _Resampled(after, q)
    return sorted(second.draw(rng) / first.draw(rng) - 1 for _ in range(draws))


class _Resampled:
    """The bootstrap distribution of one quantile of one series."""

    def __init__(self, values: Sequence[float], q: float) -> None:
        self._ordered = sorted(values)
        bound = quantile(self._ordered, q)
        worth = len(values) / inflation([float(value > bound) for value in values])
        self._a, self._b = max(q * worth, 1.0), (1 - q) * worth + 1

    def draw(self, rng: random.Random) -> float:
        at = math.ceil(rng.betavariate(self._a, self._b) * len(self._ordered))
        return self._ordered[max(at, 1) - 1]


def bootstrap_p(ratios: Sequence[float]) -> float:
    """Return the two-sided p of no difference: twice the smaller share of draws on one side of 0.

    At least 2 / (draws + 1), because a share of none only says that more draws are needed.
    """
    count = len(ratios)
    below, above = bisect_right(ratios, 0.0), count - bisect_left(ratios, 0.0)
    return min(1.0, 2 * (min(below, above) + 1) / (count + 1))


def holm(ps: Sequence[float]) -> list[float]:
    """Return each p adjusted for having made all of these tests (Holm's step-down), in their order."""
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for done, at in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - done) * ps[at]))
        adjusted[at] = largest
    return adjusted
