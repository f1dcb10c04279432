"""Token buckets: what they let through, what they learn, and what they owe."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firsttoken.policies.bucket import Bucket, Quotas
from firsttoken.telemetry.record import Quota


def drained(limit: float, now: float = 0.0) -> Bucket:
    bucket = Bucket(limit)
    assert bucket.has(limit, now)
    bucket.take(limit)
    return bucket


def test_without_a_limit_everything_fits() -> None:
    """An unknown limit holds nothing back, however much is taken."""
    bucket = Bucket()
    for _ in range(3):
        assert bucket.has(1e12, 5.0)
        assert bucket.take(1e12) == 1e12
    assert (bucket.known, bucket.wait(1e12, 5.0)) == (False, 0.0)


def test_it_refills_all_the_time() -> None:
    """A sixtieth of the limit comes back each second, up to the limit."""
    bucket = drained(600)
    assert not bucket.has(10, 0.5)
    assert bucket.wait(10, 0.5) == pytest.approx(0.5)
    assert bucket.has(10, 1.0)
    assert bucket.left(30.0) == pytest.approx(300)
    assert bucket.left(1000.0) == 600


def test_time_never_runs_backwards() -> None:
    """An earlier time than the last one changes nothing."""
    bucket = drained(60, now=100.0)
    assert bucket.left(50.0) == 0
    assert bucket.left(101.0) == pytest.approx(1)


def test_what_exceeds_the_limit_is_charged_all_of_it() -> None:
    """A call that can never fit waits for a full bucket, and leaves none."""
    bucket = Bucket(100)
    assert bucket.has(1e9, 0.0)
    assert bucket.take(1e9) == 100
    assert not bucket.has(1e9, 59.0)
    assert bucket.has(1e9, 60.0)


def test_debts_are_paid_back_first() -> None:
    """What was used beyond the limit is owed; what is given back never exceeds the limit."""
    bucket = drained(60)
    bucket.debit(30)
    assert bucket.wait(1, 0.0) == pytest.approx(31)
    bucket.debit(-1000)
    assert bucket.left(0.0) == 60


def test_others_leave_at_most_a_minute_s_debt() -> None:
    """Whatever others are said to have spent, after two minutes all is there again."""
    bucket = Bucket(60)
    bucket.left(0.0)
    bucket.debit_others(1e9)
    assert bucket.left(0.0) == -60
    bucket.debit(30)
    bucket.debit_others(5)
    assert bucket.left(0.0) == -90


def test_headers_lower_at_once_and_never_raise() -> None:
    """What remains is believed when it is less than expected; more comes only with time."""
    bucket = Bucket(100)
    bucket.adapt(Quota(100, 20, 48.0), 0.0)
    assert bucket.left(0.0) == 20
    bucket.adapt(Quota(100, 90, 6.0), 0.0)
    assert bucket.left(0.0) == 20
    assert bucket.left(48.0) == pytest.approx(100)


def test_limits_are_learned() -> None:
    """An unknown limit is what the headers tell, a lower one lowers, a higher one is believed again."""
    bucket = Bucket()
    bucket.adapt(Quota(0, 79, 0.0), 0.0)
    assert not bucket.known
    bucket.adapt(Quota(600, 500, 10.0), 0.0)
    assert (bucket.limit, bucket.left(0.0)) == (600, 500)
    bucket.adapt(Quota(60, 60, 0.0), 0.0)
    assert (bucket.limit, bucket.left(0.0), bucket.left(9.0)) == (60, 60, 60)
    bucket.adapt(Quota(600, 600, 0.0), 10.0)
    assert (bucket.limit, bucket.left(10.0)) == (600, 60)
    assert bucket.left(20.0) == pytest.approx(160)


def test_the_configured_limit_is_never_exceeded() -> None:
    """A target that allows more than was configured is not asked for more."""
    bucket = Bucket(100)
    bucket.adapt(Quota(1000, 990, 1.0), 0.0)
    assert (bucket.limit, bucket.left(0.0)) == (100, 100)
    bucket.adapt(Quota(50, 50, 0.0), 0.0)
    assert bucket.limit == 50
    bucket.adapt(Quota(0, 3, 0.0), 0.0)
    assert (bucket.limit, bucket.left(0.0)) == (50, 3)


def test_a_limit_by_the_day_refills_slowly() -> None:
    """A reset that is further away than any minute tells how fast a limit really refills."""
    bucket = Bucket()
    bucket.adapt(Quota(86_400, 85_400, 1000.0), 0.0)
    assert bucket.left(10.0) == pytest.approx(85_410)
    bucket.adapt(Quota(86_400, 86_400, 9999.0), 10.0)
    assert bucket.wait(85_420, 10.0) == pytest.approx(10)


def test_all_limits_must_allow_a_call() -> None:
    """One limit that is used up holds a call back; nothing of it is taken from the others."""
    quotas = Quotas(10, 100, 0)
    assert quotas.fit((1, 100, 0), 0.0)
    assert quotas.take((1, 100, 5)) == (1, 100, 5)
    assert not quotas.fit((1, 1, 0), 0.0)
    assert quotas.wait((1, 50, 0), 0.0) == pytest.approx(30)
    assert quotas.headroom(0.0) == 0
    quotas.settle((1, 100, 5), (1, 25, 0))
    assert quotas.headroom(0.0) == pytest.approx(0.75)
    assert quotas.spent == (1, 25, 0)
    assert Quotas(0, 0, 0).headroom(0.0) == 1.0


steps = st.lists(
    st.tuples(st.floats(0, 40), st.integers(1, 1500), st.one_of(st.none(), st.integers(0, 1200))), max_size=60
)


@settings(derandomize=True, deadline=None)
@given(limit=st.integers(1, 1000), steps=steps)
def test_a_minute_never_holds_more_than_the_limit_and_a_burst(limit: int, steps: list) -> None:
    """In no sixty seconds is more let through than a full bucket and what is refilled in that time."""
    bucket, now, passed = Bucket(limit), 0.0, []
    for pause, amount, remaining in steps:
        now += pause
        if remaining is not None:
            bucket.adapt(Quota(limit, remaining, 1.0), now)
        if bucket.has(amount, now):
            passed.append((now, bucket.take(amount)))
    for start, _ in passed:
        inside = sum(amount for at, amount in passed if start <= at <= start + 60)
        assert inside <= 2 * limit + 0.01
