"""A plot of one run, written by hand as SVG: time to first token second by second, and the fault's span."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from benchmarks.resilience_row import Row
from firsttoken.bench import scenario
from firsttoken.bench.report import Second

PATH = Path(__file__).resolve().parent.parent / "docs" / "figures" / "region-hang.svg"
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 260, 56, 36, 28
_LINES = {"p99": "#c0392b", "p50": "#1f6fb2"}
_OPEN = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
    ' font-size="12" fill="#444">'
)
_DECADES = (10, 100, 1000, 10_000)


def write(row: Row | None) -> None:
    """Write the figure of a row, if that row was run."""
    if row is not None and row.timeline:
        PATH.parent.mkdir(exist_ok=True)
        PATH.write_text(svg(row.timeline), "utf-8")


def svg(timeline: list[Second]) -> str:
    """Return the plot; milliseconds on a logarithmic axis."""
    fault = scenario.read("region-hang").faults[0]
    seconds = timeline[-1].at + 1

    def x(at: float) -> float:
        return _LEFT + at / seconds * (_WIDTH - _LEFT - 12)

    def y(milliseconds: float) -> float:
        low, high = math.log10(_DECADES[0]), math.log10(_DECADES[-1])
        share = (math.log10(max(milliseconds, _DECADES[0])) - low) / (high - low)
        return _HEIGHT - _BOTTOM - min(share, 1.0) * (_HEIGHT - _BOTTOM - _TOP)

    parts = [
        _OPEN,
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        _span(x(fault.at), x(fault.until)),
        f'<text x="{x(fault.at) + 6:.1f}" y="{_TOP + 16}">the preferred region hangs</text>',
        *(_tick(y(value), f"{value} ms" if value < 1000 else f"{value // 1000} s") for value in _DECADES),
        *(
            f'<text x="{x(at):.1f}" y="{_HEIGHT - 16}" text-anchor="middle">{at} s</text>'
            for at in range(0, seconds, 10)
        ),
    ]
    for number, (name, colour) in enumerate(_LINES.items()):
        points = [(x(row.at + 0.5), y(value)) for row in timeline if (value := getattr(row, f"ttft_{name}"))]
        parts.append(_line(points, colour))
        parts.append(f'<text x="{_LEFT + 90 * number}" y="16" fill="{colour}">TTFT {name}</text>')
    parts.append(f'<text x="{_WIDTH - 12}" y="16" text-anchor="end">simulated upstream</text>')
    return "\n".join([*parts, "</svg>", ""])


def _span(start: float, end: float) -> str:
    height = _HEIGHT - _BOTTOM - _TOP
    return f'<rect x="{start:.1f}" y="{_TOP}" width="{end - start:.1f}" height="{height}" fill="#f6dcd8"/>'


def _tick(y: float, label: str) -> str:
    return (
        f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - 12}" stroke="#ddd"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _line(points: Iterable[tuple[float, float]], colour: str) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
