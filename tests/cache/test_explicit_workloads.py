"""What explicit caches cost and save, over many workloads, with the API as a bill."""

from __future__ import annotations

import asyncio
from datetime import date
from random import Random
from typing import Any, cast

from firsttoken.cache.break_even import SHARE
from firsttoken.cache.explicit import Explicit
from firsttoken.cache.explicit_http import Content
from firsttoken.cache.prices import prices_of
from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.model import Call, Source, Usage
from firsttoken.policies.shadow import Shadow
from firsttoken.settings import MemoryStore
from firsttoken.stores.memory import MemoryStore as Memory
from firsttoken.wire import codec_of

MODEL = "gemini-3.8-flash"
DAY = date(2026, 11, 22)
LOSING = 15
"""Of 300, whose calls end just when a cache was made."""
INSTRUCTIONS = "Be exact, brief and kind. " * 800


class Counted:
    """The API as a bill: what caches cost to make, to keep and to read, in tokens at the price of input."""

    model = f"models/{MODEL}"

    def __init__(self, prices: Any) -> None:
        self.prices = prices
        self.cost = 0.0
        self.size = 0
        self.now = self.until = 1e6

    async def create(self, _fields: Any, ttl: float) -> Content:
        self.cost += self.size * (1 + self.prices.storage_share(ttl))
        self.until = self.now + ttl
        return Content(name="cachedContents/x")

    async def renew(self, _name: str, ttl: float) -> None:
        self.cost += self.size * self.prices.storage_share(self.now + ttl - self.until)
        self.until = self.now + ttl

    async def delete(self, _name: str) -> None:
        return


def test_random_workloads_never_cost_more_in_total() -> None:
    """All of them together cost less, and each of them at most one creation or a fiftieth more."""

    async def scenario() -> tuple[float, float]:
        total = plain_total = losing = 0.0
        for seed in range(300):
            rng = Random(seed)
            prices = prices_of(rng.choice([MODEL, "gemini-3.1-pro", "gemini-2.5-flash"]), DAY)
            api, shadow = Counted(prices), Shadow()
            explicit = Explicit(
                cast("Any", api),
                codec_of("gemini"),
                prices,
                store=Memory(MemoryStore()),
                shadow=shadow,
                wall=lambda api=api: api.now,
            )
            gap, plain = 10 ** rng.uniform(0, 3), 0.0
            for _ in range(rng.randint(1, 40)):
                messages = (Message("system", (Text(INSTRUCTIONS),)), Message("user", (Text("Hello"),)))
                call = Call(ChatRequest("m", messages), Source("openai-chat", b"{}"), "1", 0.0)
                _, held, used = explicit.apply(call)
                api.size = held.tokens
                await shadow.settle(5)
                usage = Usage(input=held.tokens, cached=held.tokens * used)
                explicit.ended(held, usage, used=used)
                plain += held.tokens
                api.cost += held.tokens * (prices.read if used else 1)
                api.now += rng.expovariate(1 / gap) if seed % 3 else rng.uniform(0, 600)
            assert api.cost <= plain + max(explicit.ledger.first, SHARE * plain) + 1e-6
            losing += api.cost > plain + 1e-6
            total, plain_total = total + api.cost, plain_total + plain
        assert losing <= LOSING
        return total, plain_total

    cost, plain = asyncio.run(scenario())
    assert cost < 0.8 * plain
