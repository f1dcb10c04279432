"""The exporters of one process: each gets every record, when its call has ended.

Nothing is imported for an exporter that is not configured.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from firsttoken.errors import ConfigError
from firsttoken.settings import Settings
from firsttoken.telemetry.figures import Figures, Labels, Price, cost_of
from firsttoken.telemetry.head import Head, Send
from firsttoken.telemetry.record import Record

if TYPE_CHECKING:
    from firsttoken.telemetry.aggregate import Aggregate

SCOPE = "firsttoken.telemetry"
"""Where the application puts its exporters into an ASGI scope, for the endpoints."""

Log = Callable[[Record], None]
Exporter = Callable[[Record, Figures], None]
Beside = Callable[[Coroutine[Any, Any, object]], None]
"""Starts work beside calls, which a function waits for, within limits, before it is frozen."""


class Exporters:
    """What is configured in ``[telemetry]``. ``log`` takes the place of the line a call."""

    def __init__(  # noqa: PLR0913 - each comes from another side
        self,
        settings: Settings,
        *,
        deployed: bool,
        price: Price,
        beside: Beside,
        log: Log | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.settings = own = settings.telemetry
        self._price = price
        self._labels = Labels([*settings.models, *settings.embeddings], own.series)
        self.aggregate: Aggregate | None = None
        """The figures of ``GET /metrics``; None where they are not shown."""
        self._exporters: list[Exporter] = []
        self._close: Callable[[], None] | None = None
        if log is not None:
            self._exporters.append(lambda record, _: log(record))
        elif (kind := _line(settings, environ)) != "off":
            from firsttoken.telemetry.lines import Emf, write_json

            self._exporters.append(Emf(own.namespace, own.dimensions) if kind == "emf" else write_json)
        if own.metrics == "on" or (own.metrics == "auto" and not deployed):
            if deployed and "tenant" in own.dimensions and not own.metrics_tenants:
                raise ConfigError(
                    "telemetry.metrics_tenants: figures of each tenant are not for all of them;"
                    " expected the tenants that may read /metrics"
                )
            from firsttoken.telemetry.aggregate import Aggregate

            self.aggregate = Aggregate(own.dimensions, own.series)
            self._exporters.append(self.aggregate.add)
        if own.otel:
            self._exporters.append(self._otel(settings, beside if deployed else None))

    def _otel(self, settings: Settings, beside: Beside | None) -> Exporter:
        try:
            from firsttoken.telemetry.otel import create
        except ImportError as error:
            raise ConfigError("telemetry.otel: expected the packages of the extra 'otel'") from error
        otel = create(settings, self._labels, beside)
        self._close = otel.close
        return otel

    async def aclose(self) -> None:
        """Send what is left. A collector that does not answer holds this up for seconds."""
        if self._close is not None:
            await asyncio.to_thread(self._close)

    def head(self, send: Send) -> Head:
        """Return what sends an answer in place of ``send``."""
        return Head(send, timing=self.settings.server_timing)

    def begin(self, head: Head, record: Record, headers: dict[str, str]) -> None:
        """Follow a call from its head on: ``headers`` are the client's, and those that are passed on."""
        head.record = record
        if self.settings.otel or "traceparent" in headers:
            from firsttoken.telemetry.trace import begin

            begin(record, headers, always=self.settings.otel)

    def __call__(self, record: Record) -> None:
        """Export one record. Its call is answered: nothing here may fail."""
        if not self._exporters:
            return
        record.cost = cost_of(record, self._price)
        figures = self._labels.figures(record)
        for export in self._exporters:
            export(record, figures)


def _line(settings: Settings, environ: Mapping[str, str]) -> str:
    kind = settings.telemetry.log
    if kind != "auto":
        return kind
    if not settings.server.log:
        return "off"
    return "emf" if environ.get("AWS_LAMBDA_FUNCTION_NAME") else "json"
