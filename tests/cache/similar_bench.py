"""An instance with both caches of answers around a model that says what it was asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import Any

from msgspec.structs import replace
from policies.fleet import FakeStore
from policies.models import END, Scripted, make_call, say, text_of
from virtual_time import wall

from firsttoken.cache.answers import Answers, place_of
from firsttoken.cache.exact import Cached
from firsttoken.cache.scope import Place
from firsttoken.cache.similar import Similar
from firsttoken.cache.similar_parts import Around, shared_for
from firsttoken.cache.tiers import Tiers
from firsttoken.embedding import EmbedCall, Embeddings
from firsttoken.policies.shadow import Shadow
from firsttoken.providers.http import HttpClient
from firsttoken.settings import Cache, Route, Semantic, Settings, SimulatedProvider
from firsttoken.telemetry.record import Record


class CountedEmbedder:
    """The embedder of an instance, with a switch: an error is raised, a number is seconds that it takes."""

    def __init__(self, embedder: Any) -> None:
        self._embedder = embedder
        self.calls = 0
        self.fault: BaseException | float | None = None

    async def embed(self, call: EmbedCall) -> Embeddings:
        self.calls += 1
        if isinstance(self.fault, BaseException):
            raise self.fault
        if self.fault:
            await asyncio.sleep(self.fault)
        return await self._embedder.embed(call)


@dataclass
class Answered:
    """What came of a call."""

    id: str
    text: str
    record: Record


class Instance:
    """One process: ``Cached(Similar(model))``, for as many routes as are asked for."""

    def __init__(
        self,
        store: Any = None,
        *,
        mode: str = "on",
        model: Any = None,
        judging: Any = None,
        cache: dict[str, Any] | None = None,
        **semantic: Any,
    ) -> None:
        self.store = store or FakeStore()
        self.shadow = Shadow()
        self.judge = judging or Scripted([say("YES"), END])
        self.model = model or Scripted(lambda call: [say(f"About: {call.request.messages[-1].text()}"), END])
        self.settings = Settings(
            cache=Cache(mode="on", **(cache or {})),
            semantic=Semantic(mode=mode, **semantic),
            providers={"p": SimulatedProvider()},
            models={"m": Route(target="p/m"), "judge": Route(target="p/j")},
        )
        around = Around(self.store, self.shadow, HttpClient(), {}, Random(3), lambda: self.judge)
        shared = shared_for(self.settings, around)
        self.embedder = CountedEmbedder(shared.lookup._embedder)
        shared.lookup._embedder = self.embedder
        self.shared = replace(shared, now=wall)
        self.index = shared.lookup._index
        if hasattr(self.index, "_now"):
            self.index._now = wall
        self.tiers = Tiers(self.settings.cache, self.store, self.shadow, wall=wall)

    def similar(self, name: str = "m", **route: Any) -> Similar:
        place = place_of(name, Route(**{"target": "p/m", **route}))
        where = Place(name, place.scope, headers=place.headers)
        return Similar(self.model, Answers(self.tiers, place), self.shared, where)

    def route(self, name: str = "m", **route: Any) -> Cached:
        place = place_of(name, Route(**{"target": "p/m", **route}))
        return Cached(self.similar(name, **route), Answers(self.tiers, place), rng=Random(4))

    async def ask(self, text: str, *, route: Any = None, **fields: Any) -> Answered:
        """Ask, and let what is beside the call end."""
        call = make_call(text, **{"temperature": 0.0, **fields})
        said = await text_of(route or self.route(), call)
        await self.shadow.settle(60)
        return Answered(call.id, said, call.record)


__all__ = ["Answered", "CountedEmbedder", "Instance"]
