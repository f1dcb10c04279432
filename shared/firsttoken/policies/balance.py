"""Which target of a route is asked first, and which next: one small strategy each.

All of them are stable (ties keep the configured order) and cost O(n log n) in the targets of the route.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from math import inf, log
from random import Random
from typing import Protocol

from firsttoken.model import Call
from firsttoken.policies.target import Target

EXPLORE = 0.05
"""Share of the calls that show whether another target has become faster than the fastest known."""
_PREFIX = 8192
"""Characters of a prompt that tell conversations apart: what a long one costs is bounded."""
_SPEAKERS = ("system", "developer", "user")


class Balance(Protocol):
    """A strategy."""

    def order(self, call: Call, targets: Sequence[Target], /) -> Sequence[Target]:
        """Return all of ``targets`` in the order in which ``call`` should be sent to them."""
        ...


class Order:
    """As configured."""

    def order(self, _call: Call, targets: Sequence[Target]) -> Sequence[Target]:
        """Return the targets as they are."""
        return targets


class Least:
    """By what a target costs in some way: load, price, use of its quota."""

    def __init__(self, cost: Callable[[Target], float]) -> None:
        self._cost = cost

    def order(self, _call: Call, targets: Sequence[Target]) -> Sequence[Target]:
        """Return the targets, that of the least cost first."""
        return sorted(targets, key=self._cost)


class Weight:
    """By share: weighted rendezvous hashing.

    With ``sticky`` a conversation keeps its target, where its prompt is cached, as long as that is there:
    what is added or removed moves only its own share. A conversation is known by the tenant and the client's
    cache key, or its user, or the beginning of its system and first user messages; what has none of them,
    and everything without ``sticky``, is drawn. Targets that ``weights`` does not name weigh 1.
    """

    def __init__(self, weights: Mapping[str, float], rng: Random, *, sticky: bool = True) -> None:
        self._weights = weights
        self._rng = rng
        self._sticky = sticky

    def order(self, call: Call, targets: Sequence[Target]) -> Sequence[Target]:
        """Return the targets by their scores for this conversation."""
        conversation = conversation_of(call) if self._sticky else None

        def score(target: Target) -> float:
            drawn = self._rng.random() if conversation is None else _draw(conversation, target.name)
            return -log(1 - drawn) / self._weights.get(target.name, 1.0)

        return sorted(targets, key=score)


class Latency:
    """Fastest first token of late (P50).

    `EXPLORE` of the calls go to another one first: to one that nothing is known of, else to any.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def order(self, _call: Call, targets: Sequence[Target]) -> Sequence[Target]:
        """Return the targets, the fastest first and the unknown last; now and then another one leads."""
        ranked = sorted(targets, key=_usual)
        if len(ranked) > 1 and self._rng.random() < EXPLORE:
            unknown = [target for target in ranked if not target.stats.samples]
            other = self._rng.choice(unknown or ranked[1:])
            ranked.remove(other)
            ranked.insert(0, other)
        return ranked


def balance_of(name: str, weights: Mapping[str, float], rng: Random, *, sticky: bool = True) -> Balance:
    """Return the strategy that a route names in ``balance``; ``weights`` by the names of targets.

    ``least_busy``: calls of this instance under way, for the weight; ``cost``: those without a price come
    last; ``quota``: most of the rate limit left.
    """
    strategies: dict[str, Balance] = {
        "order": Order(),
        "weight": Weight(weights, rng, sticky=sticky),
        "least_busy": Least(lambda target: target.stats.in_flight / weights.get(target.name, 1.0)),
        "latency": Latency(rng),
        "cost": Least(lambda target: target.price or inf),
        "quota": Least(lambda target: -target.headroom()),
    }
    return strategies[name]


def _usual(target: Target) -> float:
    median = target.stats.quantile(0.5)
    return inf if median is None else median


def conversation_of(call: Call) -> bytes | None:
    """Return what all calls of a conversation have in common, and no other tenant's; None when unknown."""
    parts = [call.request.cache_key or call.request.user]
    if not parts[0]:
        for message in call.request.messages:
            if message.role in _SPEAKERS:
                parts.append(message.text()[:_PREFIX])
            if message.role == "user":
                break
    if not any(parts):
        return None
    return blake2b("\0".join([call.tenant, *parts]).encode(errors="surrogatepass"), digest_size=16).digest()


def _draw(conversation: bytes, target: str) -> float:
    """Return a number from 0 to less than 1: always the same for the same two."""
    digest = blake2b(conversation + target.encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53
