"""Samples from what other commands write: loads, chaos reports, the gateway's log, plain lists of numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

import msgspec
from msgspec import Struct

from firsttoken.bench import samples
from firsttoken.bench.load import Sample
from firsttoken.bench.report import Report
from firsttoken.bench.samples import Samples, Series
from firsttoken.errors import ConfigError

_EXPECTED = (
    "samples, a report of chaos --json, requests of load --csv, a log of the gateway or lists of numbers"
)
_COLUMNS = ("at", "first", "done", "stream", "complete")


class _Line(Struct):
    """What is compared of a line of the gateway's log, see `firsttoken.telemetry.record`."""

    request_id: str
    status: int | None = None
    error: str | None = None
    disconnected: bool = False
    ttft_ms: float | None = None
    ttlt_ms: float | None = None


def read(data: bytes, name: str) -> Samples:
    """Return the samples in a file, whichever of the known kinds it is. Raises ConfigError.

    Known are samples files, chaos reports, requests of a load as CSV, logs of the gateway and JSON objects
    ``{"metric": [numbers]}`` (taken as milliseconds). A file is read into memory, a few times its size.
    """
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError:
        head = data.partition(b"\n")[0].decode(errors="replace").strip().split(",")
        return _of_csv(data, name) if set(_COLUMNS) <= set(head) else _of_log(data, name)
    if not isinstance(found, dict):
        raise ConfigError(f"{name}: expected {_EXPECTED}")
    if "series" in found:
        return samples.decode(data, name)
    if "timeline" in found:
        return _of_chaos(data, name)
    if "request_id" in found:
        return _of_log(data, name)
    return _of_lists(found, name)


def of_report(report: Report) -> Samples:
    """Return the samples of a chaos run: the median time to first token of each second in which some came.

    A report keeps no single requests, so there are as many values as seconds, and no 99th percentile of
    them says anything about requests; `of_load` and the gateway's log have every request.
    """
    medians = tuple(second.ttft_p50 for second in report.timeline if second.ttft_p50)
    command = f"firsttoken chaos {report.scenario} --seed {report.seed}"
    return _named(report.scenario, {"ttft_p50_of_a_second": Series(medians)}, command)


def of_load(name: str, ended: Sequence[Sample]) -> Samples:
    """Return the samples of a load, in the order in which requests were due.

    Answers that failed are left out: a comparison is of latencies, not of availability. ``ttft`` is of
    streamed answers and ``total`` of all, both in milliseconds from when they were due.
    """
    times = [(s.at, s.first, s.done, s.stream) for s in ended if s.complete]
    return _of_times(name, times)


def _of_times(name: str, times: Iterable[tuple[float, float | None, float | None, bool]]) -> Samples:
    """Return the samples of answers, told by when they were due, began and ended (s), and were streamed."""
    whole = sorted(times, key=itemgetter(0))
    first = [(first - at) * 1000 for at, first, _, stream in whole if stream and first is not None]
    total = [(done - at) * 1000 for at, _, done, _ in whole if done is not None]
    return _named(name, {"ttft": Series(_rounded(first)), "total": Series(_rounded(total))}, "")


def _of_csv(data: bytes, name: str) -> Samples:
    """Return the samples of a load's requests, a line each, with the columns of ``_COLUMNS`` among others."""
    times: list[tuple[float, float | None, float | None, bool]] = []
    try:
        for row in csv.DictReader(io.StringIO(data.decode(), newline="")):
            at, first, done, stream, complete = (row[column] or "" for column in _COLUMNS)
            if complete == "1":
                times.append((float(at), _seconds(first), _seconds(done), stream == "1"))
    except (UnicodeDecodeError, ValueError, csv.Error) as error:
        raise ConfigError(f"{name}: expected a line a request: {error}") from error
    return _of_times(name, times)


def _seconds(cell: str) -> float | None:
    return float(cell) if cell else None


def _of_chaos(data: bytes, name: str) -> Samples:
    try:
        return of_report(msgspec.json.decode(data, type=Report))
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: expected a report of firsttoken chaos --json: {error}") from error


def _of_log(data: bytes, name: str) -> Samples:
    """Lines that are no calls (tracebacks, warnings) and calls that failed are left out."""
    first: list[float] = []
    total: list[float] = []
    calls = 0
    for text in data.splitlines():
        try:
            line = msgspec.json.decode(text, type=_Line)
        except msgspec.DecodeError:
            continue
        calls += 1
        if line.status == 200 and not line.error and not line.disconnected:
            first += [line.ttft_ms] if line.ttft_ms else []
            total += [line.ttlt_ms] if line.ttlt_ms else []
    if not calls:
        raise ConfigError(f"{name}: expected {_EXPECTED}")
    return _named(name, {"ttft": Series(tuple(first)), "total": Series(tuple(total))}, "")


def _of_lists(found: dict[str, Any], name: str) -> Samples:
    try:
        lists = msgspec.convert(found, dict[str, tuple[float, ...]])
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: expected {_EXPECTED}: {error}") from error
    return _named(name, {metric: Series(values) for metric, values in lists.items()}, "")


def _named(name: str, series: dict[str, Series], command: str) -> Samples:
    some = {metric: one for metric, one in series.items() if one.values}
    if not some:
        raise ConfigError(f"{name}: expected at least one value, got none")
    return Samples(name, some, command=command).checked()


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, 3) for value in values)
