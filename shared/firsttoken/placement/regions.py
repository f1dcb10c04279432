"""The catalogue of regions: where they are, whose law holds there, and which models each of them serves.

It is data (``regions.json``), as the catalogue of models is. What counts for residency is where a prompt may
be *processed*: an inference profile called from London may answer there or in the European Union.
"""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path

import msgspec

from firsttoken.placement.models import Row

CLOUDS = {"aws": "bedrock", "azure": "azure", "gcp": "vertex"}
"""The clouds with functions, and the kind of provider that serves their models."""
ANYWHERE = "*"


class Place(Row, frozen=True, kw_only=True):
    """A point on the map."""

    city: str
    lat: float
    lon: float


class Region(Place, frozen=True, kw_only=True):
    """A region of a cloud."""

    cloud: str
    id: str
    geo: str
    """The part of the world: eu, us, ap, sa, me, af. Canada counts as us here, for distances only."""
    group: str
    """Whose law holds there: EU, US, UK, CH, JP ..."""


class Offer(Row, frozen=True, kw_only=True):
    """A model that can be called at some regions' endpoints, and where its prompts may then be processed."""

    provider: str
    model: str
    """The id to call it by there: an inference profile where one is needed."""
    family: str
    regions: tuple[str, ...]
    processed: tuple[str, ...]
    """Residency groups, or ``*`` for anywhere."""
    endpoint: str = ""
    """One endpoint for all these regions (Google's eu, us and global); else each has its own."""
    uplift: float | None = None
    """Of the list price, where it is published."""
    source: str
    checked: date


class Measurements(Row, frozen=True, kw_only=True):
    """Published times between the regions of one cloud, of which the table says each once."""

    statistic: str
    source: str
    checked: date
    order: tuple[str, ...]
    above_diagonal: tuple[tuple[int, ...], ...]


class Estimate(Row, frozen=True, kw_only=True):
    """A line through the published times over the distance, fitted to the least relative squares."""

    base_ms: float
    ms_per_1000_km: float
    median_error: float
    fitted_on: str


class Atlas(Row, frozen=True, kw_only=True):
    """The file as a whole."""

    checked: date
    regions: tuple[Region, ...]
    users: dict[str, tuple[Place, ...]]
    """Cities that stand for the users of a part of the world."""
    offers: tuple[Offer, ...]
    rtt: dict[str, Measurements]
    estimate: Estimate

    def region(self, cloud: str, name: str) -> Region:
        """Return a region. Raises KeyError for one that is not in the catalogue."""
        return _regions()[cloud, name]

    def groups(self) -> tuple[str, ...]:
        """Return the residency groups that there are."""
        return tuple(sorted({region.group for region in self.regions}))


@cache
def atlas() -> Atlas:
    """Return the catalogue of regions, read once: less than a millisecond, 100 kB."""
    raw = Path(__file__).with_name("regions.json").read_bytes()
    return msgspec.json.decode(raw, type=Atlas)


@cache
def _regions() -> dict[tuple[str, str], Region]:
    return {(region.cloud, region.id): region for region in atlas().regions}
