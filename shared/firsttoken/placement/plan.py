"""Propose regions for functions, and targets in order for each, with the reasons.

Every pair of regions that residency allows is compared by the time from the users to the function and on to
the model, so the work grows with the square of a cloud's regions: some 10 ms for 30 of them.
"""

from __future__ import annotations

from datetime import date
from itertools import combinations
from math import inf

from msgspec import Struct, field
from msgspec.structs import replace

from firsttoken.errors import ConfigError, FirstTokenError
from firsttoken.placement.endpoints import Endpoint, Served, endpoints_of, keeps, serve
from firsttoken.placement.models import Model, known, of_tier, today
from firsttoken.placement.reasons import reasons
from firsttoken.placement.regions import CLOUDS, Place, Region, atlas
from firsttoken.placement.rtt import distance, estimate

APART_KM = 300.0
"""A region that stands by is at least so far away, where there is one: another weather, another grid."""


class PlacementError(FirstTokenError):
    """Nothing in the catalogue keeps what was asked for; the message says what stands in the way."""


class Wish(Struct, frozen=True, kw_only=True):
    """What is asked for."""

    users: dict[str, float]
    """Where they are (a part of the world, or a region), and their shares."""
    model: str = "fast"
    """A tier, a family, or the id of a model."""
    residency: tuple[str, ...] = ()
    """Groups that prompts must not leave; none: anywhere."""
    cloud: str = ""
    """Empty: the one with the shortest times."""
    failover: bool = False
    """One region serves and another, further off, stands by; else both serve the users near them."""
    on: date | None = None
    """The day whose prices hold; today where it is not said."""


class Placed(Struct, frozen=True, kw_only=True):
    """A function in a region."""

    region: str
    city: str
    group: str
    role: str
    users: dict[str, float]
    """Estimated milliseconds from the users to the function and back."""
    targets: tuple[Served, ...]
    """In the order in which the function should try them."""


class Plan(Struct, frozen=True, kw_only=True):
    """What is proposed."""

    cloud: str
    model: str
    tier: str
    placed: tuple[Placed, ...]
    expected_ms: float
    """From users to model and back, over all users, each at the region that serves them."""
    why: tuple[str, ...]
    others: dict[str, str] = field(default_factory=dict)
    """What was found, or what was in the way, at the other clouds."""
    checked: date


_Merit = tuple[bool, float]
"""Whether a model has one endpoint only, and its list price; less is better."""


class _Site(Struct, frozen=True):
    """A region that a function may be in, with the times of each city's users."""

    region: Region
    targets: list[Served]
    times: tuple[float, ...]

    def mean(self, shares: tuple[float, ...]) -> float:
        return sum(ms * share for ms, share in zip(self.times, shares, strict=True))


def place(wish: Wish) -> Plan:
    """Return the proposal for a wish; the same wish has the same answer on the same day.

    Raises ConfigError for names that are not in the catalogue, and PlacementError where residency cannot be
    kept or fewer than two regions are left.
    """
    _check(wish)
    found: list[tuple[Plan, _Merit]] = []
    others: dict[str, str] = {}
    for cloud in (wish.cloud,) if wish.cloud else tuple(CLOUDS):
        try:
            plan, merit = _place(wish, cloud)
        except PlacementError as error:
            others[cloud] = str(error)
        else:
            found.append((plan, merit))
            others[cloud] = f"{plan.model}, {plan.expected_ms:.0f} ms"
    if not found:
        raise PlacementError("; ".join(others.values()))
    chosen = _chosen(found)
    return replace(chosen, others={cloud: text for cloud, text in others.items() if cloud != chosen.cloud})


def _chosen(found: list[tuple[Plan, _Merit]]) -> Plan:
    """Return the quickest plan; where the estimate cannot tell them apart, the sturdiest and cheapest."""
    limit = min(plan.expected_ms for plan, _ in found) * (1 + atlas().estimate.median_error)
    near = [(merit, plan) for plan, merit in found if plan.expected_ms <= limit]
    return min(near, key=lambda one: (one[0], one[1].expected_ms, one[1].cloud))[1]


def _check(wish: Wish) -> None:
    if not wish.users:
        raise ConfigError(f"users: expected one of {', '.join(atlas().users)}, or a region")
    for name, share in wish.users.items():
        _places(name)
        if not 0 < share < inf:
            raise ConfigError(f"users {name}: expected a share above 0, got {share:g}")
    if wish.cloud:
        known("cloud", wish.cloud, tuple(CLOUDS))
    for group in wish.residency:
        known("residency", group, atlas().groups())
    of_tier(wish.model)


def _places(name: str) -> tuple[Place, ...]:
    """Return the points that stand for some users. Raises ConfigError for a name that is not known."""
    if name in atlas().users:
        return atlas().users[name]
    found = tuple(region for region in atlas().regions if region.id == name)
    if not found:
        raise ConfigError(
            f"users {name!r} is not known; expected one of {', '.join(atlas().users)}, or a region's id"
        )
    return found[:1]


def _place(wish: Wish, cloud: str) -> tuple[Plan, _Merit]:
    regions = [r for r in atlas().regions if r.cloud == cloud and keeps((r.group,), wish.residency)]
    if len(regions) < 2:
        raise PlacementError(
            f"{cloud}: {_some(len(regions))} of the catalogue in {', '.join(wish.residency)}; two are needed"
        )
    ranked = _ranked(wish, cloud)
    model, endpoints = ranked[0]
    cities = _cities(wish)
    shares = tuple(share for _, share in cities)
    sites = [_site(region, endpoints, cities, wish) for region in regions]
    pair = _standby(sites, shares) if wish.failover else _both(sites, shares)
    times = pair[0].times if wish.failover else tuple(map(min, pair[0].times, pair[1].times))
    spare = ranked[1][1] if wish.failover and len(ranked) > 1 else []
    first, second = (_placed(site, other, wish, spare) for site, other in (pair, pair[::-1]))
    plan = Plan(
        cloud=cloud,
        model=model.family,
        tier=model.tier,
        placed=(first, replace(second, role="stands by") if wish.failover else second),
        expected_ms=round(sum(ms * share for ms, share in zip(times, shares, strict=True)), 1),
        why=reasons(ranked, pair[0].region, pair[1].region, wish.residency),
        checked=atlas().checked,
    )
    return plan, _merit(model, endpoints, wish.on or today())


def _ranked(wish: Wish, cloud: str) -> list[tuple[Model, list[Endpoint]]]:
    """Return the models that are served, the best first: with two endpoints, then by price, then by name."""
    day = wish.on or today()
    models = [row for row in of_tier(wish.model) if row.provider == CLOUDS[cloud]]
    if not models:
        raise PlacementError(f"{cloud}: the catalogue has no model {wish.model!r} there")
    alive = [row for row in models if row.retires is None or row.retires > day]
    served = [(row, endpoints_of(row, cloud, wish.residency)) for row in alive]
    served = [(row, endpoints) for row, endpoints in served if endpoints]
    if not served:
        within = f" with processing kept in {', '.join(wish.residency)}" if wish.residency else ""
        names = ", ".join(row.family for row in models)
        raise PlacementError(f"{cloud}: no region is known to serve {names}{within}")

    return sorted(served, key=lambda one: (*_merit(one[0], one[1], day), one[0].model))


def _merit(model: Model, endpoints: list[Endpoint], on: date) -> _Merit:
    price = model.blended(on=on)
    return len({one.name for one in endpoints}) < 2, inf if price is None else price


def _cities(wish: Wish) -> list[tuple[Place, float]]:
    """Return the points that the users are at, with shares that sum to one."""
    total = sum(wish.users.values())
    return [
        (place, share / total / len(_places(name)))
        for name, share in sorted(wish.users.items())
        for place in _places(name)
    ]


def _site(region: Region, endpoints: list[Endpoint], cities: list[tuple[Place, float]], wish: Wish) -> _Site:
    targets = serve(region, endpoints, wish.on)
    onward = targets[0].rtt.ms
    return _Site(region, targets, tuple(estimate(place, region) + onward for place, _ in cities))


def _both(sites: list[_Site], shares: tuple[float, ...]) -> tuple[_Site, _Site]:
    """Return the two regions apart that together are nearest to the users, the one nearer to all first."""

    def cost(pair: tuple[_Site, _Site]) -> tuple[float, float, str, str]:
        a, b = pair
        nearest = sum(min(x, y) * share for x, y, share in zip(a.times, b.times, shares, strict=True))
        return round(nearest, 6), a.mean(shares) + b.mean(shares), a.region.id, b.region.id

    pairs = list(combinations(sites, 2))
    apart = [(a, b) for a, b in pairs if distance(a.region, b.region) >= APART_KM]
    a, b = min(apart or pairs, key=cost)
    return (a, b) if (a.mean(shares), a.region.id) <= (b.mean(shares), b.region.id) else (b, a)


def _standby(sites: list[_Site], shares: tuple[float, ...]) -> tuple[_Site, _Site]:
    """Return the region nearest to all users, and the next nearest that does not share its fate."""
    first, *rest = sorted(sites, key=lambda site: (site.mean(shares), site.region.id))
    apart = [site for site in rest if distance(first.region, site.region) >= APART_KM]
    return first, (apart or rest)[0]


def _placed(site: _Site, other: _Site, wish: Wish, spare: list[Endpoint]) -> Placed:
    """Return a function with its targets: its nearest endpoint, the other function's, then another model."""
    first = site.targets[0]
    theirs = other.targets[0].endpoint
    second = [one for one in site.targets[1:] if one.endpoint == theirs] or site.targets[1:2]
    third = serve(site.region, spare, wish.on)[:1] if spare else []
    return Placed(
        region=site.region.id,
        city=site.region.city,
        group=site.region.group,
        role="serves",
        users={name: _users_ms(name, site.region) for name in sorted(wish.users)},
        targets=(first, *second, *third),
    )


def _users_ms(name: str, region: Region) -> float:
    times = [estimate(place, region) for place in _places(name)]
    return round(sum(times) / len(times), 1)


def _some(count: int) -> str:
    return "no region" if not count else "only one region"
