"""Comparisons: what is called slower, faster, the same, and when there is too little to say."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from benchmarks import regression
from firsttoken.bench import verdict
from firsttoken.bench.compare import Finding, Rules, compare
from firsttoken.bench.compare_stats import Shift
from firsttoken.bench.samples import Samples, Series
from firsttoken.errors import ConfigError

COUNT = 600


def values(seed: str, count: int = COUNT, factor: float = 1.0, spread: float = 0.2) -> Series:
    rng = random.Random(seed)
    return Series(tuple(factor * 100 * math.exp(rng.gauss(0, spread)) for _ in range(count)))


def found(before: Series, after: Series, **rules: object) -> list[Finding]:
    return compare(Samples("a", {"ttft": before}), Samples("b", {"ttft": after}), Rules(**rules))


@pytest.mark.parametrize(
    ("factor", "better", "expected"),
    [
        (1.12, "lower", "slower"),
        (0.88, "lower", "faster"),
        (1.12, "higher", "faster"),
        (0.88, "higher", "slower"),
        (1.0, "lower", "same"),
    ],
)
def test_a_location(factor: float, better: str, expected: str) -> None:
    """A verdict follows the shift, and what is better of the metric."""
    series = (values("a"), values("b", factor=factor))
    location, _ = found(*(Series(one.values, "ms", better) for one in series))
    assert location.verdict == expected
    assert location.change == pytest.approx(factor - 1, abs=0.04)
    assert location.low < location.change < location.high
    assert location.confidence > 0.95
    assert location.wanted is None


@pytest.mark.parametrize("shape", ["lognormal", "bimodal", "heavy tail", "coarse clock"])
def test_equal_and_slower_runs(shape: str) -> None:
    """Of 40 equal runs at most two raise an alarm; of 20 slower ones at least 18 are found."""
    made, count = regression.SHAPES[shape]
    equal = [regression.found({"t": made}, count, regression.same, f"{shape} = {i}") for i in range(40)]
    assert sum(any(one.verdict in {"slower", "faster"} for one in run) for run in equal) <= 2
    slower = [regression.found({"t": made}, count, regression.longer, f"{shape} > {i}") for i in range(20)]
    assert sum(run[0].verdict == "slower" for run in slower) >= 18


def test_a_level_that_wanders() -> None:
    """Slow spells are no difference: taken as independent values, most of these equal runs differ."""
    equal = [
        regression.found({"t": regression.correlated}, 1_000, regression.same, f"spells {i}")
        for i in range(40)
    ]
    verdicts = Counter(run[0].verdict for run in equal)
    assert verdicts["slower"] + verdicts["faster"] <= 4
    assert verdicts["not enough samples"] >= 30


def test_a_tail() -> None:
    """Three per cent of requests that take three times as long leave the median and move the P99."""
    before = values("a", 2_000)
    slow = values("b", 2_000).values
    after = Series(tuple(3 * value if at % 33 == 0 else value for at, value in enumerate(slow)))
    location, tail = found(before, after)
    assert location.verdict == "same"
    assert (tail.statistic, tail.verdict) == ("tail", "slower")
    assert tail.after > 1.5 * tail.before
    assert tail.effect is None


def test_the_tail_of_a_metric_that_is_better_higher() -> None:
    """It is the lowest values: rates that collapse now and then are found, records are not."""
    before, other = values("a", 2_000), values("b", 2_000).values
    for factor, expected in ((1 / 3, "slower"), (3, "same")):
        after = tuple(factor * value if at % 33 == 0 else value for at, value in enumerate(other))
        _, tail = found(*(Series(one, "tokens/s", "higher") for one in (before.values, after)))
        assert tail.verdict == expected


@pytest.mark.parametrize(("count", "wanted"), [(5, (10, 500)), (100, (None, 500))])
def test_too_few_for_a_test(count: int, wanted: tuple[int | None, int]) -> None:
    """Below ten values, or five beyond the quantile, nothing is said, but how many are."""
    location, tail = found(values("a", count, spread=0.01), values("b", 5_000, spread=0.01))
    assert (location.wanted, tail.wanted) == (wanted[0], wanted[1])
    assert tail.verdict == "not enough samples"
    assert tail.p is tail.change is tail.confidence is None


def test_what_is_wanted_is_enough() -> None:
    """With the number of samples that is asked for, nine of ten comparisons of equal runs say the same."""
    few = found(values("a", 100), values("b", 100), tail=None)[0]
    assert few.verdict == "not enough samples"
    assert 200 < few.wanted < 1_500
    again = [found(values(f"a{i}", few.wanted), values(f"b{i}", few.wanted), tail=None)[0] for i in range(20)]
    assert sum(one.verdict == "same" for one in again) >= 17


def test_a_metric_that_is_gone() -> None:
    """What was measured before and is not any more cannot pass."""
    before = Samples("a", {"ttft": values("a"), "total": values("b")})
    findings = compare(before, Samples("b", {"ttft": values("c")}))
    gone = [one for one in findings if one.metric == "total"]
    assert [one.verdict for one in gone] == ["not enough samples"] * 2
    assert gone[0].after is None
    assert gone[0].samples == (COUNT, 0)


def test_many_metrics_share_one_error_rate() -> None:
    """The p of each test is adjusted for all of them."""
    alone = found(values("a"), values("b"), tail=None)[0]
    before = Samples("a", {str(i): values("a") for i in range(10)})
    after = Samples("b", {str(i): values("b") for i in range(10)})
    assert compare(before, after, Rules(tail=None))[0].p == pytest.approx(min(1, 10 * alone.p))


def test_the_same_again() -> None:
    """Same samples, same findings; another metric beside it does not change a bootstrap."""
    before, after = values("a", 1_000), values("b", 1_000)
    first = found(before, after)
    assert found(before, after) == first
    both = compare(
        Samples("a", {"other": values("c"), "ttft": before}),
        Samples("b", {"other": values("d"), "ttft": after}),
    )
    assert (both[3].low, both[3].high) == (first[1].low, first[1].high)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (Samples("b", {"other": values("b")}), "expected one of ttft"),
        (Samples("b", {"ttft": Series((1.0,), "s")}), "expected ms"),
        (Samples("b", {"ttft": Series((1.0,), "ms", "higher")}), "lower is better"),
    ],
)
def test_what_cannot_be_compared(after: Samples, said: str) -> None:
    """Other metrics, units and directions are mistakes."""
    with pytest.raises(ConfigError, match=said):
        compare(Samples("a", {"ttft": values("a")}), after)


@pytest.mark.parametrize(
    ("shift", "p", "expected"),
    [
        (Shift(0.10, 0.02, 0.18), 0.01, "slower"),
        (Shift(0.10, 0.02, 0.18), 0.06, "not enough samples"),
        (Shift(0.03, 0.02, 0.04), 0.001, "same"),
        (Shift(0.04, 0.02, 0.06), 0.001, "not enough samples"),
        (Shift(-0.04, -0.06, -0.02), 0.001, "faster"),
        (Shift(-0.04, -0.06, -0.02), 0.2, "not enough samples"),
        (Shift(0.0, -0.06, 0.06), 1.0, "not enough samples"),
    ],
)
def test_a_verdict(shift: Shift, p: float, expected: str) -> None:
    """Slower needs significance and size; the same needs the whole interval; an improvement may be small."""
    assert verdict.verdict(shift, p, margin=0.05, alpha=0.05, better="lower") == expected


@pytest.mark.parametrize(
    ("shift", "wanted"),
    [
        (Shift(0.0, -0.054, 0.054), 1_680),
        (Shift(0.04, 0.03, 0.05), 420),
        (Shift(0.0499, 0.0399, 0.0599), 6_720),
    ],
)
def test_how_many_are_wanted(shift: Shift, wanted: int) -> None:
    """The number grows with the square of the interval; at the margin itself it stops at sixteen times."""
    assert verdict.wanted(400, shift, 0.05) == pytest.approx(wanted, abs=2)


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([], 0),
        (["same", "faster"], 0),
        (["same", "not enough samples"], 3),
        (["not enough samples", "slower", "faster"], 1),
    ],
)
def test_an_exit_status(verdicts: list[verdict.Verdict], status: int) -> None:
    """Something slower comes first, then what is not known."""
    assert verdict.exit_status(verdicts) == status
