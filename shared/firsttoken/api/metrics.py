"""``GET /metrics``: the figures of this process, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from firsttoken.api.exchange import Exchange
from firsttoken.errors import AuthenticationError, NotFoundError
from firsttoken.gateway import Gateway
from firsttoken.telemetry import prometheus
from firsttoken.telemetry.exporters import SCOPE, Exporters

_STATES = {"closed": 0, "half_open": 1, "open": 2, "cooling": 3}


async def metrics(exchange: Exchange, gateway: Gateway) -> None:
    """Show the figures. Raises NotFoundError where they are off, AuthenticationError to other tenants."""
    exporters = exchange.scope.get(SCOPE)
    if not isinstance(exporters, Exporters) or exporters.aggregate is None:
        message = "There are no metrics here; expected telemetry.metrics = 'on' in the configuration."
        raise NotFoundError(message)
    readers = exporters.settings.metrics_tenants
    if readers and exchange.record.tenant not in readers:
        raise AuthenticationError("This key may not read metrics; expected one of telemetry.metrics_tenants.")
    body = prometheus.text(exporters.aggregate) + "".join(_state(gateway))
    head = [(b"content-type", prometheus.CONTENT_TYPE), (b"cache-control", b"no-store")]
    await exchange.answer(200, body.encode("utf-8", "replace"), head)


def _state(gateway: Gateway) -> Iterator[str]:
    """Yield what is so now, of each target."""
    label = ("target",)
    under_way = [((name,), target.stats.in_flight) for name, target in gateway.targets.items()]
    yield from prometheus.metric(
        "firsttoken_in_flight", "gauge", "Calls of targets under way.", label, under_way
    )
    told = "State of a target's breaker: 0 closed, 1 half open, 2 open, 3 cooling."
    states = [((name,), _STATES[breaker.circuit.view().state]) for name, breaker in gateway.breakers.items()]
    yield from prometheus.metric("firsttoken_breaker_state", "gauge", told, label, states)
