"""Where functions and models are placed: residency is never traded for speed, and two regions are two."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from firsttoken.errors import ConfigError
from firsttoken.placement.models import TIERS, catalogue
from firsttoken.placement.plan import APART_KM, PlacementError, Plan, Wish, place
from firsttoken.placement.regions import ANYWHERE, CLOUDS, atlas
from firsttoken.placement.rtt import distance

DAY = date(2026, 11, 22)
GEOS = sorted(atlas().users)
GROUPS = atlas().groups()
MODELS = [*TIERS, *sorted({row.family for row in catalogue().models})]
WISHES = st.builds(
    Wish,
    users=st.dictionaries(
        st.sampled_from([*GEOS, "eu-central-1", "japaneast"]), st.floats(0.1, 10), min_size=1, max_size=4
    ),
    model=st.sampled_from(MODELS),
    residency=st.lists(st.sampled_from(GROUPS), unique=True, max_size=4).map(tuple),
    cloud=st.sampled_from(["", *CLOUDS]),
    failover=st.booleans(),
    on=st.just(DAY),
)


def wish(
    *users: str, residency: str = "", model: str = "fast", cloud: str = "", failover: bool = False
) -> Wish:
    return Wish(
        users=dict.fromkeys(users, 1.0),
        model=model,
        residency=tuple(residency.split()),
        cloud=cloud,
        failover=failover,
        on=DAY,
    )


def regions(plan: Plan) -> list[str]:
    return [placed.region for placed in plan.placed]


@budget(deadline=None)
@given(WISHES)
def test_residency_is_never_violated(asked: Wish) -> None:
    """Functions, endpoints and processing stay in the groups, for every target, or there is no plan."""
    try:
        plan = place(asked)
    except PlacementError:
        return
    if not asked.residency:
        return
    allowed = set(asked.residency)
    for placed in plan.placed:
        assert atlas().region(plan.cloud, placed.region).group in allowed
        for target in placed.targets:
            assert set(target.processed) <= allowed
            assert atlas().region(plan.cloud, target.entry).group in allowed


@budget(deadline=None)
@given(WISHES)
def test_failover_differs(asked: Wish) -> None:
    """There are two regions, no target twice, and the other region's endpoint is among the targets."""
    try:
        plan = place(asked)
    except PlacementError:
        return
    first, second = plan.placed
    assert first.region != second.region
    for placed, other in ((first, second), (second, first)):
        keys = [target.key for target in placed.targets]
        assert len(set(keys)) == len(keys)
        if asked.failover or len({one.targets[0].endpoint for one in plan.placed}) > 1:
            assert other.targets[0].endpoint in {target.endpoint for target in placed.targets}
        assert placed.targets[0].rtt.ms == min(t.rtt.ms for t in placed.targets if t.family == plan.model)


@budget(deadline=None)
@given(WISHES)
def test_the_same_wish_has_the_same_plan(asked: Wish) -> None:
    """Nothing but the catalogue and the wish decides, not even the order of the users."""

    def outcome(one: Wish) -> Plan | str:
        try:
            return place(one)
        except PlacementError as error:
            return str(error)

    turned = Wish(
        users=dict(reversed(asked.users.items())),
        model=asked.model,
        residency=asked.residency,
        cloud=asked.cloud,
        failover=asked.failover,
        on=asked.on,
    )
    assert outcome(asked) == outcome(asked) == outcome(turned)


@budget(deadline=None)
@given(WISHES)
def test_a_plan_offers_only_what_the_catalogue_has(asked: Wish) -> None:
    """Each target is an offer of the catalogue at the region where the call arrives."""
    try:
        plan = place(asked)
    except PlacementError:
        return
    for placed in plan.placed:
        for target in placed.targets:
            assert any(
                (offer.provider, offer.model, offer.processed)
                == (target.provider, target.model, target.processed)
                and target.entry in offer.regions
                for offer in atlas().offers
            )


def test_users_on_two_continents_get_a_region_each() -> None:
    """Without residency each part of the world is served from near by."""
    plan = place(wish("eu", "us", cloud="aws"))
    assert {placed.group for placed in plan.placed} == {"EU", "US"}
    assert {placed.role for placed in plan.placed} == {"serves"}


def test_residency_keeps_users_of_elsewhere_in_it() -> None:
    """Users of the United States are served in the Union where that is asked for, and it takes longer."""
    kept = place(wish("eu", "us", residency="EU", cloud="aws"))
    assert {placed.group for placed in kept.placed} == {"EU"}
    assert kept.expected_ms > place(wish("eu", "us", cloud="aws")).expected_ms


def test_the_union_does_not_mean_london() -> None:
    """A profile of the Union that may answer in London does not stay in the Union."""
    union = place(wish("eu-west-2", residency="EU", model="balanced", cloud="aws"))
    both = place(wish("eu-west-2", residency="EU UK", model="claude-sonnet-5-5", cloud="aws"))
    assert "eu-west-2" not in regions(union)
    assert "eu-west-2" in regions(both)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_region_that_stands_by_is_apart(cloud: str) -> None:
    """With failover one region serves and another, some hundred kilometres off, stands by."""
    plan = place(wish("us", cloud=cloud, failover=True))
    first, second = (atlas().region(cloud, name) for name in regions(plan))
    assert [placed.role for placed in plan.placed] == ["serves", "stands by"]
    assert distance(first, second) >= APART_KM


def test_failover_adds_another_model() -> None:
    """A model that fails everywhere has another one behind it, where the catalogue has one that fits."""
    plan = place(wish("eu", residency="EU", cloud="aws", failover=True))
    families = [target.family for target in plan.placed[0].targets]
    assert families[:2] == ["nova-micro"] * 2
    assert families[2] != "nova-micro"


def test_nearer_processing_comes_before_anywhere() -> None:
    """Of two offers at one endpoint the one that stays in the geography is taken."""
    plan = place(wish("us", model="gpt-6-luna", cloud="aws"))
    assert {target.model for target in plan.placed[0].targets} == {"us.openai.gpt-6-luna"}


def test_one_endpoint_for_all_regions_is_said() -> None:
    """Google's eu endpoint is one target; the plan says that it is the same for both functions."""
    plan = place(wish("eu", residency="EU", cloud="gcp"))
    assert [len(placed.targets) for placed in plan.placed] == [1, 1]
    assert any("one endpoint for both, eu" in reason for reason in plan.why)


def test_shares_move_the_regions() -> None:
    """Where most users are decides which region serves all."""
    to_us = Wish(users={"eu": 1, "us": 9}, cloud="aws", failover=True, on=DAY)
    to_eu = Wish(users={"eu": 9, "us": 1}, cloud="aws", failover=True, on=DAY)
    assert place(to_us).placed[0].group == "US"
    assert place(to_eu).placed[0].group == "EU"


def test_other_clouds_are_reported() -> None:
    """Without a cloud, what the others would give, or why they cannot, is said."""
    plan = place(wish("ap", residency="JP", model="quality"))
    assert plan.cloud == "aws"
    assert set(plan.others) == {"azure", "gcp"}
    assert "one region of the catalogue in JP" in plan.others["gcp"]


def test_expected_time_is_over_all_users() -> None:
    """The expected time is from users to function and on to the model."""
    plan = place(wish("eu-central-1", residency="EU", cloud="aws"))
    assert plan.placed[0].region == "eu-central-1"
    first = plan.placed[0]
    assert plan.expected_ms == pytest.approx(first.users["eu-central-1"] + first.targets[0].rtt.ms, abs=0.1)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (wish("eu", residency="NO"), r"aws: no region of the catalogue in NO.*azure: only one region"),
        (
            wish("eu", residency="CH", cloud="azure"),
            r"azure: only one region of the catalogue in CH; two are needed",
        ),
        (wish("us", residency="CA", cloud="aws", model="quality"), r"aws: only one region"),
        (
            wish("eu", residency="EU", cloud="aws", model="gpt-6-luna"),
            r"no region is known to serve gpt-6-luna with",
        ),
        (wish("eu", cloud="gcp", model="gpt-6-luna"), r"gcp: the catalogue has no model 'gpt-6-luna' there"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_the_reason(asked: Wish, message: str) -> None:
    """A residency that nothing keeps is an error that says so, never a plan that does not keep it."""
    with pytest.raises(PlacementError, match=message):
        place(asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (wish("moon"), r"users 'moon' is not known; expected one of eu, us, ap, sa, me, af, or a region"),
        (wish("eu", residency="XX"), r"residency 'XX' is not known; expected one of AE, AU"),
        (wish("eu", cloud="ibm"), r"cloud 'ibm' is not known; expected one of aws, azure, gcp"),
        (wish("eu", model="quick"), r"model 'quick' is not in the catalogue; expected a tier \(fast"),
        (wish(), r"users: expected one of eu"),
        (Wish(users={"eu": 0.0}), r"users eu: expected a share above 0, got 0"),
        (Wish(users={"eu": float("nan")}), r"users eu: expected a share above 0, got nan"),
    ],
)
def test_wrong_names_are_answered_with_the_right_ones(asked: Wish, message: str) -> None:
    """A name that is not in the catalogue is a mistake of the configuration, with the known values."""
    with pytest.raises(ConfigError, match=message):
        place(asked)


def test_anywhere_is_never_a_group() -> None:
    """The mark for processing anywhere cannot be taken for a residency group."""
    assert ANYWHERE not in GROUPS
