"""The caches of a gateway, as its composition root puts them around the routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from firsttoken.cache.answers import Answers, place_of
from firsttoken.cache.exact import Cached
from firsttoken.cache.stale import Stale
from firsttoken.cache.tiers import Tiers
from firsttoken.model import Model
from firsttoken.settings import Route, Rung, Settings

if TYPE_CHECKING:
    from firsttoken.cache.similar import Shared
    from firsttoken.cache.similar_parts import Around

STALE = Rung(stale=True)


class Caches:
    """The kept answers of all routes, and what the similar cache shares between them."""

    def __init__(self, settings: Settings, around: Around) -> None:
        self.tiers = Tiers(settings.cache, around.store, around.shadow)
        self._rng = around.rng
        self._similar: Shared | None = None
        if settings.semantic.mode != "off":
            from firsttoken.cache.similar_parts import shared_for

            self._similar = shared_for(settings, around)

    def answers(self, name: str, route: Route, headers: Sequence[str]) -> Answers:
        """Return the kept answers of a route; ``headers`` of clients are those that its targets see."""
        return Answers(self.tiers, place_of(name, route, headers))

    @staticmethod
    def ladder(route: Route) -> list[Rung]:
        """Return the route's ladder, with old answers before fixed texts where it names none itself."""
        rungs = list(route.degrade)
        if any(rung.stale for rung in rungs):
            return rungs
        first = next((place for place, rung in enumerate(rungs) if rung.text), len(rungs))
        return [*rungs[:first], STALE, *rungs[first:]]

    @staticmethod
    def stale(answers: Answers) -> Model:
        """Return what answers from a step of the ladder with an old answer."""
        return Stale(answers)

    def wrap(self, name: str, route: Route, answers: Answers, headers: Sequence[str], model: Model) -> Model:
        """Return ``model`` with its answers given again: to the same request, and to similar ones."""
        if self._similar is not None and route.semantic:
            from firsttoken.cache.scope import Place
            from firsttoken.cache.similar import Similar

            scope = place_of(name, route, headers)
            place = Place(name, scope.scope, headers=scope.headers)
            model = Similar(model, answers, self._similar, place)
        return Cached(model, answers, rng=self._rng)

    async def aclose(self) -> None:
        """Close the connections to an index that is a service."""
        if self._similar is not None:
            await self._similar.lookup.aclose()
