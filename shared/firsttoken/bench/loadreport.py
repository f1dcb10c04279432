"""What a load test showed: distributions, errors by kind, goodput under the SLO, and the run over time.

Times count from when a request was due. Requests that failed are counted, and kept out of every distribution.
A percentile is given only where there are at least ten samples beyond it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct, field

from firsttoken.bench.load import Sample
from firsttoken.bench.loadtest_scenario import LoadScenario, Slo
from firsttoken.bench.report import Check

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
SAMPLES_BEYOND = 10
MAX_WINDOWS = 300
LATE_MS = 10.0
_AS_BEFORE = 1.5
_IN_A_ROW = 3
_LEAST = frozenset({"availability", "good_share"})


class Distribution(Struct):
    """Milliseconds, or what the name says; a value is None where there are too few samples for it."""

    count: int
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p999: float | None = None
    largest: float | None = None


class Window(Struct):
    """A part of the run; requests belong to when they were due, tokens to when they came."""

    at: float
    requests: int = 0
    answered: int = 0
    good: int = 0
    ttft_p50: float | None = None
    ttft_p99: float | None = None
    """Here the largest but one in a hundred, however few there are."""
    e2e_p50: float | None = None
    tokens_per_s: float = 0.0


class LoadReport(Struct, kw_only=True):
    """The result of one run."""

    scenario: str
    url: str
    simulated: bool
    """Whether the upstream was our simulator."""
    date: str
    command: str = ""
    machine: str = ""
    seed: int
    seconds: float
    """Until the last answer."""
    duration: float
    """In which requests were due."""
    rate: float
    """Requests a second that were sent."""
    requests: int
    answered: int
    availability: float | None
    errors: dict[str, int]
    slo: Slo
    good: int
    good_share: float | None
    goodput: float
    """Answers a second that kept the SLO."""
    ttft_ms: Distribution
    """Of streamed answers."""
    e2e_ms: Distribution
    """Until all of an answer was there."""
    tpot_ms: Distribution
    """Mean time between tokens of each streamed answer."""
    sent_late_ms: Distribution
    """What the generator itself was late by; it is part of every time above."""
    parts: dict[str, Distribution]
    """E2E by kind: streamed, whole, repeated, new, and each tenant."""
    tokens: int
    tokens_per_s: float
    tokens_counted: str
    """By the ``server``, or ``pieces`` of text where it does not say."""
    cpu_share: float
    """Of one core, used by the generator."""
    disturbed: tuple[float, float] | None
    recovered_within_s: float | None
    window_s: float
    windows: list[Window]
    warnings: list[str]
    checks: list[Check] = field(default_factory=list)
    passed: bool = True


def build(  # noqa: PLR0913 - what is known of a run
    scenario: LoadScenario,
    samples: Sequence[Sample],
    *,
    seconds: float,
    cpu: float = 0.0,
    simulated: bool = False,
    url: str = "",
) -> LoadReport:
    """Return the report of a run. Time: a few sorts of the samples; memory: their times once more."""
    answered = [sample for sample in samples if sample.complete]
    good = sum(is_good(sample, scenario.slo) for sample in answered)
    tokens = sum(map(_tokens, answered))
    disturbed = scenario.disturbed(faults=simulated)
    width = max(math.ceil(scenario.duration / MAX_WINDOWS), 1)
    windows = _windows(samples, scenario.slo, width)
    report = LoadReport(
        scenario=scenario.name,
        url=url,
        simulated=simulated,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=scenario.seed,
        seconds=round(seconds, 2),
        duration=scenario.duration,
        rate=round(len(samples) / scenario.duration, 2),
        requests=len(samples),
        answered=len(answered),
        availability=_share(len(answered), len(samples)),
        errors=dict(Counter(_reason(sample) for sample in samples if not sample.complete).most_common()),
        slo=scenario.slo,
        good=good,
        good_share=_share(good, len(samples)),
        goodput=round(good / scenario.duration, 2),
        ttft_ms=distribution(ttft(sample) for sample in answered if sample.stream),
        e2e_ms=distribution(map(e2e, answered)),
        tpot_ms=distribution(filter(None, map(_tpot, answered))),
        sent_late_ms=distribution(sample.sent - sample.at for sample in samples),
        parts=_parts(answered),
        tokens=tokens,
        tokens_per_s=round(tokens / seconds, 1) if seconds else 0.0,
        tokens_counted="server" if all(sample.tokens for sample in answered) else "pieces",
        cpu_share=round(cpu / seconds, 3) if seconds else 0.0,
        disturbed=disturbed,
        recovered_within_s=_recovered(windows, disturbed, width),
        window_s=width,
        windows=windows,
        warnings=[],
    )
    return _judged(report, scenario)


def _judged(report: LoadReport, scenario: LoadScenario) -> LoadReport:
    report.warnings = _warnings(report, scenario)
    report.checks = list(_checks(report, scenario))
    report.passed = all(check.passed for check in report.checks)
    return report


def ttft(sample: Sample) -> float:
    """Return the seconds from when a request was due to its first content."""
    return (sample.first or sample.done or 0.0) - sample.at


def e2e(sample: Sample) -> float:
    """Return the seconds from when a request was due to the end of its answer."""
    return (sample.done or 0.0) - sample.at


def is_good(sample: Sample, slo: Slo) -> bool:
    """Whether a request was answered within the SLO."""
    in_ttft = slo.ttft_ms is None or not sample.stream or ttft(sample) * 1000 <= slo.ttft_ms
    return sample.complete and in_ttft and (slo.e2e_ms is None or e2e(sample) * 1000 <= slo.e2e_ms)


def distribution(seconds: Iterable[float]) -> Distribution:
    """Return the distribution of times, in milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return Distribution(0)
    count = len(ordered)
    found = {
        name: _ms(rank(ordered, q))
        for name, q in QUANTILES.items()
        if q == 0.5 or count * (1 - q) >= SAMPLES_BEYOND - 1e-9
    }
    return Distribution(count, mean=_ms(math.fsum(ordered) / count), largest=_ms(ordered[-1]), **found)


def rank(ordered: Sequence[float], q: float) -> float:
    """Return the smallest of ordered values that a share ``q`` of them does not exceed (nearest rank)."""
    return ordered[max(math.ceil(q * len(ordered)) - 1, 0)]


def _tokens(sample: Sample) -> int:
    return sample.tokens or sample.chunks


def _tpot(sample: Sample) -> float | None:
    tokens = _tokens(sample)
    if not sample.stream or tokens < 2 or sample.first is None or sample.done is None:
        return None
    return (sample.done - sample.first) / (tokens - 1)


def _reason(sample: Sample) -> str:
    return sample.error or ("left" if sample.left else "incomplete")


def _parts(answered: Sequence[Sample]) -> dict[str, Distribution]:
    kinds: dict[str, list[float]] = {}
    for sample in answered:
        kinds.setdefault("streamed" if sample.stream else "whole", []).append(e2e(sample))
        kinds.setdefault("repeated prompt" if sample.repeated else "new prompt", []).append(e2e(sample))
        if sample.tenant:
            kinds.setdefault(f"tenant {sample.tenant}", []).append(e2e(sample))
    return {name: distribution(times) for name, times in sorted(kinds.items())}


def _windows(samples: Sequence[Sample], slo: Slo, width: int) -> list[Window]:
    last = max((sample.done or sample.at for sample in samples), default=0.0)
    windows = [Window(at=number * width) for number in range(int(last // width) + 1)]
    first: list[list[float]] = [[] for _ in windows]
    whole: list[list[float]] = [[] for _ in windows]
    for sample in samples:
        number = int(sample.at // width)
        window = windows[number]
        window.requests += 1
        if not sample.complete:
            continue
        window.answered += 1
        window.good += is_good(sample, slo)
        whole[number].append(e2e(sample))
        if sample.stream:
            first[number].append(ttft(sample))
        _spread(windows, sample, width)
    for window, of_first, of_whole in zip(windows, map(sorted, first), map(sorted, whole), strict=True):
        if of_first:
            window.ttft_p50, window.ttft_p99 = _ms(rank(of_first, 0.5)), _ms(rank(of_first, 0.99))
        if of_whole:
            window.e2e_p50 = _ms(rank(of_whole, 0.5))
        window.tokens_per_s = round(window.tokens_per_s / width, 1)
    return windows


def _spread(windows: list[Window], sample: Sample, width: int) -> None:
    """Lay an answer's tokens evenly over the time in which they came."""
    end = sample.done or 0.0
    begin = end if sample.first is None or not sample.stream else sample.first
    low, high = int(begin // width), int(end // width)
    for number in range(low, high + 1):
        if begin == end:
            share = 1.0
        else:
            share = (min(end, (number + 1) * width) - max(begin, number * width)) / (end - begin)
        windows[number].tokens_per_s += _tokens(sample) * share


def _recovered(windows: Sequence[Window], span: tuple[float, float] | None, width: int) -> float | None:
    """Return the seconds from the end of the disturbance until answers come as before it.

    As before: `_IN_A_ROW` windows with no failed request and a median within `_AS_BEFORE` of the usual one.
    """
    if span is None:
        return None
    usual = sorted(w.e2e_p50 for w in windows if w.at + width <= span[0] and w.e2e_p50 is not None)
    if not usual:
        return None
    limit = rank(usual, 0.5) * _AS_BEFORE
    later = [w for w in windows if w.at >= span[1] and w.requests]
    fine = [w.answered == w.requests and w.e2e_p50 is not None and w.e2e_p50 <= limit for w in later]
    for number in range(len(later) - _IN_A_ROW + 1):
        if all(fine[number : number + _IN_A_ROW]):
            return round(later[number].at - span[1], 2)
    return None


def _warnings(report: LoadReport, scenario: LoadScenario) -> list[str]:
    found = []
    own = report.sent_late_ms
    quantile, late = next(
        ((name, ms) for name, ms in (("P99", own.p99), ("P95", own.p95), ("P90", own.p90)) if ms is not None),
        ("largest", own.largest or 0.0),
    )
    if late > LATE_MS:
        found.append(
            f"requests left up to {late:g} ms late ({quantile}): the generator, or its machine, is too slow;"
            " lower the rate, or run it elsewhere"
        )
    if report.e2e_ms.p99 is None:
        found.append(
            f"{report.answered} answers are too few for a P99: expected {SAMPLES_BEYOND * 100} or more"
        )
    if scenario.faults and not report.simulated:
        found.append("the scenario's faults were left out: they need targets that the run has started")
    if not report.requests:
        found.append("no request was due: expected a longer duration or a higher rate")
    return found


def _checks(report: LoadReport, scenario: LoadScenario) -> Iterable[Check]:
    measured = {
        "availability": report.availability,
        "good_share": report.good_share,
        "ttft_p50_ms": report.ttft_ms.p50,
        "ttft_p99_ms": report.ttft_ms.p99,
        "e2e_p99_ms": report.e2e_ms.p99,
        "recovered_within_s": report.recovered_within_s,
    }
    for name, expected in msgspec.structs.asdict(scenario.expect).items():
        value = measured[name]
        if expected is not None:
            met = value is not None and (value >= expected if name in _LEAST else value <= expected)
            yield Check(name, expected, value, passed=met)


def _share(part: int, of: int) -> float | None:
    return round(part / of, 5) if of else None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
