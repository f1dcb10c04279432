"""The kept answers of one route: which key a call has, what is kept under it, and giving it again."""

from __future__ import annotations

import hmac
from collections.abc import AsyncGenerator, Sequence

from msgspec import Struct

from firsttoken.cache import policy
from firsttoken.cache.entry import Entry
from firsttoken.cache.key import request_key
from firsttoken.cache.purge import ALL, labels_of
from firsttoken.cache.replay import paced
from firsttoken.cache.tiers import Tiers
from firsttoken.model import Call, Chunk
from firsttoken.settings import Route

SIMULATE = "x-firsttoken-simulate"
"""A header that chooses what a simulated target does."""


class Place(Struct, frozen=True):
    """What of a key is the route's, and the labels that its answers can be purged by."""

    scope: str
    labels: tuple[str, ...] = ()
    headers: tuple[str, ...] = (SIMULATE,)
    """The client's headers that change the answer: those that targets get to see."""


def place_of(name: str, route: Route, headers: Sequence[str] = ()) -> Place:
    """Return the place of a route: another name, version or list of targets has answers of its own."""
    instead = (*route.context_overflow, "", *route.content_filter)
    parts = (name, route.version, *[item.target for item in route.all_targets()], "", *instead)
    scope = "".join([f"{len(part)}:{part}" for part in parts])  # no two lists look the same
    return Place(scope, labels_of(route=name, tags=route.tags), tuple({SIMULATE, *headers}))


class Answers:
    """What `Cached`, `Similar` and `Stale` of a route have in common."""

    def __init__(self, tiers: Tiers, place: Place) -> None:
        self.tiers = tiers
        self._place = place

    def key(self, call: Call) -> str | None:
        """Return the key of the answer to ``call``; None where no other call's answer may be given for it.

        That is where it is not to be kept, where the client wants a new one, and where it can only be given
        in the form in which it came. Time: that of `request_key` and `policy.may_cache`.
        """
        if keeps_raw(call) or policy.wish_of(call.headers) == "no-cache":
            return None
        return self.key_to_keep(call)

    def key_to_keep(self, call: Call) -> str | None:
        """Return the key of the answer to ``call``, or None where that is not to be kept.

        Raises RequestError as `request_key` does.
        """
        settings, sent = self.tiers.settings, call.headers
        if policy.wish_of(sent) == "no-store" or not policy.may_cache(call.request, settings):
            return None
        said = [f"{name}: {sent[name]}" for name in sorted(self._place.headers) if name in sent]
        key = request_key(call, scope="\n".join([self._place.scope, *said, *_delivery(call)]))
        if key is None or not self.tiers.secret:
            return key
        return hmac.digest(self.tiers.secret.encode(), key.encode(), "sha256").hex()

    def labels(self, call: Call) -> tuple[str, ...]:
        """Return the labels of the answer to ``call``."""
        return (ALL, *labels_of(tenant=call.tenant), *self._place.labels)

    async def load(self, key: str) -> Entry | None:
        """Return the answer of a key, or None where there is none, or it is too old or damaged."""
        entry = await self.tiers.load(key)
        return None if entry is None or not entry.chunks else entry

    def serves(self, entry: Entry, call: Call) -> bool:
        """Return whether an entry has all that this client gets: token counts are not always told."""
        request = call.request
        if not entry.chunks:
            return entry.refusal is not None
        return entry.has_usage() or (request.stream and not request.include_usage)

    async def replay(self, entry: Entry, call: Call) -> AsyncGenerator[Chunk]:
        """Stream an answer again, at once or at the configured pace, and say where it came from."""
        call.record.target = entry.target
        pace = self.tiers.settings.pace
        if pace and call.request.stream:
            async for chunk in paced(entry.chunks, pace):
                yield chunk
            return
        for chunk in entry.chunks:
            yield chunk


def keeps_raw(call: Call) -> bool:
    """Return whether the target's own bytes belong to an answer.

    That is so where a request has fields without a neutral word: their answer may have some, too.
    """
    return bool(call.source.unknown)


def _delivery(call: Call) -> tuple[str, ...]:
    """Return how an answer is delivered, where that is part of its key: with the target's own bytes."""
    request = call.request
    if not keeps_raw(call):
        return ()
    return (f"raw: {call.source.wire} {request.stream} {request.include_usage}",)
