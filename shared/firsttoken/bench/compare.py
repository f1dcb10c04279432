"""Compare two sets of samples, metric by metric: where most values lie, and the tail.

Every metric is tested twice (`compare_stats`), and all tests of a comparison share one error rate (Holm),
so that ten metrics do not raise a false alarm ten times as often as one.
"""

from __future__ import annotations

import random
from typing import Literal, NamedTuple

from msgspec import Struct

from firsttoken.bench import compare_stats as stats
from firsttoken.bench import verdict
from firsttoken.bench.compare_stats import Shift
from firsttoken.bench.samples import Better, Samples, Series
from firsttoken.bench.verdict import Verdict
from firsttoken.errors import ConfigError

LEAST = 10
"""Samples a side, below which nothing is said of the location."""
_BEYOND = 5
"""Samples beyond a quantile, below which a bootstrap says nothing of it: 500 for the 99th percentile."""

Statistic = Literal["location", "tail"]


class Rules(Struct, frozen=True, kw_only=True):
    """What counts as a difference. Shares: 0.05 is five per cent."""

    margin: float = 0.05
    """A shift of the location that nobody minds."""
    tail_margin: float = 0.25
    """The same for the tail, which is known far less exactly: see docs/regression.md."""
    tail: float | None = 0.99
    """The quantile that stands for the tail, its mirror image where higher is better; None leaves it out."""
    alpha: float = 0.05
    """How often a comparison of equal runs may find any difference."""
    draws: int = 10_000
    seed: int = 1


class Finding(Struct, frozen=True):
    """What came of one test of one metric. Shares of the value before, but for the two values themselves."""

    metric: str
    statistic: Statistic
    verdict: Verdict
    unit: str
    before: float | None
    """The median before, or the quantile that stands for the tail."""
    after: float | None
    samples: tuple[int, int]
    change: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    """Adjusted for all tests of the comparison."""
    confidence: float | None = None
    effect: float | None = None
    """Cliff's delta, from -1 to 1 (every value after is larger); of the location only."""
    wanted: int | None = None
    """Samples a side that are likely to be enough."""


class _Tested(NamedTuple):
    """A test before its p is adjusted; without a shift there were too few samples for it."""

    metric: str
    statistic: Statistic
    unit: str
    better: Better
    values: tuple[float | None, float | None]
    samples: tuple[int, int]
    margin: float
    shift: Shift | None = None
    p: float = 1.0
    effect: float | None = None
    wanted: int = 0


def compare(before: Samples, after: Samples, rules: Rules | None = None) -> list[Finding]:
    """Return a finding for each metric of ``before`` and each statistic, in the order of the file.

    A metric that is missing after counts as not enough samples. The same samples and rules give the same
    findings. Takes about 0.1 s a metric of 1,000 values, and grows with n log n. Raises ConfigError where
    units differ, or no metric is in both.
    """
    rules = rules or Rules()
    if not before.series.keys() & after.series.keys():
        raise ConfigError(f"{after.name}: expected one of {', '.join(before.series) or 'some metrics'}")
    tested: list[_Tested] = []
    for metric, old in before.series.items():
        new = after.series.get(metric, Series((), old.unit, old.better))
        if (new.unit, new.better) != (old.unit, old.better):
            raise ConfigError(f"{metric}: expected {old.unit} ({old.better} is better), got {new.unit}")
        tested.append(_location(metric, old, new, rules))
        if rules.tail is not None:
            q = rules.tail if old.better == "lower" else round(1 - rules.tail, 9)
            tested.append(_tail(metric, old, new, rules, q))
    adjusted = iter(stats.holm([test.p for test in tested if test.shift is not None]))
    return [_finding(test, next(adjusted) if test.shift is not None else 1.0, rules) for test in tested]


def _location(metric: str, old: Series, new: Series, rules: Rules) -> _Tested:
    x, y = old.values, new.values
    test = _Tested(
        metric, "location", old.unit, old.better, _quantiles(x, y, 0.5), (len(x), len(y)), rules.margin
    )
    if min(test.samples) < LEAST:
        return test._replace(wanted=LEAST)
    inflated = _inflation(x, y)
    found = stats.mann_whitney(x, y, inflated)
    shift = stats.hodges_lehmann(x, y, rules.alpha, inflated)
    return test._replace(shift=shift, p=found.p, effect=found.delta)


def _inflation(x: tuple[float, ...], y: tuple[float, ...]) -> float:
    """Return the inflation of the variance of U, in which the smaller sample weighs more."""
    n, m = len(x), len(y)
    return (stats.inflation(_ranks(x)) * m + stats.inflation(_ranks(y)) * n) / (n + m)


def _ranks(values: tuple[float, ...]) -> list[float]:
    """Return the ranks of values among themselves: what the test sees, and what no outlier can swell."""
    ordered = sorted(values)
    places = {value: float(at) for at, value in enumerate(ordered)}
    return [places[value] for value in values]


def _tail(metric: str, old: Series, new: Series, rules: Rules, q: float) -> _Tested:
    x, y = old.values, new.values
    test = _Tested(
        metric, "tail", old.unit, old.better, _quantiles(x, y, q), (len(x), len(y)), rules.tail_margin
    )
    least = max(round(_BEYOND / min(q, 1 - q)), LEAST)
    if min(test.samples) < least:
        return test._replace(wanted=least)
    # Seeded by the metric, too: another metric in the file does not change what is found of this one.
    rng = random.Random(f"{rules.seed} {metric}")  # noqa: S311 - not a secret
    ratios = stats.tail_ratios(x, y, q, rules.draws, rng)
    low, high = (stats.quantile(ratios, side) for side in (rules.alpha / 2, 1 - rules.alpha / 2))
    values = test.values
    estimate = (values[1] or 0.0) / (values[0] or 1.0) - 1
    return test._replace(shift=Shift(estimate, low, high), p=stats.bootstrap_p(ratios))


def _quantiles(x: tuple[float, ...], y: tuple[float, ...], q: float) -> tuple[float | None, float | None]:
    return (
        stats.quantile(sorted(x), q) if x else None,
        stats.quantile(sorted(y), q) if y else None,
    )


def _finding(test: _Tested, p: float, rules: Rules) -> Finding:
    said = (test.metric, test.statistic)
    fewest = min(test.samples)
    if test.shift is None:
        return Finding(*said, "not enough samples", test.unit, *test.values, test.samples, wanted=test.wanted)
    found = verdict.verdict(test.shift, p, margin=test.margin, alpha=rules.alpha, better=test.better)
    few = found == "not enough samples"
    return Finding(
        *said,
        found,
        test.unit,
        *test.values,
        test.samples,
        change=test.shift.estimate,
        low=test.shift.low,
        high=test.shift.high,
        p=p,
        confidence=verdict.confidence(found, test.shift, p, test.margin, rules.alpha),
        effect=test.effect,
        wanted=verdict.wanted(fewest, test.shift, test.margin) if few else None,
    )
