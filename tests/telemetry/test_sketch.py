"""Quantiles of durations: how far off they are, and that merging changes nothing."""

from __future__ import annotations

import math
from random import Random

import pytest

from firsttoken.telemetry.sketch import BOUNDS, BUCKETS, ERROR, Sketch


def exact(values: list[float], share: float) -> float:
    """The nearest-rank quantile."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def sketch_of(values: list[float]) -> Sketch:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


@pytest.mark.parametrize("sigma", [0.05, 0.5, 1.5])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.99, 0.999, 1.0])
def test_a_quantile_is_within_one_percent(sigma: float, share: float) -> None:
    """Whatever the spread of the values."""
    rng = Random(7)
    values = [min(max(rng.lognormvariate(-1, sigma), 0.001), 600) for _ in range(20_000)]
    (found,) = sketch_of(values).quantiles(share)
    assert abs(found / exact(values, share) - 1) <= ERROR < 0.01


def test_a_hundred_instances_keep_p99() -> None:
    """Instances with traffic of their own, merged, know the P99 of all calls within 1 %."""
    rng = Random(11)
    everything: list[float] = []
    merged = Sketch()
    for _ in range(100):
        middle, spread = rng.uniform(-2, 1), rng.uniform(0.1, 1.0)
        values = [rng.lognormvariate(middle, spread) for _ in range(rng.randrange(50, 800))]
        everything += values
        merged.merge(sketch_of(values))
    (found,) = merged.quantiles(0.99)
    assert abs(found / exact(everything, 0.99) - 1) <= 0.01
    assert merged.total == pytest.approx(sum(everything))


def test_merging_is_adding() -> None:
    """Two halves, merged, are the whole."""
    rng = Random(3)
    values = [rng.expovariate(2) for _ in range(1000)]
    half = sketch_of(values[:500])
    half.merge(sketch_of(values[500:]))
    assert half.counts == sketch_of(values).counts


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bound_counts_below_itself(bound: float) -> None:
    """A value that is just the bound of a histogram is within it (``le``), the next one is not."""
    place = BOUNDS.index(bound)
    below = sketch_of([bound, bound * 1.0001]).cumulative()
    assert below[place] == 1
    assert below[place + 1] == 2
    assert not any(below[:place])


def test_counts_below_the_bounds_are_exact() -> None:
    """The histogram's counts are not estimates."""
    rng = Random(5)
    values = [rng.lognormvariate(-0.5, 1.2) for _ in range(5000)]
    found = sketch_of(values).cumulative()
    assert found == [*(sum(v <= bound for v in values) for bound in BOUNDS), len(values)]


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-9, 1e9])
def test_values_out_of_range_are_counted_at_its_ends(value: float) -> None:
    """Nothing is lost, and nothing grows."""
    sketch = sketch_of([value])
    assert sum(sketch.counts) == 1
    assert len(sketch.counts) == BUCKETS


def test_no_values_no_quantiles() -> None:
    """An empty sketch does not guess."""
    assert Sketch().quantiles(0.5, 0.99) == [None, None]
