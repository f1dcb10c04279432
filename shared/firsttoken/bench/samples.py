"""Samples of a run in a file: what was measured, value by value, with the command and the machine.

Averages cannot be compared later with any confidence, so a baseline keeps every value. The file is JSON
(`Samples`), small enough to commit, and its values stand in the order of time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from firsttoken.errors import ConfigError

MAX_FILE = 64 * 1024 * 1024
MAX_VALUES = 200_000
"""Of one series: more do not change a verdict, and a comparison holds a few copies of them."""
_SMALLEST, _LARGEST = 1e-12, 1e15
"""Ratios are compared, so 0 has none; within these, none is beyond what a float holds."""
_NAME = re.compile(r"[a-zA-Z0-9][\w.-]{0,99}")

Better = Literal["lower", "higher"]


class Series(Struct, frozen=True):
    """The values of one metric in the order of time; ``better`` says which way is an improvement."""

    values: tuple[float, ...]
    unit: str = "ms"
    better: Better = "lower"


class Samples(Struct, frozen=True):
    """What one run, or several, measured. ``date`` is ISO 8601, of the measurement."""

    name: str
    series: dict[str, Series]
    command: str = ""
    machine: str = ""
    date: str = ""

    def checked(self) -> Samples:
        """Return the samples themselves. Raises ConfigError for values that cannot be compared."""
        for metric, series in self.series.items():
            if len(series.values) > MAX_VALUES:
                raise ConfigError(f"{self.name}: {metric}: expected at most {MAX_VALUES} values")
            wrong = [value for value in series.values if not _SMALLEST <= value <= _LARGEST]
            if wrong:
                said = f"expected numbers from {_SMALLEST:g} to {_LARGEST:g}, got {wrong[0]:g}"
                raise ConfigError(f"{self.name}: {metric}: {said}")
        return self


def decode(data: bytes, name: str) -> Samples:
    """Read a samples file; ``name`` is what messages call it. Raises ConfigError."""
    try:
        return msgspec.json.decode(data, type=Samples).checked()
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{name}: expected a file of firsttoken bench save: {error}") from error


def encode(samples: Samples) -> bytes:
    """Return the file of ``samples``: a line for each thing said, and one for all values of a series.

    A line a value would make a change of a baseline unreadable in a review.
    """
    head = {field: getattr(samples, field) for field in ("name", "command", "machine", "date")}
    lines = [f'  "{field}": {_json(value)},' for field, value in head.items()]
    series = ",\n".join(f"    {_json(metric)}: {_json(one)}" for metric, one in samples.series.items())
    return "\n".join(["{", *lines, '  "series": {', series, "  }", "}", ""]).encode()


def contents(path: Path) -> bytes:
    """Return what is in a file of at most 64 MiB. Raises ConfigError where it cannot be read."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise ConfigError(f"{path}: expected at most {MAX_FILE} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def location(name: str, folder: Path) -> Path:
    """Return the file in ``folder`` that a baseline's name stands for. Raises ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r}: expected a name of letters, digits, '.', '_' and '-'")
    return folder / f"{name}.json"


def joined(parts: list[Samples], name: str) -> Samples:
    """Return one set of samples out of several runs, in their order.

    Raises ConfigError where a metric has two units, or is better in two ways.
    """
    series: dict[str, Series] = {}
    for part in parts:
        for metric, more in part.series.items():
            known = series.get(metric, Series((), more.unit, more.better))
            if (known.unit, known.better) != (more.unit, more.better):
                raise ConfigError(f"{metric}: expected one unit and direction, got {known.unit}, {more.unit}")
            series[metric] = Series((*known.values, *more.values), more.unit, more.better)
    return Samples(
        name,
        series,
        command=_same([part.command for part in parts]),
        machine=_same([part.machine for part in parts]),
        date=max((part.date for part in parts), default=""),
    ).checked()


def _same(said: list[str]) -> str:
    return "; ".join(dict.fromkeys(one for one in said if one))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
