"""The statistics of a comparison, held against published examples and counts of their own."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from firsttoken.bench import compare_stats as stats

FEMALES, MALES = (20, 11, 17, 12), (19, 22, 16, 29, 24)
EARLY = (1.15, 0.88, 0.90, 0.74, 1.21)
TERM = (0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46)
MAY = (
    *(41, 36, 12, 18, 28, 23, 19, 8, 7, 16, 11, 14, 18),
    *(14, 34, 6, 30, 11, 1, 11, 4, 32, 23, 45, 115, 37),
)
AUGUST = (
    *(39, 9, 16, 78, 35, 66, 122, 89, 110, 44, 28, 65, 22),
    *(59, 23, 31, 44, 21, 9, 45, 168, 73, 76, 118, 84, 85),
)


@pytest.mark.parametrize(
    ("before", "after", "u", "p"),
    [
        (FEMALES, MALES, 17, 0.11111),
        (EARLY, TERM, 35, 0.25441),
        (AUGUST, MAY, 127.5, 0.0001208),
        ((12, 15, 5, 9, 9, 14, 56, 22, 3, 7, 32, 5), (1, 5, 9, 24, 56, 21, 3, 7, 21, 4), 51.5, 0.5966),
    ],
    ids=["SciPy, exact", "Hollander and Wolfe, exact", "R airquality, ties", "ties among few"],
)
def test_mann_whitney_agrees_with_other_programs(before, after, u: float, p: float) -> None:
    """U and its p are those that R and SciPy document for these data."""
    found = stats.mann_whitney(before, after)
    assert found.u == u
    assert found.p == pytest.approx(p, rel=5e-4)
    assert found.delta == pytest.approx(2 * u / (len(before) * len(after)) - 1)


@pytest.mark.parametrize(
    ("n", "m", "critical"), [(5, 5, 2), (5, 8, 6), (8, 8, 13), (10, 10, 23), (20, 20, 127)]
)
def test_exact_critical_values(n: int, m: int, critical: int) -> None:
    """The largest U with p <= 0.05 (two-sided) is that of the published tables."""
    assert stats._exact(critical, n, m) <= 0.05 < stats._exact(critical + 1, n, m)


def test_the_approximation_meets_the_exact_distribution() -> None:
    """Where the exact count ends, both say nearly the same."""
    rng = random.Random(1)
    before, after = ([rng.gauss(100 + shift, 10) for _ in range(25)] for shift in (0, 5))
    exact, nearly = stats.mann_whitney(before, after), stats.mann_whitney(before, after, 1 + 1e-12)
    assert exact.p == pytest.approx(nearly.p, abs=0.002)


def test_the_directions_mirror_each_other() -> None:
    """Swapping the samples changes the sign of the effect and nothing else."""
    there, back = stats.mann_whitney(MAY, AUGUST), stats.mann_whitney(AUGUST, MAY)
    assert there.p == back.p
    assert there.delta == pytest.approx(-back.delta)


def test_hodges_lehmann_agrees_with_a_published_shift() -> None:
    """R documents 0.305 for these data; taken as logarithms, the ratio is e to that power."""
    before, after = ([math.exp(value) for value in values] for values in (EARLY, TERM))
    assert stats.hodges_lehmann(before, after, 0.05).estimate == pytest.approx(math.exp(0.305) - 1)


@pytest.mark.parametrize("sizes", [(10, 10), (11, 30), (40, 41)])
def test_hodges_lehmann_is_the_median_of_all_ratios(sizes: tuple[int, int]) -> None:
    """Selecting without holding the ratios finds the ranks that sorting them all finds."""
    rng = random.Random(str(sizes))
    before, after = ([rng.lognormvariate(4, 0.5) for _ in range(size)] for size in sizes)
    ratios = sorted(y / x for x in before for y in after)
    count = len(ratios)
    found = stats.hodges_lehmann(before, after, 0.05)
    assert found.estimate + 1 == pytest.approx((ratios[(count - 1) // 2] * ratios[count // 2]) ** 0.5)
    low = math.floor(count / 2 - 1.959964 * stats.deviation(*sizes))
    assert (found.low + 1, found.high + 1) == pytest.approx((ratios[low - 1], ratios[count - low]))


def test_equal_values_have_no_shift() -> None:
    """All values being one is neither an error nor a difference."""
    assert stats.mann_whitney([5.0] * 30, [5.0] * 30).p == 1
    assert stats.hodges_lehmann([5.0] * 30, [5.0] * 30, 0.05) == (0, 0, 0)
    assert stats.inflation([5.0] * 100) == 1


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 400 intervals of 95 %, 95 % hold the ratio, but for chance."""
    rng, held = random.Random(3), 0
    for _ in range(400):
        before, after = ([rng.lognormvariate(4, 0.4) for _ in range(60)] for _ in range(2))
        found = stats.hodges_lehmann(before, [value * 1.2 for value in after], 0.05)
        held += found.low <= 0.2 <= found.high
    assert 366 <= held <= 394


def test_independent_values_are_hardly_inflated() -> None:
    """Order without a pattern leaves the number of samples what it is."""
    rng = random.Random(1)
    found = [stats.inflation([rng.random() for _ in range(1_000)]) for _ in range(100)]
    assert sum(found) / 100 < 1.25


def test_a_drift_inflates() -> None:
    """Neighbours that resemble each other are worth fewer samples, about as many as theory says."""
    rng, level, values = random.Random(1), 0.0, []
    for _ in range(20_000):
        level = 0.8 * level + rng.gauss(0, 1)
        values.append(level)
    assert stats.inflation(values) == pytest.approx((1 + 0.8) / (1 - 0.8), rel=0.5)
    assert stats.inflation([float(at) for at in range(1_000)]) > 40


def test_the_quick_bootstrap_is_the_bootstrap() -> None:
    """Drawing the rank gives each value as often as drawing all values and taking the quantile does."""
    values, draws = [float(value) for value in range(1, 31)], 20_000
    sampled, rng = stats._Resampled(values, 0.9), random.Random(1)
    quick = Counter(sampled.draw(rng) for _ in range(draws))
    slow = Counter(stats.quantile(sorted(rng.choices(values, k=30)), 0.9) for _ in range(draws))
    assert max(abs(quick[value] - slow[value]) for value in values) < 0.02 * draws


def test_the_bootstrap_is_seeded() -> None:
    """The same seed draws the same ratios."""
    again = [
        stats.tail_ratios(range(1, 700), range(2, 800), 0.99, 50, random.Random(seed)) for seed in (1, 1, 2)
    ]
    assert again[0] == again[1] != again[2]


def test_the_p_of_a_bootstrap() -> None:
    """It counts both sides, and is never 0."""
    assert stats.bootstrap_p([0.1] * 999) == pytest.approx(0.002)
    assert stats.bootstrap_p([-0.1] * 500 + [0.1] * 500) == 1
    assert stats.bootstrap_p([0.0] * 999) == 1


@pytest.mark.parametrize(
    ("ps", "adjusted"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.9, 0.8], [1, 1]),
    ],
)
def test_holm(ps: list[float], adjusted: list[float]) -> None:
    """The smallest p is multiplied by the number of tests, the next by one less, and order is kept."""
    assert stats.holm(ps) == pytest.approx(adjusted)
