"""``/readyz`` and ``/v1/status``: can it answer, and what stands in its way.

Both answer from what this process knows: neither calls a target or waits for a store.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import msgspec

from firsttoken import __version__
from firsttoken.api.exchange import Exchange
from firsttoken.gateway import Gateway
from firsttoken.policies.circuit import View


async def ready(exchange: Exchange, gateway: Gateway) -> None:
    """Answer whether calls can be answered: 200 ready or degraded, 503 when no route has a target left.

    A load balancer that asks this sends traffic to another region while all targets of this one are down.
    """
    available = [bool(_available(gateway, name)) for name in gateway.settings.models]
    down = bool(available) and not any(available)
    word = "unavailable" if down else "ready" if all(available) else "degraded"
    await exchange.answer(503 if down else 200, msgspec.json.encode({"status": word}))


async def status(exchange: Exchange, gateway: Gateway) -> None:
    """Show every route, target and store as this process sees them: JSON, or a page for a browser."""
    report = report_of(gateway)
    if "text/html" in exchange.headers.get("accept", ""):
        from firsttoken.api.status_page import page

        head = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store"), _POLICY]
        await exchange.answer(200, page(report).encode(), head)
        return
    await exchange.answer(200, msgspec.json.encode(report))


_POLICY = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'")


def report_of(gateway: Gateway) -> dict[str, Any]:
    """Return the state of everything that answers depend on, as JSON-ready values.

    Times are seconds, times to first token milliseconds.
    """
    routes = {
        name: {
            "available": _available(gateway, name),
            "targets": [item.target for item in route.all_targets()],
            "rungs": [rung.label() for rung in route.degrade],
        }
        for name, route in gateway.settings.models.items()
    }
    targets = {name: _target(gateway, name) for name in gateway.targets}
    store = gateway.store
    embedders = {name: item for name, item in gateway.embedders.items() if isinstance(item, _Counting)}
    report = {
        "version": __version__,
        "routes": routes,
        "targets": targets,
        "store": {
            "kind": store.kind,
            "shared": store.shared,
            "down": store.down,
            "failures": store.failures,
            "error": store.error,
        },
        "cache": dict(gateway.answered),
        "embeddings": {name: {"hits": e.hits, "misses": e.misses} for name, e in embedders.items()},
        "prefix": msgspec.to_builtins(gateway.prefix_savings.view()),
    }
    return {**report, "alerts": alerts(gateway, report)}


def alerts(gateway: Gateway, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the thresholds of ``[alerts]`` that are passed, each with its value."""
    limits, targets = gateway.settings.alerts, report["targets"]
    not_closed = [name for name, row in targets.items() if row["breaker"]["state"] != "closed"]
    rows: list[tuple[str, str, float, float]] = []
    if len(not_closed) >= limits.open_breakers:
        rows.append(("open_breakers", ", ".join(not_closed), len(not_closed), limits.open_breakers))
    for name, row in targets.items():
        if row["calls"] >= _ENOUGH and row["error_rate"] > limits.error_rate:
            rows.append(("error_rate", name, row["error_rate"], limits.error_rate))
        if (slow := row["ttft_p95_ms"]) is not None and slow > limits.ttft_p95 * 1000:
            rows.append(("ttft_p95", name, slow / 1000, limits.ttft_p95))
    if limits.store_down and gateway.store.down:
        rows.append(("store_down", report["store"]["kind"], 1, 1))
    return [
        {"alert": alert, "what": what, "value": round(value, 3), "threshold": threshold}
        for alert, what, value, threshold in rows
    ]


@runtime_checkable
class _Counting(Protocol):
    """An embedder that keeps vectors and counts which it had."""

    hits: int
    misses: int


_ENOUGH = 20
"""Calls before an error rate says something."""


def _available(gateway: Gateway, name: str) -> list[str]:
    """Return the targets of a route that would be called now."""
    listed = [item.target for item in gateway.settings.models[name].all_targets()]
    breakers = [(target, gateway.breakers.get(target)) for target in listed]
    return [target for target, breaker in breakers if breaker is None or breaker.circuit.refusal() is None]


def _target(gateway: Gateway, name: str) -> dict[str, Any]:
    stats = gateway.targets[name].stats
    breaker = gateway.breakers.get(name)
    view = breaker.circuit.view() if breaker else View("closed", 0.0, 0.0, "", 0, 0)
    return {
        "breaker": msgspec.to_builtins(view),
        "limit": msgspec.to_builtins(gateway.limiters[name].view()),
        "in_flight": stats.in_flight,
        "calls": stats.calls,
        "failures": stats.failures,
        "error_rate": round(stats.error_rate, 4),
        "ttft_p50_ms": _milliseconds(stats.quantile(0.5)),
        "ttft_p95_ms": _milliseconds(stats.quantile(0.95)),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
