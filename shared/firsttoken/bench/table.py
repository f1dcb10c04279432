"""A report for a terminal: one table of what happened and one line for each expectation."""

from __future__ import annotations

from collections.abc import Iterable

from firsttoken.bench.report import Report


def render(report: Report) -> str:
    """Return the text of a report."""
    lines: list[str] = []
    if report.without is not None:
        lines += [*_figures(report.without), ""]
    lines += _figures(report)
    lines += [
        f"  {'PASS' if c.passed else 'FAIL'}  {_expectation(c.name, c.expected)}: {_show(c.measured)}"
        for c in report.checks
    ]
    return "\n".join(lines)


def _figures(report: Report) -> list[str]:
    errors = ", ".join(f"{count} x {name}" for name, count in sorted(report.errors.items())) or "none"
    rows: list[tuple[str, str]] = [
        ("requests", f"{report.requests} in {report.seconds:g} s (seed {report.seed}), {report.left} left"),
        ("answered", f"{report.answered}, availability {_show(report.availability)}"),
        ("errors", errors),
    ]
    for name, phase in report.phases.items():
        if phase.requests:
            times = " / ".join(_show(value) for value in (phase.ttft_p50, phase.ttft_p95, phase.ttft_p99))
            rows.append((name, f"{phase.answered} of {phase.requests} answered; TTFT p50/p95/p99 {times} ms"))
    if report.added["p99"] is not None:
        rows.append(("added", f"p50 {_show(report.added['p50'])} ms, p99 {_show(report.added['p99'])} ms"))
    for name, calls in report.targets.items():
        down = "" if calls.while_down is None else f"; {calls.while_down} called while broken"
        said = (
            f"{calls.requests} calls: {calls.completed} ended well, {calls.failed} failed, {calls.left} left"
        )
        rows.append((f"to {name}", said + down))
    rows.append(("upstream", _upstream(report)))
    if report.back_within_s is not None:
        rows.append(("back", f"on the preferred target {report.back_within_s:g} s after recovery"))
    if report.idle_after_s is not None:
        rows.append(("idle", f"no target works {report.idle_after_s:.2f} s after the last client is gone"))
    return [f"{report.scenario} (simulated upstream)", *_aligned(rows)]


def _upstream(report: Report) -> str:
    parts = [f"{report.upstream_calls} calls, {_show(report.amplification)} a request"]
    parts += [
        f"{count} {what}"
        for what, count in (
            ("hedges", report.hedges),
            ("resumed", report.resumed),
            ("fixed texts", report.rungs),
        )
        if count
    ]
    return ", ".join(parts)


def _aligned(rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {said}" for name, said in rows]


def _expectation(name: str, expected: float) -> str:
    return f"{name.replace('_', ' ')} (expected {_show(expected)})"


def _show(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}".rstrip("0").rstrip(".")
