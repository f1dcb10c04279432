"""From samples to a report: availability, times before, during and after the faults, calls upstream."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct, field

from firsttoken.bench import calls
from firsttoken.bench.fleet import State
from firsttoken.bench.load import Sample, quantile
from firsttoken.bench.scenario import Scenario
from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.simulator import text
from firsttoken.simulator.profile import Profile

_PREFERRED_AGAIN = 0.9
"""Share of the answers in one second that shows that a target is preferred again."""
LEAST = frozenset({"availability", "ttft_p99_gain", "rung_share"})
"""Bars that must be reached; all others must not be passed."""


class Measured(Struct):
    """What a run has gathered. Times are seconds since its start."""

    samples: list[Sample] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)
    calls: list[dict[str, int]] = field(default_factory=list)
    """Calls that each target has counted, second by second."""
    mended: list[float] = field(default_factory=list)
    seconds: float = 0.0
    idle_after: float | None = None
    log: bytes | None = None
    """Of the gateway, a JSON line a call."""
    not_counted: set[str] = field(default_factory=set)
    """Request ids of calls that warmed it up."""


class Phase(Struct):
    """Requests that were due before, during or after the faults. Times in milliseconds."""

    requests: int
    answered: int
    ttft_p50: float | None
    ttft_p95: float | None
    ttft_p99: float | None


class Calls(Struct):
    """Calls to one target: as it counted them, and those while it was broken (from the gateway's log)."""

    requests: int
    completed: int
    failed: int
    left: int
    while_down: int | None = None


class Check(Struct):
    """One expectation: ``measured`` is None when it could not be measured."""

    name: str
    expected: float
    measured: float | None
    passed: bool


class Second(Struct):
    """One second of the run, for plots."""

    at: int
    requests: int
    answered: int
    ttft_p50: float | None
    ttft_p99: float | None
    targets: dict[str, int]
    calls: dict[str, int]


class Report(Struct):
    """What came out of a run. Times in milliseconds unless they say otherwise."""

    scenario: str
    seed: int
    seconds: float
    requests: int
    answered: int
    left: int
    availability: float | None
    errors: dict[str, int]
    phases: dict[str, Phase]
    added: dict[str, float | None]
    """Quantiles of the time that requests took longer than the median of their kind before the fault, from
    ``settle`` seconds into it to its end; a streamed answer's time is its time to first token."""
    targets: dict[str, Calls]
    upstream_calls: int
    amplification: float | None
    hedges: int | None
    resumed: int | None
    rungs: int
    wrong: int
    untyped: int
    unnamed: int
    calls_in_cooldown: int | None
    back_within_s: float | None
    idle_after_s: float | None
    ttft_p99: float | None
    timeline: list[Second]
    checks: list[Check] = field(default_factory=list)
    without: Report | None = None

    @property
    def passed(self) -> bool:
        """Whether every expectation is met."""
        return all(check.passed for check in self.checks)


def build(scenario: Scenario, measured: Measured) -> Report:
    """Return the report of one run, without its checks."""
    samples = measured.samples
    _verify(scenario, samples)
    log = measured.log
    logged = None if log is None else calls.read(log, samples, measured.not_counted)
    calls.attribute(scenario, samples, logged or ())
    asked = [sample for sample in samples if not sample.left]
    answered = [sample for sample in asked if sample.complete]
    start, end = _span(scenario)
    counted = sum(state.requests for state in measured.states.values())
    upstream = counted if logged is None else sum(len(line.calls()) for line in logged)
    return Report(
        scenario=scenario.name,
        seed=scenario.seed,
        seconds=round(measured.seconds, 2),
        requests=len(samples),
        answered=len(answered),
        left=len(samples) - len(asked),
        availability=round(len(answered) / len(asked), 5) if asked else None,
        errors=dict(Counter(sample.error for sample in asked if not sample.complete)),
        phases=_phases(asked, start, end),
        added=_added(answered, start, start + scenario.settle, end),
        targets=_targets(measured, {} if logged is None else calls.while_down(scenario, logged)),
        upstream_calls=upstream,
        amplification=round(upstream / len(samples), 4) if samples else None,
        hedges=None if logged is None else calls.count(logged, "hedge"),
        resumed=None if logged is None else sum(line.resumed for line in logged),
        rungs=sum(sample.text in _fixed_texts(scenario) for sample in answered),
        wrong=sum(sample.error == "wrong" for sample in asked),
        untyped=sum(not sample.typed for sample in asked),
        unnamed=sum(not (sample.model and sample.target and sample.usage) for sample in answered),
        calls_in_cooldown=None if logged is None else calls.in_cooldown(scenario, logged),
        back_within_s=_back(samples, start, measured.mended),
        idle_after_s=measured.idle_after,
        ttft_p99=_ms(quantile(_ttfts(answered), 0.99)),
        timeline=_timeline(samples, measured.calls),
    )


def checked(report: Report, scenario: Scenario, without: Report | None = None) -> Report:
    """Compare a report with what the scenario expects; ``without`` is the run that it is compared with."""
    gain = None
    if without is not None and without.ttft_p99 and report.ttft_p99:
        gain = round(without.ttft_p99 / report.ttft_p99, 2)
    down = [target.while_down for target in report.targets.values() if target.while_down is not None]
    measured: dict[str, float | None] = {
        "availability": report.availability,
        "p50_added_ms": report.added["p50"],
        "p99_added_ms": report.added["p99"],
        "ttft_p99_ms": report.ttft_p99,
        "ttft_p99_gain": gain,
        "back_within_s": report.back_within_s,
        "amplification": report.amplification,
        "hedge_share": None if report.hedges is None else round(report.hedges / max(report.requests, 1), 4),
        "calls_while_down": max(down) if down else None,
        "calls_in_cooldown": report.calls_in_cooldown,
        "upstream_calls": report.upstream_calls,
        "rung_share": round(report.rungs / max(report.requests, 1), 4),
        "wrong": report.wrong,
        "untyped": report.untyped,
        "unnamed": report.unnamed,
        "idle_within_s": report.idle_after_s,
    }
    report.checks = [
        _check(name, expected, measured[name])
        for name, expected in msgspec.structs.asdict(scenario.expect).items()
        if expected is not None
    ]
    report.without = without
    return report


def _check(name: str, expected: float, measured: float | None) -> Check:
    if measured is None:
        return Check(name, expected, None, passed=False)
    passed = measured >= expected if name in LEAST else measured <= expected
    return Check(name, expected, measured, passed)


def _verify(scenario: Scenario, samples: Sequence[Sample]) -> None:
    """Mark answers whose text is none that a healthy target, or the ladder, would give."""
    profiles = {Profile().changed(target.profile) for target in scenario.targets.values()}
    voices = {(profile.seed, profile.tokens) for profile in profiles}
    fixed = _fixed_texts(scenario)
    for sample in samples:
        if sample.complete and sample.text not in fixed:
            request = ChatRequest(model="m", messages=(Message("user", (Text(sample.prompt),)),))
            if not any(sample.text == "".join(text.answer(request, *voice)) for voice in voices):
                sample.error = "wrong"


def _fixed_texts(scenario: Scenario) -> frozenset[str]:
    routes = scenario.gateway.get("models", {}).values()
    return frozenset(rung["text"] for route in routes for rung in route.get("degrade", ()) if "text" in rung)


def _span(scenario: Scenario) -> tuple[float, float]:
    if not scenario.faults:
        return scenario.duration, scenario.duration
    return min(fault.at for fault in scenario.faults), max(fault.until for fault in scenario.faults)


def _phases(asked: Sequence[Sample], start: float, end: float) -> dict[str, Phase]:
    return {
        "before": _phase([sample for sample in asked if sample.at < start]),
        "during": _phase([sample for sample in asked if start <= sample.at < end]),
        "after": _phase([sample for sample in asked if sample.at >= end]),
    }


def _phase(samples: Sequence[Sample]) -> Phase:
    answered = [sample for sample in samples if sample.complete]
    times = _ttfts(answered)
    p50, p95, p99 = (_ms(quantile(times, q)) for q in (0.5, 0.95, 0.99))
    return Phase(len(samples), len(answered), p50, p95, p99)


def _targets(measured: Measured, down: Mapping[str, int]) -> dict[str, Calls]:
    return {
        name: Calls(state.requests, state.completed, state.failed, state.disconnected, down.get(name))
        for name, state in measured.states.items()
    }


def _ttfts(samples: Iterable[Sample]) -> list[float]:
    return [sample.first - sample.at for sample in samples if sample.stream and sample.first is not None]


def _added(samples: Iterable[Sample], start: float, settled: float, end: float) -> dict[str, float | None]:
    usual: dict[bool, float] = {}
    answered = [sample for sample in samples if sample.latency is not None]
    for stream in (True, False):
        times = [s.latency or 0.0 for s in answered if s.stream is stream and s.at < start]
        if times:
            usual[stream] = statistics.median(times)
    late = [s for s in answered if settled <= s.at < end and s.stream in usual]
    early = [s for s in answered if s.at < start and s.stream in usual]
    added: dict[str, float | None] = {}
    for name, q in (("p50", 0.5), ("p99", 0.99)):
        now = quantile([(s.latency or 0.0) - usual[s.stream] for s in late], q)
        then = quantile([(s.latency or 0.0) - usual[s.stream] for s in early], q)
        added[name] = None if now is None or then is None else _ms(now - then)
    return added


def _back(samples: Sequence[Sample], start: float, mended: Sequence[float]) -> float | None:
    """Return the seconds from the mending until the target that was preferred before answers again."""
    before = Counter(s.target for s in samples if s.at < start and s.target)
    if not before or not mended:
        return None
    preferred, since = before.most_common(1)[0][0], max(mended)
    later = sorted((s for s in samples if s.at >= since and s.complete), key=lambda s: s.at)
    for sample in later:
        if sample.target == preferred:
            window = [s for s in later if sample.at <= s.at < sample.at + 1]
            if sum(s.target == preferred for s in window) >= _PREFERRED_AGAIN * len(window):
                return round(sample.at - since, 2)
    return None


def _timeline(samples: Sequence[Sample], counts: Sequence[dict[str, int]]) -> list[Second]:
    seconds: dict[int, list[Sample]] = {}
    for sample in samples:
        seconds.setdefault(int(sample.at), []).append(sample)
    rows: list[Second] = []
    for at, due in sorted(seconds.items()):
        answered = [sample for sample in due if sample.complete]
        times = _ttfts(answered)
        rows.append(
            Second(
                at=at,
                requests=len(due),
                answered=len(answered),
                ttft_p50=_ms(quantile(times, 0.5)),
                ttft_p99=_ms(quantile(times, 0.99)),
                targets=dict(Counter(sample.target for sample in answered if sample.target)),
                calls=counts[at] if at < len(counts) else {},
            )
        )
    return rows


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)
