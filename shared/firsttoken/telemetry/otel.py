"""OpenTelemetry: a span for each call and the metrics of its targets, by the conventions for GenAI.

The names are those of github.com/open-telemetry/semantic-conventions-genai as of November 2026. They are
still in development there, so all of them stand here. The SDK sends in its own threads; a function that
may be frozen flushes beside its calls as well. Memory: the SDK's queue, 2048 spans, and its aggregates, whose
attributes are bounded by the configuration.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from firsttoken import __version__
from firsttoken.config import secret
from firsttoken.settings import Settings
from firsttoken.telemetry.figures import NONE, Figures, Labels
from firsttoken.telemetry.record import Attempt, Record
from firsttoken.telemetry.sketch import BOUNDS

PROVIDERS = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "openai": "openai",
    "vertex": "gcp.vertex_ai",
}
"""What the conventions call our kinds of providers; others are called as they are here."""
_TOKENS = tuple(4**power for power in range(14))
_SCOPE = "firsttoken"
_FLUSH_MS = 2000

Attributes = dict[str, str | int | float | bool]
Beside = Callable[[Coroutine[Any, Any, object]], None]


class _Ids(IdGenerator):
    """Gives the next span the ids that its client and targets were told."""

    def __init__(self) -> None:
        self.trace = self.span = 0

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        return self.span


class Otel:
    """Turns each record into a span and into the measurements of its attempts."""

    def __init__(
        self,
        settings: Settings,
        labels: Labels,
        spans: SpanExporter,
        reader: MetricReader,
        beside: Beside | None = None,
    ) -> None:
        self._kinds = {name: str(item.__struct_config__.tag) for name, item in settings.providers.items()}
        self._embeddings = set(settings.embeddings) - set(settings.models)
        self._labels = labels
        self._interval = settings.telemetry.otel_interval
        self._beside = beside
        self._flushed = 0.0
        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or _SCOPE})
        self._ids = _Ids()
        self._traces = TracerProvider(resource=resource, id_generator=self._ids)
        delay = self._interval * 1000
        self._traces.add_span_processor(BatchSpanProcessor(spans, schedule_delay_millis=delay))
        self._meters = MeterProvider([reader], resource=resource)
        self._tracer = self._traces.get_tracer(_SCOPE, __version__)
        self._instruments()

    def _instruments(self) -> None:
        meter = self._meters.get_meter(_SCOPE, __version__)

        def seconds(name: str, told: str) -> Histogram:
            return meter.create_histogram(name, "s", told, explicit_bucket_boundaries_advisory=BOUNDS)

        self._duration = seconds("gen_ai.client.operation.duration", "GenAI operation duration.")
        self._first = seconds(
            "gen_ai.client.operation.time_to_first_chunk", "Time to receive the first chunk."
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._calls = seconds("firsttoken.call.duration", "A client's call, with all of its attempts.")
        self._cost = meter.create_counter("firsttoken.call.cost", "1", "What answers cost.")

    def __call__(self, record: Record, figures: Figures) -> None:
        """Export one call that has ended just now."""
        ended = time.time_ns() - (asyncio.get_running_loop().time() - (record.finished or 0.0)) * 1e9
        self._span(record, figures, int(ended))
        attempts = [] if record.coalesced else record.attempts
        for attempt in attempts:
            self._measure(record, attempt)
        own: Attributes = {"firsttoken.route": figures.model, "firsttoken.outcome": figures.outcome}
        if figures.error:
            own["error.type"] = figures.error
        self._calls.record((record.finished or record.started) - record.started, own)
        if record.cost:
            self._cost.add(record.cost, {"firsttoken.route": figures.model})
        self._flush()

    def close(self) -> None:
        """Send what is left, and stop."""
        self._traces.shutdown()
        self._meters.shutdown()

    def flush(self) -> None:
        """Send what there is."""
        self._traces.force_flush(_FLUSH_MS)
        self._meters.force_flush(_FLUSH_MS)

    def _flush(self) -> None:
        now = time.monotonic()
        if self._beside is not None and now - self._flushed >= self._interval:
            self._flushed = now
            self._beside(asyncio.to_thread(self.flush))

    def _span(self, record: Record, figures: Figures, ended: int) -> None:
        def at(moment: float) -> int:
            return ended - int(((record.finished or 0.0) - moment) * 1e9)

        _, trace, span, flags = record.trace.split("-") if record.trace else ("", "0", "0", "1")
        self._ids.trace, self._ids.span = int(trace, 16), int(span, 16)
        context = None
        if record.parent:
            above = SpanContext(
                int(trace, 16), int(record.parent, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
            )
            context = set_span_in_context(NonRecordingSpan(above))
        about = self._about(record, record.target)
        name = f"{about['gen_ai.operation.name']} {about['gen_ai.request.model']}"
        span_ = self._tracer.start_span(
            name, context, SpanKind.CLIENT, start_time=at(record.started), attributes=about
        )
        span_.set_attributes(_said(record, figures))
        if figures.outcome == "error":
            span_.set_status(StatusCode.ERROR)
        for attempt in record.attempts:
            _event(span_, attempt, at)
        span_.end(ended)

    def _about(self, record: Record, target: str) -> Attributes:
        """Return what a span and all measurements of a target have in common."""
        known = self._labels.target(target)
        provider, _, model = known.partition("/")
        kind = self._kinds.get(provider, _SCOPE)
        return {
            "gen_ai.operation.name": "embeddings" if record.model in self._embeddings else "chat",
            "gen_ai.provider.name": PROVIDERS.get(kind, kind),
            "gen_ai.request.model": model if model not in ("", "*") else self._labels.model(record.model),
        }

    def _measure(self, record: Record, attempt: Attempt) -> None:
        about = self._about(record, attempt.target)
        failed: Attributes = (
            {} if attempt.outcome in ("ok", "left") else {"error.type": attempt.outcome or NONE}
        )
        if attempt.finished is not None:
            self._duration.record(attempt.finished - attempt.started, about | failed)
        if record.stream and attempt.first_chunk is not None:
            self._first.record(attempt.first_chunk - attempt.started, about)
        for kind, count in (("input", attempt.input_tokens), ("output", attempt.output_tokens)):
            if count:
                self._tokens.record(count, about | {"gen_ai.token.type": kind})


def _said(record: Record, figures: Figures) -> Attributes:
    said: dict[str, str | int | float | bool | None] = {
        "gen_ai.request.stream": record.stream,
        "gen_ai.response.time_to_first_chunk": figures.ttft,
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "error.type": figures.error or None,
        "http.response.status_code": record.status or None,
        "firsttoken.request_id": record.id,
        "firsttoken.route": figures.model,
        "firsttoken.target": figures.target,
        "firsttoken.tenant": figures.tenant,
        "firsttoken.outcome": figures.outcome,
        "firsttoken.cache": record.cache or None,
        "firsttoken.rung": record.rung or None,
        "firsttoken.cost": record.cost,
    }
    return {name: value for name, value in said.items() if value is not None}


def _event(span: Span, attempt: Attempt, at: Callable[[float], int]) -> None:
    told: Attributes = {
        "firsttoken.attempt.target": attempt.target,
        "firsttoken.attempt.kind": attempt.kind,
        "firsttoken.attempt.outcome": attempt.outcome,
    }
    if attempt.finished is not None:
        told["firsttoken.attempt.duration"] = attempt.finished - attempt.started
    if attempt.first_chunk is not None:
        told["firsttoken.attempt.time_to_first_chunk"] = attempt.first_chunk - attempt.started
    span.add_event("firsttoken.attempt", told, at(attempt.started))


def create(settings: Settings, labels: Labels, beside: Beside | None) -> Otel:
    """Return the exporter that is configured, sending OTLP over HTTP. Raises ConfigError."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    own = settings.telemetry
    headers = {
        name: secret(value, f"telemetry.otel_headers.{name}") for name, value in own.otel_headers.items()
    }
    base = own.otel_endpoint.rstrip("/")
    link: dict[str, Any] = {"headers": headers or None, "timeout": _FLUSH_MS / 1000}
    spans = OTLPSpanExporter(f"{base}/v1/traces" if base else None, **link)
    metrics = OTLPMetricExporter(f"{base}/v1/metrics" if base else None, **link)
    reader = PeriodicExportingMetricReader(metrics, export_interval_millis=own.otel_interval * 1000)
    return Otel(settings, labels, spans, reader, beside)
