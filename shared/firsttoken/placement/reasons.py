"""Say why a placement was proposed, in sentences that can be checked against the catalogue."""

from __future__ import annotations

from firsttoken.placement.endpoints import Endpoint
from firsttoken.placement.models import Model
from firsttoken.placement.regions import ANYWHERE, Region, atlas
from firsttoken.placement.rtt import distance


def reasons(
    ranked: list[tuple[Model, list[Endpoint]]], first: Region, second: Region, residency: tuple[str, ...]
) -> tuple[str, ...]:
    """Return one sentence each on model, residency, failover and times; the first model is the chosen one."""
    model, endpoints = ranked[0]
    return (
        _model(model, len(ranked), endpoints),
        _residency(residency, endpoints),
        _failover(first, second, endpoints),
        _times(first, second),
    )


def _model(model: Model, fitting: int, endpoints: list[Endpoint]) -> str:
    count = len({one.name for one in endpoints})
    served = f"served by {count} endpoint{'s' if count > 1 else ''} that may be used"
    if fitting == 1:
        return f"model: {model.family} is the only one in the catalogue that fits, {served}"
    order = "those with two endpoints before others, then by list price"
    return f"model: {model.family} is the first of {fitting} that fit ({order}), {served}"


def _residency(residency: tuple[str, ...], endpoints: list[Endpoint]) -> str:
    if residency:
        return f"residency: functions, endpoints and processing are kept in {', '.join(residency)}"
    wide = any(one.offer.processed == (ANYWHERE,) for one in endpoints)
    return "residency: none asked for; prompts may be processed " + ("anywhere" if wide else "elsewhere")


def _failover(first: Region, second: Region, endpoints: list[Endpoint]) -> str:
    apart = f"failover: {second.id} is {distance(first, second):,.0f} km from {first.id}"
    if len({one.name for one in endpoints}) < 2:
        return f"{apart}; the model has one endpoint for both, {endpoints[0].name}"
    return f"{apart}, with an endpoint of its own where there is one"


def _times(first: Region, second: Region) -> str:
    line = atlas().estimate
    text = (
        f"times: users to function are estimated from the distance ({line.ms_per_1000_km:g} ms per 1000 km,"
        f" {line.median_error:.0%} off in the median), without their own line"
    )
    table = atlas().rtt.get(first.cloud)
    if table and first.id in table.order and second.id in table.order:
        return f"{text}; between regions as published {table.checked}, {table.statistic}"
    return f"{text}; so are those between regions"
