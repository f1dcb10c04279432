"""The result of a load test for a terminal, and its samples as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from firsttoken.bench.load import Sample
from firsttoken.bench.loadreport import QUANTILES, Distribution, LoadReport, is_good
from firsttoken.bench.loadtest_scenario import Slo

COLUMNS = (
    *("at", "sent", "first", "done", "status", "error", "complete", "good", "stream", "tenant", "repeated"),
    *("chunks", "tokens", "finish", "model", "target", "request_id"),
)


def rows(report: LoadReport) -> list[tuple[str, str]]:
    """Return what there is to say of a run, a name and a sentence each."""
    errors = ", ".join(f"{count} x {name}" for name, count in report.errors.items()) or "none"
    found = [
        (
            "requests",
            f"{report.requests} in {report.duration:g} s, {report.rate:g} a second (seed {report.seed})",
        ),
        ("answered", f"{report.answered}, availability {shown(report.availability)}"),
        ("errors", errors),
        ("good", f"{report.good}, {report.goodput:g} a second: {slo(report.slo)}"),
        ("tokens", f"{report.tokens}, {report.tokens_per_s:g} a second (counted by {report.tokens_counted})"),
    ]
    if report.disturbed:
        back = report.recovered_within_s
        said = "not as before until the end" if back is None else f"as before {back:g} s after it"
        found.append(
            ("recovery", f"disturbed from {report.disturbed[0]:g} to {report.disturbed[1]:g} s; {said}")
        )
    return found


def distributions(report: LoadReport) -> list[tuple[str, Distribution]]:
    """Return the distributions of a run, with their names."""
    named = [
        ("TTFT", report.ttft_ms),
        ("E2E", report.e2e_ms),
        ("time per token", report.tpot_ms),
        ("sent late", report.sent_late_ms),
        *((f"E2E, {name}", part) for name, part in report.parts.items()),
    ]
    return [(name, found) for name, found in named if found.count]


def cells(found: Distribution) -> list[str]:
    """Return count, mean, percentiles and largest of a distribution."""
    values = (found.mean, *(getattr(found, name) for name in QUANTILES), found.largest)
    return [str(found.count), *("-" if value is None else f"{value:.1f}" for value in values)]


HEAD = ("ms", "count", "mean", "P50", "P90", "P95", "P99", "P99.9", "max")


def slo(wanted: Slo) -> str:
    """Return an SLO in words."""
    parts = [("TTFT", wanted.ttft_ms), ("E2E", wanted.e2e_ms)]
    return " and ".join(f"{name} <= {ms:g} ms" for name, ms in parts if ms is not None) or "no SLO is set"


def shown(value: float | None) -> str:
    """Return a number with at most four digits behind the point."""
    return "not measured" if value is None else f"{value:.4f}".rstrip("0").rstrip(".")


def title(report: LoadReport) -> str:
    """Return what ran and against what."""
    return f"{report.scenario} ({'simulated upstream' if report.simulated else report.url})"


def render(report: LoadReport) -> str:
    """Return the text of a report."""
    found = [(name, *cells(one)) for name, one in distributions(report)]
    widths = [max(map(len, column)) for column in zip(HEAD, *found, strict=True)]
    lines = [title(report), *(f"  {name:<8}  {said}" for name, said in rows(report)), ""]
    for first, *rest in (HEAD, *found):
        numbers = "  ".join(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        lines.append(f"  {first:<{widths[0]}}  {numbers}")
    lines += [f"  WARNING  {warning}" for warning in report.warnings]
    lines += [
        f"  {'PASS' if check.passed else 'FAIL'}  {check.name.replace('_', ' ')}"
        f" (expected {shown(check.expected)}): {shown(check.measured)}"
        for check in report.checks
    ]
    return "\n".join(lines)


def write_csv(path: Path, samples: Iterable[Sample], wanted: Slo) -> None:
    """Write a line a request; times are seconds since the load began, empty where nothing came."""
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        for sample in samples:
            said = {"good": is_good(sample, wanted)}
            lines.writerow([_cell(said.get(name, getattr(sample, name, ""))) for name in COLUMNS])


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return f"{value:.6f}"
    # A spreadsheet takes a text that begins like this for a formula, and servers choose these texts.
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
