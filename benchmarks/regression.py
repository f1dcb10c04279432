"""How often a comparison of two runs is right: ``firsttoken bench compare`` on data with known differences.

Seeded times of simulated requests in six shapes. ``equal`` runs come from one distribution: whatever is
found there is a false alarm. ``slower`` runs take 10 % longer, or have a tail that is three times as long
for 3 % of the requests. Nothing here depends on the machine.
"""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.resilience_row import Row
from firsttoken.bench.compare import Finding, Rules, compare
from firsttoken.bench.compare_stats import mann_whitney
from firsttoken.bench.samples import Samples, Series

EQUAL, SLOWER = 400, 200
FACTOR = 1.1
FALSE_ALARMS, POWER = 0.05, 0.9
KINDS = ("location", "tail")
_SHARE, _TAIL = 0.03, 3.0

Shape = Callable[[random.Random, int], list[float]]


def lognormal(rng: random.Random, count: int) -> list[float]:
    """Return what most services look like."""
    return [100 * math.exp(rng.gauss(0, 0.35)) for _ in range(count)]


def bimodal(rng: random.Random, count: int) -> list[float]:
    """Return a cache that answers three of ten requests twenty times as fast."""
    return [(20 if rng.random() < 0.3 else 400) * math.exp(rng.gauss(0, 0.25)) for _ in range(count)]


def heavy(rng: random.Random, count: int) -> list[float]:
    """Return a Pareto tail of index 2, whose variance has no end."""
    return [80 * rng.paretovariate(2) * math.exp(rng.gauss(0, 0.1)) for _ in range(count)]


def drifting(rng: random.Random, count: int) -> list[float]:
    """Return a level that swings by a tenth one and a half times in a run, from another phase each run."""
    phase = rng.random() * math.tau
    levels = (0.1 * math.sin(phase + 1.5 * math.tau * at / count) for at in range(count))
    return [100 * math.exp(level + rng.gauss(0, 0.3)) for level in levels]


def correlated(rng: random.Random, count: int) -> list[float]:
    """Return slow spells: neighbours share a level that remembers nine tenths of the last one."""
    level, values = 0.0, []
    for _ in range(count):
        level = 0.9 * level + rng.gauss(0, 0.1)
        values.append(100 * math.exp(level + rng.gauss(0, 0.25)))
    return values


def coarse(rng: random.Random, count: int) -> list[float]:
    """Return a clock of 5 ms: ties everywhere."""
    return [max(5.0, 5 * round(value / 5)) for value in lognormal(rng, count)]


SHAPES: dict[str, tuple[Shape, int]] = {
    "lognormal": (lognormal, 1_000),
    "bimodal": (bimodal, 1_000),
    "heavy tail": (heavy, 1_000),
    "coarse clock": (coarse, 1_000),
    "drift within a run": (drifting, 2_000),
    "slow spells": (correlated, 4_000),
}
"""Each shape, and the samples a side that are stated for it."""


def run() -> dict[str, Any]:
    """Run all shapes."""
    rows = {f"{name}, {count} a side": _shape(shape, count) for name, (shape, count) in SHAPES.items()}
    rows["four metrics, 1000 a side"] = _metrics(1_000)
    rows["tail: 3 % of requests take three times as long, 2000 a side"] = _tail(2_000)
    return {
        "upstream": "simulated upstream: seeded times, no requests",
        "rules": "margin 5 %, tail margin 25 %, P99, confidence 95 %, Holm over all tests of a comparison",
        "comparisons": {"equal": EQUAL, "slower": SLOWER},
        "passed": not any(row.failed() for row in rows.values()),
        "rows": {name: row.plain() for name, row in rows.items()},
    }


def runs(
    shapes: dict[str, Shape], count: int, slow: Callable[..., list[float]], seed: str
) -> tuple[Samples, Samples]:
    """Return two runs of each metric; ``slow`` changes the later one."""
    rng = random.Random(seed)  # noqa: S311 - not a secret
    before = {name: Series(tuple(shape(rng, count))) for name, shape in shapes.items()}
    after = {name: Series(tuple(slow(rng, shape(rng, count)))) for name, shape in shapes.items()}
    return Samples("before", before), Samples("after", after)


def found(shapes: dict[str, Shape], count: int, slow: Callable[..., list[float]], seed: str) -> list[Finding]:
    """Compare two such runs."""
    return compare(*runs(shapes, count, slow, seed), Rules())


def same(_: random.Random, values: list[float]) -> list[float]:
    """Change nothing."""
    return values


def longer(_: random.Random, values: list[float]) -> list[float]:
    """Let every request take 10 % longer."""
    return [value * FACTOR for value in values]


def longer_tail(rng: random.Random, values: list[float]) -> list[float]:
    """Let 3 % of the requests take three times as long."""
    return [value * (_TAIL if rng.random() < _SHARE else 1) for value in values]


def _repeated(times: int, compared: Callable[[str], list[Finding]], name: str) -> list[list[Finding]]:
    print(f"  {name}", file=sys.stderr, flush=True)
    return [compared(f"{name} {number}") for number in range(times)]


def _shape(shape: Shape, count: int) -> Row:
    said = f"{shape.__name__} {count}"
    equal = _repeated(EQUAL, partial(found, {"ttft": shape}, count, same), f"{said} equal")
    slower = _repeated(SLOWER, partial(found, {"ttft": shape}, count, longer), f"{said} slower")
    row = _row(equal, _share_of(slower, "location"), _verdicts(equal))
    alone = [_u_test(shape, count, f"{said} equal {number}") for number in range(EQUAL)]
    row.also["false_alarms_of_the_u_test_alone"] = sum(p <= FALSE_ALARMS for p in alone) / EQUAL
    return row


def _u_test(shape: Shape, count: int, seed: str) -> float:
    """Return the p of the plain test, which takes the values for independent."""
    before, after = runs({"ttft": shape}, count, same, seed)
    return mann_whitney(before.series["ttft"].values, after.series["ttft"].values).p


def _metrics(count: int) -> Row:
    """Return how often anything is found in four equal metrics, and one slower one among four."""
    shapes: dict[str, Shape] = {"a": lognormal, "b": bimodal, "c": heavy, "d": coarse}
    equal = _repeated(EQUAL, partial(found, shapes, count, same), "four equal")
    slower = _repeated(SLOWER, partial(found, shapes, count, longer), "four slower")
    return _row(equal, _share_of(slower, "location"), _verdicts(equal))


def _tail(count: int) -> Row:
    shapes = {"ttft": lognormal}
    equal = _repeated(EQUAL, partial(found, shapes, count, same), "tail equal")
    slower = _repeated(SLOWER, partial(found, shapes, count, longer_tail), "tail slower")
    return _row(equal, _share_of(slower, "tail"), _verdicts(equal))


def _row(equal: list[list[Finding]], power: float, verdicts: dict[str, Any]) -> Row:
    alarms = sum(any(one.verdict in {"slower", "faster"} for one in run) for run in equal) / len(equal)
    return Row(
        measured={"false_alarms": alarms, "found": power},
        bars={"false_alarms": FALSE_ALARMS, "found": POWER},
        least=frozenset({"found"}),
        also={"verdicts_of_equal_runs": verdicts},
    )


def _share_of(runs: list[list[Finding]], statistic: str) -> float:
    """Return the share of the tests of one statistic that say slower."""
    tests = [one.verdict == "slower" for run in runs for one in run if one.statistic == statistic]
    return round(sum(tests) / len(tests), 4)


def _verdicts(runs: list[list[Finding]]) -> dict[str, dict[str, float]]:
    """Return the share of each verdict, of the location and of the tail."""
    tests = [one for run in runs for one in run]
    counts = {kind: Counter(one.verdict for one in tests if one.statistic == kind) for kind in KINDS}
    return {
        kind: {verdict: round(count / found.total(), 4) for verdict, count in sorted(found.items())}
        for kind, found in counts.items()
    }
