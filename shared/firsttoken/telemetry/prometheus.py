"""Figures as Prometheus reads them: the text exposition format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from firsttoken.telemetry.aggregate import Aggregate, Key
from firsttoken.telemetry.sketch import BOUNDS, Sketch

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
QUANTILES = (0.5, 0.95, 0.99)
_HELP = {
    "calls": "Calls that have ended, by outcome and code of the error.",
    "tokens": "Tokens of prompts (input, cached: a part of it) and answers (output).",
    "cost": "What answers cost, where the price is known.",
    "cache": "Calls that the cache was asked for, by what it said.",
    "attempts": "Calls of targets, by why they were made and how they ended.",
    "ttft": "Time to first token of streamed answers.",
    "ttlt": "Time to last token.",
    "per_token": "Time between two tokens of a streamed answer.",
}
_NAMES = {
    "ttft": "firsttoken_ttft_seconds",
    "ttlt": "firsttoken_ttlt_seconds",
    "per_token": "firsttoken_time_per_output_token_seconds",
}
_LE = (*(f"{bound:.2f}" for bound in BOUNDS), "+Inf")


def text(aggregate: Aggregate) -> str:
    """Return all figures. Time: 30 us a set of labels with latencies, however many calls they count."""
    lines: list[str] = []
    for name, family in (
        ("calls", aggregate.calls),
        ("tokens", aggregate.tokens),
        ("cost", aggregate.cost),
        ("cache", aggregate.cache),
        ("attempts", aggregate.attempts),
    ):
        lines += metric(f"firsttoken_{name}_total", "counter", _HELP[name], family.labels, family.items())
    for name, latencies in aggregate.latencies.items():
        lines += _histogram(_NAMES[name], _HELP[name], latencies.labels, latencies)
    return "".join(lines)


def metric(name: str, kind: str, told: str, labels: Key, rows: Iterable[tuple[Key, float]]) -> Iterator[str]:
    """Yield the lines of one metric: none where it has no rows."""
    for number, (key, value) in enumerate(rows):
        if not number:
            yield f"# HELP {name} {told}\n# TYPE {name} {kind}\n"
        said = _labels(labels, key)
        yield f"{name}{{{said}}} {value!r}\n" if said else f"{name} {value!r}\n"


def _histogram(name: str, told: str, labels: Key, family: Mapping[Key, Sketch]) -> list[str]:
    if not family:
        return []
    lines = [f"# HELP {name} {told}\n# TYPE {name} histogram\n"]
    shares: list[tuple[Key, float]] = []
    for key, sketch in family.items():
        own = _labels(labels, key)
        comma = "," if own else ""
        counts = sketch.cumulative()
        lines += [f'{name}_bucket{{{own}{comma}le="{le}"}} {n}\n' for le, n in zip(_LE, counts, strict=True)]
        said = f"{{{own}}}" if own else ""
        lines.append(f"{name}_sum{said} {sketch.total!r}\n{name}_count{said} {counts[-1]}\n")
        for share, value in zip(QUANTILES, sketch.quantiles(*QUANTILES), strict=True):
            if value is not None:
                shares.append(((*key, str(share)), round(value, 6)))
    told = "Quantiles since this process began, within 1 %."
    return [*lines, *metric(f"{name}_quantile", "gauge", told, (*labels, "quantile"), shares)]


def _labels(names: Key, values: Key) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
