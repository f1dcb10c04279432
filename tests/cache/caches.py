"""Caches for the tests: instances that share a store, each with a model that follows a script."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

from policies.models import END, Scripted, collect, make_call, say
from virtual_time import wall

from firsttoken.cache.answers import Answers, Place, place_of
from firsttoken.cache.exact import Cached
from firsttoken.cache.tiers import Tiers
from firsttoken.errors import StoreError
from firsttoken.model import Call, Chunk
from firsttoken.policies.shadow import Shadow
from firsttoken.settings import Cache, Route
from firsttoken.settings import MemoryStore as StoreSettings
from firsttoken.stores.memory import MemoryStore

SLOW = (*[step for number in range(8) for step in (1.0, say(f"{number} "))], END)
"""An answer of eight seconds."""
WHOLE = "0 1 2 3 4 5 6 7 "
ON = Cache(mode="on")
PLACE = place_of("m", Route(target="p/m", tags=["docs"]))


class SharedStore(MemoryStore):
    """A store that instances share; ``down`` makes every operation fail, ``asked`` counts them."""

    shared = True

    def __init__(self) -> None:
        super().__init__(StoreSettings())
        self.down = False
        self.asked: dict[str, int] = {}

    def __getattribute__(self, name: str) -> Any:
        if name in ("get", "get_many", "put", "swap", "delete", "add", "lease", "release"):
            self.asked[name] = self.asked.get(name, 0) + 1
            if self.down:
                return _fail
        return super().__getattribute__(name)

    def names(self, prefix: str) -> list[str]:
        """The keys of the values that begin like this."""
        return [key for kind, key in self._entries if kind == "value" and key.startswith(prefix)]


async def _fail(*_: Any) -> Any:
    raise StoreError("The store cannot be had.")


class Instance:
    """One process: its own memory, perhaps a shared store."""

    def __init__(
        self, model: Any, store: MemoryStore | None = None, place: Place = PLACE, **settings: Any
    ) -> None:
        self.store = MemoryStore(StoreSettings()) if store is None else store
        self.shadow = Shadow()
        cache = Cache(**{"mode": "on", **settings})
        self.tiers = Tiers(cache, self.store, self.shadow, wall=wall)
        self.answers = Answers(self.tiers, place)
        self.cached = Cached(model, self.answers, rng=Random(1))
        self.stream = self.cached.stream

    async def ask(self, call: Call | None = None, **fields: Any) -> tuple[str, list[Chunk]]:
        """Ask, wait as a runtime does until the answer is kept, and return what the record says of it."""
        call = asked(**fields) if call is None else call
        try:
            chunks = await collect(self, call)
        finally:
            await self.shadow.settle(1000)
        return call.record.cache, chunks


def asked(text: str = "Hi", *, headers: dict[str, str] | None = None, **fields: Any) -> Call:
    """A call whose answer may be kept: temperature 0."""
    call = make_call(text, **{"temperature": 0.0, **fields})
    call.headers = headers or {}
    return call


def text(chunks: Sequence[Chunk]) -> str:
    return "".join([chunk.text for chunk in chunks])


async def later(*works: Any, turns: int = 5) -> list[asyncio.Task[Any]]:
    """Start tasks and let them begin."""
    tasks = [asyncio.ensure_future(work) for work in works]
    for _ in range(turns):
        await asyncio.sleep(0)
    return tasks


__all__ = ["END", "SLOW", "WHOLE", "Instance", "Scripted", "SharedStore", "asked", "later", "say", "text"]
