"""What a fleet counts of one target's failures, in one number, and when that is an outage.

A failure alone tells nothing: a target that fails one call in ten does so ten times in no time when it is
asked often enough. What tells an outage from that is how the next call of the same instance ends.
"""

from __future__ import annotations

from math import sqrt

from msgspec import Struct

from firsttoken.settings import Breaker as Settings

_BITS = 21
_LOW = (1 << _BITS) - 1
FULL = 1 << (_BITS - 1)
"""Failures in one window from which on no more are counted: the numbers of a counter must not run over."""
_MIN_FOLLOWED = 4
"""Failures of which the next outcome has to be known before their share counts."""
_DEVIATIONS = 2.0
"""Standard deviations by which the share has to exceed the ratio: it is looked at with every failure, so that
one of them is passed by chance every few minutes."""


class Counted(Struct, frozen=True):
    """What was counted in one window, over all instances; and what one of them adds.

    Packed it is 63 bits, 21 each: failures, followed, bad, from the highest. Each failure is followed once,
    so that none of the others grows beyond the failures (by more than one an instance).
    """

    failures: int = 0
    followed: int = 0
    """Failures of which the next outcome at the same instance is known ..."""
    bad: int = 0
    """... and was a failure again."""

    def pack(self) -> int:
        """Return it as one number, which can be added to others."""
        return self.failures << 2 * _BITS | self.followed << _BITS | self.bad

    def worth_asking(self, settings: Settings) -> bool:
        """Return whether there are failures enough to count what follows them: half of what opens it."""
        return 2 * self.failures >= settings.failures

    def outage(self, settings: Settings) -> bool:
        """Return whether failures are followed by failures, more often than the ratio and not by chance.

        With a ratio of 0 the number of failures decides alone.
        """
        if self.failures < settings.failures:
            return False
        ratio = settings.ratio
        if not ratio:
            return True
        known = max(self.followed, self.bad)  # what follows may be counted one window later
        margin = _DEVIATIONS * sqrt(ratio * (1 - ratio) * known)
        return known >= _MIN_FOLLOWED and self.bad >= ratio * known + margin


def unpack(packed: int) -> Counted:
    """Return what a sum of packed numbers says."""
    return Counted(packed >> 2 * _BITS, packed >> _BITS & _LOW, packed & _LOW)
