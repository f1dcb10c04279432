"""A process that asks its cache the same many times at once, for tests/cache/test_stampede.py.

Its arguments: the store's settings as JSON, how many calls, whether calls in flight are shared, the lease.
It says "ready", waits for a line, asks, and says how many answers were right and what their records say. The
target counts its calls in the store; after the line "hang" it says "asked" and never answers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from random import Random

import msgspec

from firsttoken.cache.answers import Answers, Place
from firsttoken.cache.exact import Cached
from firsttoken.cache.tiers import Tiers
from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.model import Call, Chunk, Model, Source, Usage
from firsttoken.policies.coalesce import Coalesced
from firsttoken.policies.shadow import Shadow
from firsttoken.settings import Cache, Coalesce, StoreSettings
from firsttoken.stores import Guarded, create_store


class Target:
    """Counts, and says ten words in half a second."""

    def __init__(self, store: Guarded) -> None:
        self.store = store
        self.hangs = False

    async def stream(self, _: Call) -> AsyncGenerator[Chunk]:
        await self.store.add("upstream", 1, 60.0)
        if self.hangs:
            say("asked")
            await asyncio.Event().wait()
        for number in range(10):
            await asyncio.sleep(0.05)
            yield Chunk(text=f"{number} ", model="m")
        yield Chunk(finish="stop", usage=Usage(1, 10))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def ask(model: Model) -> tuple[bool, str]:
    request = ChatRequest("m", (Message("user", (Text("Hi"),)),), stream=True, temperature=0.0)
    deadline = asyncio.get_running_loop().time() + 60
    call = Call(request, Source("openai_chat", b"{}"), "1", deadline)
    said = "".join([chunk.text async for chunk in model.stream(call)])
    return said == "0 1 2 3 4 5 6 7 8 9 ", call.record.cache


async def main(settings: str, calls: str, shared: str, lease: str) -> None:
    store = create_store(msgspec.json.decode(settings, type=StoreSettings))
    await store.open()
    shadow = Shadow()
    target = Target(store)
    tiers = Tiers(Cache(mode="on", lease=float(lease)), store, shadow)
    model: Model = Cached(target, Answers(tiers, Place("m")), rng=Random())
    if shared:
        model = Coalesced(model, Coalesce(mode="on"))
    say("ready")
    target.hangs = sys.stdin.readline() == "hang\n"
    told = await asyncio.gather(*[ask(model) for _ in range(int(calls))])
    await shadow.settle(10)
    await store.aclose()
    say(json.dumps([sum(good for good, _ in told), Counter(state for _, state in told)]))


asyncio.run(main(*sys.argv[1:]))
