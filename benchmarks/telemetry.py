"""What it costs to tell of a call: CPU time of the process, an exporter at a time, medians of rounds.

The records are made up. The line of the log is written to /dev/null; Powertools' `Metrics` with the same
figures and OpenTelemetry's SDK stand beside ours. A scrape is measured after a million recorded calls.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from firsttoken.app import App
from firsttoken.gateway import Gateway
from firsttoken.settings import Auth, OpenAIProvider, Route, Settings, Target, Telemetry
from firsttoken.telemetry import prometheus
from firsttoken.telemetry.aggregate import Aggregate
from firsttoken.telemetry.exporters import Exporters
from firsttoken.telemetry.figures import Labels
from firsttoken.telemetry.lines import Emf
from firsttoken.telemetry.record import Attempt, Record
from firsttoken.telemetry.sketch import Sketch

CALLS = 5_000
ROUNDS = 7
MILLION = 1_000_000
INSTANCES = 100
BARS = {"recorder_and_emf_us": 40, "scrape_ms": 50, "merged_p99_off": 0.01}
_MODELS = [f"model-{n}" for n in range(10)]
_TARGETS = [f"openai/gpt-{n}" for n in range(10)]


def _settings(**telemetry: Any) -> Settings:
    return Settings(
        auth=Auth(mode="off"),
        providers={"openai": OpenAIProvider(base_url="http://127.0.0.1:9/v1")},
        targets={target: Target(price=1.0) for target in _TARGETS},
        models={name: Route(target=target) for name, target in zip(_MODELS, _TARGETS, strict=True)},
        telemetry=Telemetry(**telemetry),
    )


def _record(rng: Random) -> Record:
    model, target = rng.choice(_MODELS), rng.choice(_TARGETS)
    ttft = rng.lognormvariate(-1, 0.5)
    end = 1000 + ttft + rng.lognormvariate(0.5, 0.5)
    attempt = Attempt(target, 1000.001, 1000 + ttft, end, "ok", input_tokens=800, output_tokens=200)
    return Record(
        *("req_0123456789abcdef01234567", "acme", model, target, True, 200),
        started=1000.0,
        first_chunk=1000 + ttft,
        finished=end,
        input_tokens=800,
        output_tokens=200,
        cached_tokens=300,
        cache="miss",
        attempts=[attempt],
    )


def _each(work: Callable[[Record], object], records: list[Record]) -> float:
    """Return the microseconds of CPU that one record takes, the median of rounds."""
    rounds = []
    for _ in range(ROUNDS + 1):
        begin = time.process_time()
        for record in records:
            work(record)
        rounds.append((time.process_time() - begin) / len(records) * 1e6)
    return round(statistics.median(rounds[1:]), 2)


def _app(**telemetry: Any) -> Exporters:
    return App(Gateway(_settings(**telemetry)), deployed=True)._telemetry  # noqa: SLF001


def _exporters(records: list[Record]) -> dict[str, float]:
    """Return what each way to tell of a call costs, what it costs to work out the figures included."""
    found = {}
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        out, err = sys.stdout, sys.stderr
        for name, telemetry in (
            ("JSON line", {"log": "json"}),
            ("EMF line", {"log": "emf"}),
            ("metrics for Prometheus", {"log": "off", "metrics": "on"}),
            ("EMF line and metrics for Prometheus", {"log": "emf", "metrics": "on"}),
        ):
            exporters = _app(**telemetry)
            sys.stdout = sys.stderr = nowhere
            try:
                found[name] = _each(exporters, records)
            finally:
                sys.stdout, sys.stderr = out, err
    labels = Labels(_MODELS, 200)
    emf, pairs = Emf("firsttoken", ("model", "target")), {}
    for record in records:
        pairs[id(record)] = labels.figures(record)
    found["EMF line, made and not written"] = _each(lambda r: emf.line(r, pairs[id(r)]), records)
    return found


def _peers(records: list[Record]) -> dict[str, float]:
    from aws_lambda_powertools.metrics import MetricUnit
    from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from firsttoken.telemetry.otel import Otel

    labels = Labels(_MODELS, 200)
    figures = {id(record): labels.figures(record) for record in records}
    emf = Emf("firsttoken", ("model", "target"))
    values = json.loads(emf.line(records[0], figures[id(records[0])]))
    units = {m["Name"]: m["Unit"] for m in values["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    provider = AmazonCloudWatchEMFProvider(namespace="firsttoken")

    def powertools(_: Record) -> None:
        provider.add_dimension("Model", values["Model"])
        provider.add_dimension("Target", values["Target"])
        for name, unit in units.items():
            provider.add_metric(name, MetricUnit(unit), values[name])
        provider.serialize_metric_set()
        provider.clear_metrics()

    otel = Otel(_settings(), labels, InMemorySpanExporter(), InMemoryMetricReader())

    async def traced() -> float:
        return _each(lambda r: otel(r, figures[id(r)]), records[:1000])

    found = {
        "Powertools Metrics, made and not written": _each(powertools, records[:1000]),
        "OpenTelemetry, a span and its metrics": asyncio.run(traced()),
    }
    otel.close()
    return found


def _scrape(records: list[Record]) -> dict[str, float]:
    """Return what a scrape takes once a million calls of a hundred sets of labels are recorded."""
    labels = Labels(_MODELS, 200)
    pairs = [(record, labels.figures(record)) for record in records]
    tracemalloc.start()
    aggregate = Aggregate(("model", "target"), 200)
    for record, figures in pairs:
        aggregate.add(record, figures)
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    for _ in range(MILLION // len(pairs) - 1):
        for record, figures in pairs:
            aggregate.add(record, figures)
    assert sum(aggregate.calls.values()) == MILLION
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        body = prometheus.text(aggregate)
        times.append((time.process_time() - begin) * 1000)
    return {
        "scrape_ms": round(statistics.median(times), 1),
        "scrape_kb": round(len(body) / 1000),
        "sets_of_labels": len(aggregate.latencies["ttft"]),
        "memory_mb": round(memory / 1e6, 2),
    }


def _merged(rng: Random) -> float:
    """Return how far the P99 of a hundred merged instances is off, as a share of it."""
    whole, values = Sketch(), []
    for _ in range(INSTANCES):
        own, middle = Sketch(), rng.uniform(-2, 1)
        for _ in range(1000):
            values.append(rng.lognormvariate(middle, 0.7))
            own.add(values[-1])
        whole.merge(own)
    exact = sorted(values)[math.ceil(0.99 * len(values)) - 1]
    (found,) = whole.quantiles(0.99)
    assert found is not None
    return round(abs(found / exact - 1), 4)


def run() -> dict[str, Any]:
    """Measure, and stop where a bar is not reached."""
    rng = Random(1)  # noqa: S311 - made-up records
    records = [_record(rng) for _ in range(CALLS)]
    exporters = _exporters(records)
    scrape, off = _scrape(records), _merged(rng)
    assert exporters["EMF line"] <= BARS["recorder_and_emf_us"], exporters
    assert scrape["scrape_ms"] < BARS["scrape_ms"], scrape
    assert off <= BARS["merged_p99_off"], off
    return {
        "upstream": "none is called, not even a simulated upstream: the records are made up",
        "us_per_call": {**exporters, **_peers(records)},
        **scrape,
        "merged_p99_off": off,
        "bars": BARS,
        "calls": CALLS,
        "rounds_each": ROUNDS,
    }
