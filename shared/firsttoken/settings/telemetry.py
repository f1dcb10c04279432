"""What is told of each call, and to whom."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from firsttoken.settings.base import Positive, Section


class Telemetry(Section, frozen=True):
    """Lines of the log, metrics and traces. None of them ever holds text of a prompt or an answer."""

    log: Literal["auto", "json", "emf", "off"] = "auto"
    """A line a call: JSON on stderr, or with CloudWatch's metrics in it (EMF) on stdout; ``auto``: EMF on
    Lambda, JSON elsewhere, and nothing where ``server.log`` is false."""
    namespace: Annotated[str, Meta(pattern=r"^[A-Za-z0-9 ._\-/#:]{1,255}$")] = "firsttoken"
    """Of the metrics in CloudWatch."""
    dimensions: tuple[Literal["model", "target", "tenant"], ...] = ("model", "target")
    """What figures are told apart by. Each value of each of them is a metric to pay for."""
    series: Annotated[int, Meta(ge=1, le=10_000)] = 200
    """Sets of labels that a metric may have in this process; all others are counted as ``other``."""
    metrics: Literal["auto", "on", "off"] = "auto"
    """Whether ``GET /metrics`` shows figures for Prometheus; ``auto``: where it is not deployed."""
    metrics_tenants: list[str] = []
    """Tenants whose keys may read them; empty: any key."""
    server_timing: bool = True
    """Whether answers say what they took, in the header ``Server-Timing``."""
    otel: bool = False
    """Whether metrics and spans are sent over OTLP; needs the extra ``otel``."""
    otel_endpoint: Annotated[str, Meta(pattern="^(https?://[^?#]+)?$")] = ""
    """Base address of the collector; empty: the SDK's variables (``OTEL_EXPORTER_OTLP_ENDPOINT``)."""
    otel_headers: dict[str, str] = {}
    """Sent to it; ``env:NAME`` stands for a secret."""
    otel_interval: Positive = 10.0
    """Seconds between two exports."""
