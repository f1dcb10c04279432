"""Rate limits of a simulated provider: what fits, how long to wait, what is left."""

from __future__ import annotations

import pytest

from firsttoken.errors import UpstreamRateLimitError
from firsttoken.simulator.limits import Limits, Quota
from firsttoken.simulator.profile import Profile


def test_requests_fit_until_the_limit_and_again_as_it_refills() -> None:
    """A minute's requests may come at once; then one fits each time that one was refilled."""
    limits, profile = Limits(), Profile(rpm=3)
    for _ in range(3):
        limits.take("m", profile, 1, 100.0)
    with pytest.raises(UpstreamRateLimitError) as caught:
        limits.take("m", profile, 1, 100.0)
    assert caught.value.retry_after == pytest.approx(20.0)
    assert "requests per min: limit 3" in str(caught.value)
    limits.take("m", profile, 1, 120.1)
    with pytest.raises(UpstreamRateLimitError):
        limits.take("m", profile, 1, 120.2)


def test_tokens_are_a_limit_of_their_own() -> None:
    """What was refused is not charged, on neither limit; a request over the whole limit never fits."""
    limits, profile = Limits(), Profile(rpm=10, tpm=100)
    limits.take("m", profile, 80, 0.0)
    with pytest.raises(UpstreamRateLimitError, match="tokens per min") as caught:
        limits.take("m", profile, 50, 0.0)
    assert caught.value.retry_after == pytest.approx(18.0)
    assert limits.quotas("m", profile, 0.0) == {"requests": Quota(10, 9, 6.0), "tokens": Quota(100, 20, 48.0)}
    with pytest.raises(UpstreamRateLimitError) as caught:
        limits.take("m", profile, 101, 0.0)
    assert caught.value.retry_after is None


def test_each_model_has_its_limits_and_without_limits_everything_fits() -> None:
    """One model's load does not touch another; 0 is no limit and tells nothing."""
    limits, profile = Limits(), Profile(rpm=1)
    limits.take("a", profile, 1, 0.0)
    limits.take("b", profile, 1, 0.0)
    assert limits.quotas("a", profile, 30.0) == {"requests": Quota(1, 0, 30.0)}
    for _ in range(100):
        limits.take("free", Profile(), 10**9, 0.0)
    assert limits.quotas("free", Profile(), 0.0) == {}
