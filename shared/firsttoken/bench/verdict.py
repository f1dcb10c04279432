"""What a comparison comes to: slower, faster, the same within a margin, or not enough samples to say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Literal

from firsttoken.bench.compare_stats import Shift
from firsttoken.bench.samples import Better

Verdict = Literal["slower", "faster", "same", "not enough samples"]

SAME, SLOWER, NOT_ENOUGH = 0, 1, 3
"""Exit statuses; 2 is a wrong argument."""
_SETTLES = 0.54
"""Half an interval, in margins, with which nine of ten pairs of equal runs prove the same.

The estimate then lies within 1.645 standard errors of 0, and half a 95 % interval is 1.96 of them:
1.96 / (1.96 + 1.645).
"""
_MOST = 16.0
"""Nobody measures more than so many times as often: the difference is at the margin itself."""
_NORMAL = statistics.NormalDist()


def verdict(shift: Shift, p: float, *, margin: float, alpha: float, better: Better) -> Verdict:
    """Say what a difference is, given its interval and its p, adjusted for all tests.

    ``slower`` and ``faster`` need both a significant difference and an estimate of ``margin`` or more, so
    that many samples do not make a finding of a difference that nobody minds; ``same`` needs the whole
    interval within the margin. A smaller improvement that is significant, but may reach beyond the margin,
    is ``faster``, too: more samples would not change what anybody does. For a metric that is better
    higher, ``slower`` means that it fell.
    """
    worse = (shift.estimate > 0) is (better == "lower")
    if p <= alpha and abs(shift.estimate) >= margin:
        return "slower" if worse else "faster"
    if within(shift, margin):
        return "same"
    return "faster" if p <= alpha and not worse else "not enough samples"


def within(shift: Shift, margin: float) -> bool:
    """Whether the whole interval lies within the margin."""
    return -margin < shift.low and shift.high < margin


def confidence(found: Verdict, shift: Shift, p: float, margin: float, alpha: float) -> float | None:
    """Return the confidence in a verdict, from 0 to 1; None where there was too little to say one.

    For a difference, 1 - the adjusted p. For ``same``, that of the two one-sided tests against the margin,
    with the standard error that the interval of confidence 1 - ``alpha`` shows.
    """
    if found == "not enough samples":
        return None
    if found != "same":
        return 1 - p
    error = (shift.high - shift.low) / 2 / _NORMAL.inv_cdf(1 - alpha / 2)
    return _NORMAL.cdf((margin - abs(shift.estimate)) / error) if error else 1.0


def wanted(samples: int, shift: Shift, margin: float) -> int:
    """Return how many samples a side are likely to bring a verdict, given what ``samples`` of them showed.

    Intervals narrow with the square root of the number. Where this one is narrow already and lies across
    the margin, it has to become narrower than its distance from it; at most 16 times as many are named.
    """
    half = (shift.high - shift.low) / 2
    narrow = _SETTLES * margin
    if half <= narrow:
        narrow = max(abs(margin - abs(shift.estimate)), half / math.sqrt(_MOST))
    return math.ceil(samples * max((half / narrow) ** 2, 1.0) * 1.05)


def exit_status(found: Iterable[Verdict]) -> int:
    """Return 1 if anything is slower, else 3 if there is not enough of anything, else 0."""
    verdicts = set(found)
    if "slower" in verdicts:
        return SLOWER
    return NOT_ENOUGH if "not enough samples" in verdicts else SAME
