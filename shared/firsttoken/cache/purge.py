"""Purging by label: an answer carries the labels of its tenant, route and tags, each with its last purge.

A purge writes one new mark for its label; every answer that was made under another mark is gone from then on,
in the store and in the memory of all instances, without being looked for.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from msgspec import Struct

from firsttoken.errors import StoreError
from firsttoken.policies.shadow import Shadow
from firsttoken.stores.keys import MAX_TTL
from firsttoken.stores.store import Store

MAX_AGE = 5.0
"""Seconds that a purge takes at most until every instance that reaches the store knows of it."""
_SOFT_AGE = 2.5
"""From then on the marks are read again, beside the call."""
MAX_LABELS = 10_000
ALL = "all"
"""The label of every answer."""


def labels_of(*, tenant: str = "", route: str = "", tags: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the labels of what belongs to a tenant, a route, and tags, as far as they are given."""
    named = [("tenant", tenant), ("route", route), *[("tag", tag) for tag in tags]]
    return tuple([f"{kind}:{name}" for kind, name in named if name])


class _Seen(Struct):
    mark: str
    read: float


class Purges:
    """The last purge of each label, as this instance knows it.

    A copy of at most `MAX_AGE` seconds spares the round trip; while the store is down the copy is used,
    however old it is. Memory: `MAX_LABELS` labels; those read longest ago are read anew.
    """

    def __init__(self, store: Store, shadow: Shadow, *, wall: Callable[[], float] = time.time) -> None:
        self._store = store
        self._shadow = shadow
        self._wall = wall
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._reading: set[str] = set()

    async def marks(self, labels: Iterable[str]) -> dict[str, str]:
        """Return the mark of each label; empty where nothing was purged. One round trip at most."""
        wanted = list(labels)
        now = self._wall()
        ages = [self._age(label, now) for label in wanted]
        if max(ages, default=0.0) > MAX_AGE:
            with suppress(StoreError):  # what is known has to do
                await self._read(wanted)
        elif max(ages, default=0.0) > _SOFT_AGE and self._reading.isdisjoint(wanted):
            self._reading.update(wanted)
            self._shadow.run(self._read(wanted))
        return {label: self._known(label) for label in wanted}

    async def are(self, stamps: Mapping[str, str]) -> bool:
        """Return whether nothing of these labels was purged since they got these marks."""
        return await self.marks(stamps) == stamps

    async def purge(self, labels: Iterable[str]) -> None:
        """Purge all that carries one of ``labels``. Raises StoreError; then some may be purged."""
        mark = f"{self._wall():.3f}-{os.urandom(6).hex()}"
        for label in labels:
            await self._store.put(_name(label), mark.encode(), MAX_TTL)
            self._note(label, mark)

    async def times(self, labels: Iterable[str]) -> dict[str, float]:
        """Return when each label was purged last, Unix seconds, read anew. Raises StoreError."""
        found = await self._fetch(list(labels))
        return {label: _time_of(mark) for label, mark in found.items()}

    async def _read(self, labels: list[str]) -> None:
        try:
            found = await self._fetch(labels)
        finally:
            self._reading.difference_update(labels)
        for label in labels:
            self._note(label, found.get(label) or self._known(label))  # a store that forgets purges nothing

    async def _fetch(self, labels: list[str]) -> dict[str, str]:
        names = {_name(label): label for label in labels}
        found = await self._store.get_many(list(names))
        return {names[name]: value.decode("ascii", "replace") for name, value in found.items()}

    def _age(self, label: str, now: float) -> float:
        seen = self._seen.get(label)
        age = MAX_AGE * 2 if seen is None else now - seen.read
        return age if age >= 0 else MAX_AGE * 2  # the clock was set back

    def _known(self, label: str) -> str:
        seen = self._seen.get(label)
        return "" if seen is None else seen.mark

    def _note(self, label: str, mark: str) -> None:
        self._seen[label] = _Seen(mark, self._wall())
        self._seen.move_to_end(label)
        if len(self._seen) > MAX_LABELS:
            self._seen.popitem(last=False)


def _name(label: str) -> str:
    return f"cache-purged:{label}"


def _time_of(mark: str) -> float:
    try:
        return float(mark.partition("-")[0])
    except ValueError:
        return 0.0  # not ours, but as good a mark as any
