"""Which endpoints serve a model to a function, and where its prompts may then be processed."""

from __future__ import annotations

from datetime import date

from msgspec import Struct

from firsttoken.placement.models import Model, find
from firsttoken.placement.regions import ANYWHERE, Offer, Region, atlas
from firsttoken.placement.rtt import Rtt, between


class Endpoint(Struct, frozen=True):
    """One way to call a model: an offer, entered at one region."""

    offer: Offer
    entry: Region

    @property
    def name(self) -> str:
        """Return the region of the endpoint, or the name of one that several regions share."""
        return self.offer.endpoint or self.entry.id


class Served(Struct, frozen=True, kw_only=True):
    """A target as one function sees it."""

    provider: str
    model: str
    family: str
    endpoint: str
    entry: str
    """The region at whose door the call arrives; the endpoint itself, but for shared ones."""
    processed: tuple[str, ...]
    rtt: Rtt
    """From the function to the endpoint."""
    price: float | None
    """US dollars for a million tokens, three of input to one of output; None where it is not published."""
    source: str

    @property
    def key(self) -> tuple[str, str]:
        """Return what makes two targets the same."""
        return self.model, self.endpoint


def keeps(processed: tuple[str, ...], residency: tuple[str, ...]) -> bool:
    """Tell whether whatever is processed there stays in these groups; none are asked for: always."""
    return not residency or set(processed) <= set(residency)


def endpoints_of(model: Model, cloud: str, residency: tuple[str, ...]) -> list[Endpoint]:
    """Return the endpoints of a cloud that serve a model where they, and its prompts, stay in the groups."""
    return [
        Endpoint(offer, region)
        for offer in atlas().offers
        if offer.provider == model.provider and offer.family == model.family
        if keeps(offer.processed, residency)
        for region in (atlas().region(cloud, name) for name in offer.regions)
        if keeps((region.group,), residency)
    ]


def serve(function: Region, endpoints: list[Endpoint], on: date | None = None) -> list[Served]:
    """Return the targets for a function, the nearest first, each endpoint once.

    Of several offers at one endpoint the one that stays nearest counts: in a region or geography before
    anywhere. The order depends on nothing but the catalogue.
    """

    def order(pair: tuple[Rtt, Endpoint]) -> tuple[float, bool, str, str]:
        rtt, one = pair
        return rtt.ms, one.offer.processed == (ANYWHERE,), one.name, one.offer.model

    listed = sorted(((between(function, one.entry), one) for one in endpoints), key=order)
    found: dict[str, Served] = {}
    for rtt, one in listed:
        found.setdefault(one.name, _served(one, rtt, on))
    return list(found.values())


def _served(one: Endpoint, rtt: Rtt, on: date | None) -> Served:
    offer = one.offer
    return Served(
        provider=offer.provider,
        model=offer.model,
        family=offer.family,
        endpoint=one.name,
        entry=one.entry.id,
        processed=offer.processed,
        rtt=rtt,
        price=price_of(offer, on),
        source=offer.source,
    )


def price_of(offer: Offer, on: date | None = None) -> float | None:
    """Return the blended price of an offer: of a geography's only where what it costs more is published."""
    row = find(offer.provider, offer.model)
    listed = row.blended(on=on) if row else None
    if listed is None or (offer.uplift is None and offer.processed != (ANYWHERE,)):
        return None
    return round(listed * (offer.uplift or 1.0), 6)
