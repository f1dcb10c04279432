"""OpenTelemetry: spans and measurements by the conventions for GenAI, in memory and over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from support import ask, chat, make_app, simulate
from telemetry.records import attempt, labels, record, settings

from firsttoken.settings import Auth, Server, Telemetry
from firsttoken.telemetry.otel import PROVIDERS, Otel
from firsttoken.telemetry.record import Record

NAMES: dict[str, Any] = tomllib.loads((Path(__file__).parent / "genai_names.toml").read_text("utf-8"))
TRACE, SPAN, OURS = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


def exported(*calls: Record) -> tuple[list[Any], dict[str, Any]]:
    """Return the spans and the metrics of these calls."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    otel = Otel(settings(), labels(), spans, reader)

    async def export() -> None:
        loop = asyncio.get_running_loop()
        for call in calls:
            shift = loop.time() - (call.finished or 0.0)  # each has ended just now
            call.started += shift
            call.finished = loop.time()
            call.first_chunk = None if call.first_chunk is None else call.first_chunk + shift
            for one in call.attempts:
                one.started += shift
                one.finished = None if one.finished is None else one.finished + shift
                one.first_chunk = None if one.first_chunk is None else one.first_chunk + shift
            otel(call, labels().figures(call))

    asyncio.run(export())
    otel.flush()
    data = reader.get_metrics_data()
    otel.close()
    metrics = {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
    return list(spans.get_finished_spans()), metrics


def failed_over() -> Record:
    broken = attempt(target="simulated/m", outcome="upstream_timeout", first_chunk=None, input_tokens=0)
    broken.output_tokens, broken.finished = 0, 100.05
    return record(
        trace=f"00-{TRACE}-{OURS}-01", parent=SPAN, attempts=[broken, attempt(kind="failover")], cost=0.01
    )


def test_the_span_of_a_call() -> None:
    """It belongs to the client's trace, under the id that was told, with the call's own times."""
    (span,), _ = exported(failed_over())
    assert span.name == "chat gpt-4o-mini"
    assert span.kind is SpanKind.CLIENT
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.context.span_id:016x}" == OURS
    assert f"{span.parent.span_id:016x}" == SPAN
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(1.2, abs=1e-3)
    assert span.attributes["gen_ai.provider.name"] == "openai"
    assert span.attributes["gen_ai.usage.input_tokens"] == 1000
    assert span.attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.2)


def test_attempts_are_events_of_the_span() -> None:
    """One each, in order, when it began."""
    (span,), _ = exported(failed_over())
    told = [
        (e.attributes["firsttoken.attempt.kind"], e.attributes["firsttoken.attempt.outcome"])
        for e in span.events
    ]
    assert told == [("first", "upstream_timeout"), ("failover", "ok")]
    assert (span.events[0].timestamp - span.start_time) / 1e9 == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize(
    "call",
    [
        failed_over(),
        record(error="upstream_timeout", status=504, cached_tokens=5, cache="miss"),
        record(model="made-up", target="openai/*", rung="small"),
        record(stream=False, attempts=[attempt(target="simulated/m")], target="simulated/m"),
        record(error="model_not_found", status=404, target="", attempts=[], first_chunk=None),
    ],
)
def test_names_are_those_of_the_conventions(call: Record) -> None:
    """Every attribute and metric is on the committed list, or has our own prefix."""
    (span,), metrics = exported(call)
    own = {name for name in span.attributes if name.startswith("firsttoken.")}
    assert set(span.attributes) - own <= {*NAMES["span"], *NAMES["general"]}
    assert set(NAMES["required"]) <= set(span.attributes)
    assert span.attributes["gen_ai.operation.name"] in NAMES["operations"]
    for name, metric in metrics.items():
        if name.startswith("firsttoken."):
            continue
        assert metric.unit == NAMES["metrics"][name]
        for point in metric.data.data_points:
            assert set(NAMES["required"]) <= set(point.attributes) <= set(NAMES["measurement"])
            assert list(point.explicit_bounds) == NAMES["bounds"][metric.unit]


def test_providers_are_those_of_the_conventions() -> None:
    """Kinds of providers that the conventions have a name for are called by it."""
    assert set(PROVIDERS.values()) <= set(NAMES["providers"])


def test_attempts_are_measured_each() -> None:
    """A failed one with its error, an answer with its first chunk and tokens of each kind."""
    _, metrics = exported(failed_over())
    points = metrics["gen_ai.client.operation.duration"].data.data_points
    assert {p.attributes.get("error.type"): p.count for p in points} == {"upstream_timeout": 1, None: 1}
    tokens = metrics["gen_ai.client.token.usage"].data.data_points
    assert {p.attributes["gen_ai.token.type"]: p.sum for p in tokens} == {"input": 1000, "output": 101}
    (first,) = metrics["gen_ai.client.operation.time_to_first_chunk"].data.data_points
    assert first.sum == pytest.approx(0.18)
    (whole,) = metrics["firsttoken.call.duration"].data.data_points
    assert whole.sum == pytest.approx(1.2, abs=0.01)


def test_errors_mark_the_span() -> None:
    """Ours, not the client's."""
    (ours,), _ = exported(record(error="upstream_timeout", status=504))
    (theirs,), _ = exported(record(error="invalid", status=400))
    assert ours.status.status_code is StatusCode.ERROR
    assert ours.attributes["error.type"] == "upstream_timeout"
    assert theirs.status.status_code is StatusCode.UNSET


def test_a_shared_answer_is_measured_once() -> None:
    """Its attempts were made for another call."""
    _, metrics = exported(record(coalesced=True))
    assert set(metrics) == {"firsttoken.call.duration"}


def test_a_trace_that_is_not_sampled_is_not_sent() -> None:
    """The client decides."""
    spans, metrics = exported(record(trace=f"00-{TRACE}-{OURS}-00", parent=SPAN))
    assert spans == []
    assert metrics


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, Any, str]]]]:
    """Run a collector on loopback that keeps what it is sent."""
    got: list[tuple[str, Any, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            raw = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            kind = ExportTraceServiceRequest if self.path == "/v1/traces" else ExportMetricsServiceRequest
            got.append((self.path, kind.FromString(raw), self.headers.get("api-key", "")))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("deployed", [True, False])
def test_a_call_reaches_a_collector(monkeypatch: Any, deployed: bool) -> None:
    """Over OTLP/HTTP: beside the call where the process may be frozen, else at the latest when it ends."""
    monkeypatch.setenv("OTLP_KEY", "s3cret")
    with collector() as (url, got):
        telemetry = Telemetry(
            otel=True, otel_endpoint=url, otel_headers={"api-key": "env:OTLP_KEY"}, otel_interval=3600
        )
        app = make_app(
            deployed=deployed, server=Server(log=False), auth=Auth(mode="off"), telemetry=telemetry
        )

        async def call() -> Any:
            answer = await ask(app, chat("a canary", stream=True), headers=simulate("ttft_ms=1"))
            while deployed and len(got) < 2:
                await asyncio.sleep(0.005)
            return answer

        answer = asyncio.run(asyncio.wait_for(call(), 20))
        asyncio.run(app._telemetry.aclose())
    assert {path for path, _, _ in got} == {"/v1/traces", "/v1/metrics"}
    assert {key for _, _, key in got} == {"s3cret"}
    (sent,) = [m for path, m, _ in got if path == "/v1/traces"]
    (span,) = sent.resource_spans[0].scope_spans[0].spans
    trace = answer.headers["traceparent"].split("-")
    assert [span.trace_id.hex(), span.span_id.hex()] == trace[1:3]
    assert "canary" not in str(got)
