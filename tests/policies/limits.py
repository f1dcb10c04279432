"""What the tests of rate limits share: limiters, a store that several share, and calls in a crowd."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

from firsttoken.errors import StoreError, UnavailableError
from firsttoken.model import Chunk, Usage
from firsttoken.policies.limit import Limited, Limiter
from firsttoken.policies.shadow import Shadow
from firsttoken.policies.stats import Stats
from firsttoken.settings import Limit, Target
from tests.policies.models import Scripted, Step, make_call, say
from tests.virtual_time import wall


def answer(tokens: int = 2, prompt: int = 5, cached: int = 0) -> tuple[Step, ...]:
    """Say one word and end, with this usage."""
    return say("Hi"), Chunk(finish="stop", usage=Usage(prompt, tokens, cached))


class Counters:
    """A store that several instances share, of counters only; it may be down."""

    shared = True

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.calls = 0
        self.down = False

    async def add(self, key: str, amount: int, ttl: float) -> int:  # noqa: ARG002 - nothing expires within a test
        await asyncio.sleep(0.002)
        if self.down:
            raise StoreError("down")
        self.calls += 1
        self.values[key] = self.values.get(key, 0) + amount
        return self.values[key]


def make_limiter(  # noqa: PLR0913 - each is one thing that a test varies
    kind: str = "bedrock",
    *,
    store: Any = None,
    stats: Stats | None = None,
    name: str = "up/m",
    target: Target | None = None,
    seed: int = 0,
    rpm: int = 0,
    tpm: int = 0,
    **settings: Any,
) -> Limiter:
    """A limiter of a provider that adds input and output up and settles, unless it is of another kind."""
    return Limiter(
        name,
        target or Target(rpm=rpm, tpm=tpm),
        Limit(**settings),
        stats or Stats(),
        store,
        Shadow(),
        kind=kind,
        wall=wall,
        rng=Random(seed),
    )


def limited(limiter: Limiter, *scripts: Sequence[Step]) -> Limited:
    return Limited(Scripted(*(scripts or (answer(),))), limiter)


async def ask(model: Any, **fields: Any) -> str:
    """Call a model and say how it went: the text, or why not, with the seconds that one should wait."""
    try:
        return "".join([chunk.text async for chunk in model.stream(make_call(**fields))])
    except UnavailableError as error:
        return f"{error} [{error.retry_after}]"


async def crowd(model: Any, count: int, **fields: Any) -> list[str]:
    """Call a model many times at once."""
    return await asyncio.gather(*[ask(model, **fields) for _ in range(count)])


def left(limiter: Limiter) -> tuple[int | None, int | None, int | None]:
    """What is left of each limit, rounded down."""
    view = limiter.view()
    return tuple([part and part.left for part in (view.requests, view.tokens, view.output)])
