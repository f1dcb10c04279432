"""Round-trip times between regions: published where a cloud publishes them, else estimated by the distance.

The estimate is for a provider's network. A user's own line comes on top; it is the same for all regions, so
it does not change which of them is nearest.
"""

from __future__ import annotations

from functools import cache
from math import asin, cos, radians, sin, sqrt

from msgspec import Struct

from firsttoken.placement.regions import Place, Region, atlas

EARTH_KM = 6371.0
INSIDE_MS = 2.0
"""Within a region; an assumption, below what the estimate gives for no distance at all."""


class Rtt(Struct, frozen=True):
    """Milliseconds there and back."""

    ms: float
    estimated: bool = True


def distance(a: Place, b: Place) -> float:
    """Return the great-circle distance in kilometres (haversine formula)."""
    north = sin(radians(b.lat - a.lat) / 2) ** 2
    east = sin(radians(b.lon - a.lon) / 2) ** 2
    chord = north + cos(radians(a.lat)) * cos(radians(b.lat)) * east
    return 2 * EARTH_KM * asin(sqrt(min(1.0, chord)))


def estimate(a: Place, b: Place) -> float:
    """Return the estimated round-trip time in milliseconds, rounded to a tenth."""
    line = atlas().estimate
    return round(line.base_ms + line.ms_per_1000_km * distance(a, b) / 1000, 1)


def between(a: Region, b: Region) -> Rtt:
    """Return the time between two regions: published if both are in the table of their cloud."""
    if (a.cloud, a.id) == (b.cloud, b.id):
        return Rtt(INSIDE_MS)
    published = _published(a.cloud).get(frozenset((a.id, b.id))) if a.cloud == b.cloud else None
    return Rtt(published, estimated=False) if published is not None else Rtt(estimate(a, b))


@cache
def _published(cloud: str) -> dict[frozenset[str], float]:
    table = atlas().rtt.get(cloud)
    if table is None:
        return {}
    return {
        frozenset((name, table.order[i + 1 + k])): float(ms)
        for i, (name, row) in enumerate(zip(table.order, table.above_diagonal, strict=False))
        for k, ms in enumerate(row)
    }
