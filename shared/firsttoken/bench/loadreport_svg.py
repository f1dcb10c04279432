"""Line plots as SVG text: axes with round ticks, a legend, bands; colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from msgspec import Struct

WIDTH, HEIGHT = 760, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 44
_TICKS = 5
MAX_POINTS = 1000


class Line(Struct, frozen=True):
    """One line: a name, its points, and the colour's number; None ends a piece of it."""

    name: str
    points: Sequence[tuple[float, float | None]]
    colour: int


class Plot(Struct, frozen=True, kw_only=True):
    """A plot. ``bands`` are shaded from one x to another."""

    x: str
    y: str
    lines: Sequence[Line]
    log_x: bool = False
    bands: Sequence[tuple[float, float]] = ()
    top: float | None = None
    """The largest y; None takes it from the lines."""


def svg(plot: Plot, label: str) -> str:
    """Return the plot as an ``<svg>`` element; ``label`` says what it shows to those who cannot see it."""
    scale = _Scale(plot)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
        *(_band(scale, low, high) for low, high in plot.bands),
        *_axes(plot, scale),
        *(piece for line in plot.lines for piece in _pieces(line, scale)),
        "</svg>",
        '<p class="legend">',
        *(f'<span class="c{line.colour}">{escape(line.name)}</span>' for line in plot.lines),
        '<span class="band">disturbed</span>' if plot.bands else "",
        "</p>",
    ]
    return "".join(parts)


class _Scale:
    """Where values lie on the plot."""

    def __init__(self, plot: Plot) -> None:
        xs = [x for line in plot.lines for x, y in line.points if y is not None]
        ys = [y for line in plot.lines for _, y in line.points if y is not None]
        self.log = plot.log_x
        self.low, self.high = (min(xs), max(xs)) if xs else (0.0, 1.0)
        if self.log:
            self.low = max(self.low, 0.01)
            self.high = max(self.high, self.low * 1.1)
        elif self.high <= self.low:
            self.high = self.low + 1
        self.top = plot.top or max(ys, default=1.0) * 1.05 or 1.0

    def x(self, value: float) -> float:
        """Return the place of a value from the left."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        """Return the place of a value from the top."""
        return round(HEIGHT - _BOTTOM - min(value / self.top, 1) * (HEIGHT - _TOP - _BOTTOM), 1)


def ticks(low: float, high: float) -> list[float]:
    """Return about five round values from ``low`` to ``high``."""
    step = 10 ** math.floor(math.log10((high - low) / _TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= _TICKS)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten from ``low`` to ``high``; of many the powers alone."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 4 else (1,)
    values = [factor * 10.0**decade for decade in decades for factor in factors]
    return [value for value in values if low <= value <= high]


def _axes(plot: Plot, scale: _Scale) -> list[str]:
    bottom = HEIGHT - _BOTTOM
    parts = []
    for value in ticks(0, scale.top):
        y = scale.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    along = log_ticks if scale.log else ticks
    for value in along(scale.low, scale.high):
        x = scale.x(value)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 19}" text-anchor="middle">{value:g}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(plot.x)}</text>')
    turn = (_TOP + bottom) / 2
    parts.append(
        f'<text x="14" y="{turn}" transform="rotate(-90 14 {turn})" text-anchor="middle">'
        f"{escape(plot.y)}</text>"
    )
    return parts


def _band(scale: _Scale, low: float, high: float) -> str:
    left, right = scale.x(low), scale.x(high)
    return (
        f'<rect class="band" x="{left}" y="{_TOP}" width="{max(right - left, 1):.1f}"'
        f' height="{HEIGHT - _TOP - _BOTTOM}"/>'
    )


def _pieces(line: Line, scale: _Scale) -> list[str]:
    pieces: list[list[str]] = [[]]
    for x, y in line.points:
        if y is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{scale.x(x)},{scale.y(y)}")
    alone = [piece[0].split(",") for piece in pieces if len(piece) == 1]
    return [
        *(
            f'<polyline class="c{line.colour}" points="{" ".join(piece)}"/>'
            for piece in pieces
            if len(piece) > 1
        ),
        *(f'<circle class="c{line.colour}" cx="{x}" cy="{y}" r="2"/>' for x, y in alone),
    ]
