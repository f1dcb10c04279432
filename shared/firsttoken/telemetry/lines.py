"""One line of JSON a call: on stderr as it is, or on stdout with CloudWatch's metrics in it.

The metrics are in CloudWatch's embedded metric format (EMF), whose specification is
docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html.
It is made at once of what is known of a call; Powertools' `Metrics`, which collects, takes five times as
long.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import msgspec

from firsttoken.telemetry.figures import Figures
from firsttoken.telemetry.record import Record

UNITS = {
    "Calls": "Count",
    "Errors": "Count",
    "ClientErrors": "Count",
    "Attempts": "Count",
    "TTFT": "Milliseconds",
    "TTLT": "Milliseconds",
    "InputTokens": "Count",
    "OutputTokens": "Count",
    "CachedTokens": "Count",
    "Cost": "None",
    "CacheHits": "Count",
}
"""The metrics and their units; a call has those that apply to it."""
_LONGEST = 200

_encode = msgspec.json.Encoder().encode


def row_of(record: Record) -> dict[str, Any]:
    """Return the row of a call: times and counts, never text; what a client chose is cut short."""
    row = record.summary()
    if len(record.model) > _LONGEST:
        row["model"] = record.model[:_LONGEST]
    return row


def write_json(record: Record, _figures: Figures) -> None:
    """Write a call's row to stderr."""
    with suppress(OSError):  # nobody reads it any more: that must not harm the call
        sys.stderr.write(_encode(row_of(record)).decode() + "\n")


class Emf:
    """Writes a call's row and its metrics to stdout, each metric as a whole and for each set of dimensions.

    Memory: one directive for each combination of metrics that occurs, fewer than a hundred.
    """

    def __init__(
        self, namespace: str, dimensions: Iterable[str], wall: Callable[[], float] = time.time
    ) -> None:
        self._namespace = namespace
        self._dimensions = [name for name in ("model", "target", "tenant") if name in set(dimensions)]
        self._wall = wall
        self._directives: dict[tuple[str, ...], msgspec.Raw] = {}

    def __call__(self, record: Record, figures: Figures) -> None:
        """Write the line of one call."""
        with suppress(OSError):
            sys.stdout.write(self.line(record, figures).decode() + "\n")
            sys.stdout.flush()  # a pipe is buffered, and a function may be frozen now

    def line(self, record: Record, figures: Figures) -> bytes:
        """Return the line of one call, without its end."""
        values = _values(record, figures)
        names = tuple(values)
        directive = self._directives.get(names)
        if directive is None:
            directive = self._directives[names] = msgspec.Raw(self._directive(names))
        document: dict[str, Any] = {
            "_aws": {"Timestamp": int(self._wall() * 1000), "CloudWatchMetrics": directive}
        }
        for name in self._dimensions:
            document[name.capitalize()] = _visible(getattr(figures, name))
        return _encode({**row_of(record), **document, **values})

    def _directive(self, names: tuple[str, ...]) -> bytes:
        own = [name.capitalize() for name in self._dimensions]
        metrics = [{"Name": name, "Unit": UNITS[name]} for name in names]
        sets = [[], own] if own else [[]]
        return _encode([{"Namespace": self._namespace, "Dimensions": sets, "Metrics": metrics}])


def _values(record: Record, figures: Figures) -> dict[str, float]:
    values: dict[str, float] = {
        "Calls": 1,
        "Errors": int(figures.outcome == "error"),
        "ClientErrors": int(figures.outcome == "client_error"),
        "Attempts": figures.attempts,
    }
    if figures.ttft is not None:
        values["TTFT"] = round(figures.ttft * 1000, 2)
    if figures.ttlt is not None:
        values["TTLT"] = round(figures.ttlt * 1000, 2)
    if record.input_tokens is not None:
        values["InputTokens"] = record.input_tokens
    if record.output_tokens is not None:
        values["OutputTokens"] = record.output_tokens
    if record.cached_tokens is not None:
        values["CachedTokens"] = record.cached_tokens
    if record.cost is not None:
        values["Cost"] = record.cost
    if record.cache:
        values["CacheHits"] = int(figures.hit)
    return values


def _visible(name: str) -> str:
    """Return a name as CloudWatch takes it: printable ASCII that does not begin with a colon."""
    if not name.isascii() or not name.isprintable():
        name = "".join(c if " " <= c <= "~" else "?" for c in name)
    return f"_{name}" if name.startswith(":") or not name.strip() else name
