"""Targets around scripted models, and what tests ask of the records of calls."""

from __future__ import annotations

from random import Random
from typing import Any

from firsttoken.errors import UpstreamError
from firsttoken.model import Call
from firsttoken.policies.balance import Order
from firsttoken.policies.failover import Failover
from firsttoken.policies.stats import Stats
from firsttoken.policies.target import Measured, Target
from tests.policies.models import Scripted, make_call, say


def target(name: str, model: Any, **fields: Any) -> Target:
    """A target without any policy of its own."""
    stats = Stats()
    return Target(name, Measured(model, stats), stats, **fields)


def targets(**models: Any) -> list[Target]:
    """Targets named like the arguments."""
    return [target(name, model) for name, model in models.items()]


def failover(*, balance: Any = None, **models: Any) -> Failover:
    """A failover over targets named like the arguments, in this order."""
    return Failover(targets(**models), balance or Order())


def failing(*errors: BaseException) -> Scripted:
    """A model whose calls fail: each with the next error, all further ones with the last."""
    return Scripted(*[(error,) for error in errors])


def broken() -> Scripted:
    """A model each of whose calls fails with an error of its own."""
    return Scripted(lambda _call: (UpstreamError("down"),))


def saying(text: str, after: float = 0.0) -> Scripted:
    """A model that says one text and ends."""
    return Scripted((after, say(text), say("", finish="stop")))


def learned(of: Target, seconds: float, samples: int = 60) -> None:
    """Let a target's first tokens have come after so many seconds."""
    for _ in range(samples):
        of.stats.began(seconds)


def attempts(call: Call) -> list[str]:
    """What became of a call's attempts: ``kind:target:outcome``."""
    return call.record.summary()["attempts"]


def seeded() -> Random:
    return Random(7)


__all__ = [
    "attempts",
    "broken",
    "failing",
    "failover",
    "learned",
    "make_call",
    "saying",
    "seeded",
    "target",
    "targets",
]
