"""The catalogue of regions: offers are of known models at known regions, and figures have sources."""

from __future__ import annotations

from math import fsum

import pytest

from firsttoken.placement.models import catalogue, find
from firsttoken.placement.regions import ANYWHERE, CLOUDS, Offer, Region, atlas
from firsttoken.placement.rtt import INSIDE_MS, between, distance, estimate

ATLAS = atlas()
CLOUD_OF = {provider: cloud for cloud, provider in CLOUDS.items()}


def label(offer: Offer) -> str:
    return f"{offer.model}@{offer.regions[0]}:{offer.processed[0]}"


def region(cloud: str, name: str) -> Region:
    return ATLAS.region(cloud, name)


def test_regions_are_where_they_say() -> None:
    """A region is in the catalogue once, on the map, in a part of the world that has users."""
    keys = [(one.cloud, one.id) for one in ATLAS.regions]
    assert len(set(keys)) == len(keys)
    assert {one.cloud for one in ATLAS.regions} == set(CLOUDS)
    for one in ATLAS.regions:
        assert -60 < one.lat < 72
        assert -180 <= one.lon <= 180
        assert one.geo in ATLAS.users


@pytest.mark.parametrize("offer", ATLAS.offers, ids=label)
def test_an_offer_is_of_a_known_model_at_known_regions(offer: Offer) -> None:
    """Both catalogues mean the same model; groups and regions exist; it says where it was read."""
    assert find(offer.provider, offer.model).family == offer.family
    regions = [region(CLOUD_OF[offer.provider], name) for name in offer.regions]
    assert len(set(offer.regions)) == len(regions) > 0
    assert offer.processed == (ANYWHERE,) or set(offer.processed) <= set(ATLAS.groups())
    assert offer.source
    assert offer.checked <= ATLAS.checked


@pytest.mark.parametrize("offer", ATLAS.offers, ids=label)
def test_a_profile_says_where_it_processes(offer: Offer) -> None:
    """The prefix of an inference profile and the processing agree: global is anywhere, the others are not."""
    prefix = offer.model.partition(".")[0]
    expected = {"eu": {"EU", "UK"}, "us": {"US", "CA"}, "jp": {"JP"}, "au": {"AU"}, "global": {ANYWHERE}}
    if offer.provider == "bedrock" and prefix in expected:
        assert set(offer.processed) <= expected[prefix]


def test_london_may_leave_the_union_and_montreal_may_leave_canada() -> None:
    """What a profile may do depends on the region it is called from."""
    where = {
        (one.model, name): set(one.processed)
        for one in ATLAS.offers
        for name in one.regions
        if one.model in {"eu.anthropic.claude-sonnet-5-5", "us.anthropic.claude-sonnet-5-5"}
    }
    assert where["eu.anthropic.claude-sonnet-5-5", "eu-west-2"] == {"EU", "UK"}
    assert where["eu.anthropic.claude-sonnet-5-5", "eu-central-1"] == {"EU"}
    assert where["us.anthropic.claude-sonnet-5-5", "ca-central-1"] == {"CA", "US"}


def test_every_cloud_has_offers_of_models_of_its_own() -> None:
    """There is something to place on each cloud."""
    assert {one.provider for one in ATLAS.offers} == set(CLOUDS.values())
    assert {one.provider for one in ATLAS.offers} <= {row.provider for row in catalogue().models}


@pytest.mark.parametrize("cloud", ATLAS.rtt)
def test_published_times_are_complete(cloud: str) -> None:
    """The table has each pair of its regions once, and the times are plausible for the distance."""
    table = ATLAS.rtt[cloud]
    assert [len(row) for row in table.above_diagonal] == list(range(len(table.order) - 1, 0, -1))
    light = 200_000 / 1000  # kilometres a millisecond in glass
    for i, row in enumerate(table.above_diagonal):
        for k, ms in enumerate(row):
            a, b = region(cloud, table.order[i]), region(cloud, table.order[i + 1 + k])
            assert ms >= 0.8 * 2 * distance(a, b) / light


def test_the_estimate_is_the_line_through_the_published_times() -> None:
    """The two constants are the least squares of the relative error over the published table."""
    line = ATLAS.estimate
    table = ATLAS.rtt[line.fitted_on]
    points = [
        (
            distance(region(line.fitted_on, table.order[i]), region(line.fitted_on, table.order[i + 1 + k]))
            / 1000,
            ms,
        )
        for i, row in enumerate(table.above_diagonal)
        for k, ms in enumerate(row)
    ]
    a11, a12 = fsum(1 / y**2 for _, y in points), fsum(x / y**2 for x, y in points)
    a22, b1, b2 = (
        fsum(x * x / y**2 for x, y in points),
        fsum(1 / y for _, y in points),
        fsum(x / y for x, y in points),
    )
    slope = (a11 * b2 - a12 * b1) / (a11 * a22 - a12**2)
    base = (b1 - a12 * slope) / a11
    errors = sorted(abs(base + slope * x - y) / y for x, y in points)
    assert line.base_ms == pytest.approx(base, abs=0.01)
    assert line.ms_per_1000_km == pytest.approx(slope, abs=0.01)
    assert line.median_error == pytest.approx(errors[len(errors) // 2], abs=0.005)


def test_published_times_come_before_estimates() -> None:
    """Within a cloud that publishes times they are those; elsewhere they are estimates."""
    sweden, virginia = region("azure", "swedencentral"), region("azure", "eastus")
    assert (between(sweden, virginia).ms, between(sweden, virginia).estimated) == (110, False)
    assert between(sweden, virginia) == between(virginia, sweden)
    frankfurt, dublin = region("aws", "eu-central-1"), region("aws", "eu-west-1")
    assert between(frankfurt, dublin).estimated
    assert between(frankfurt, dublin).ms == estimate(frankfurt, dublin)
    assert between(frankfurt, frankfurt).ms == INSIDE_MS


def test_distance_is_the_great_circle() -> None:
    """Frankfurt to Dublin is 1,090 km, give or take the rounded coordinates."""
    assert distance(region("aws", "eu-central-1"), region("aws", "eu-west-1")) == pytest.approx(1090, abs=15)
