"""What the providers' prompt caches and the embeddings cache save, in front of a simulated upstream.

``conversation``: twenty turns with a provider that caches by marker and bills as Anthropic does, with and
without the policy that sets the markers; the second conversation of a deployment, with nothing in common
with its first. ``workloads``: random ones, counted in tokens, three kinds of them made to end just when a
write was paid for. ``embeddings``: batches that are known in part.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.caching_workloads import MarkedOnly, bill, bills, workloads
from benchmarks.resilience_row import Row
from firsttoken.cache.break_even import SHARE
from firsttoken.cache.embedded import CachedEmbedder
from firsttoken.cache.prefix import Prefixed, PrefixSavings
from firsttoken.cache.prefix_ledger import SharedLedger
from firsttoken.cache.prefix_planner import Planner
from firsttoken.cache.prefix_rules import rules_of
from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.embedding import EmbedCall, EmbedRequest
from firsttoken.model import Call, Model, Source, Usage
from firsttoken.policies.shadow import Shadow
from firsttoken.providers.embed_simulated import SimulatedEmbedder
from firsttoken.settings import AnthropicProvider, Cache, MemoryStore, Prefix, SimulatedProvider
from firsttoken.stores.memory import MemoryStore as Memory

TURNS = 20
WORKLOADS = 1_000
SEED = 1
SEEDS = (1, 2, 3)
"""Of workloads that the thresholds were not chosen on (those were 11 to 18)."""
BATCH, KNOWN = 64, 48
ROUNDS = 20
NAME = "p/claude-opus-5"
_INSTRUCTIONS = " ".join(f"Rule {number}: be exact, brief and kind." for number in range(400))


def run() -> dict[str, Any]:
    """Run all parts."""
    rows = {
        "20-turn conversation": asyncio.run(_conversation()),
        "3 x 1,000 workloads, each a new deployment": _fresh(),
        "1,000 workloads, each a new instance of one": asyncio.run(_fleet()),
        "embeddings, 48 of 64 texts known": asyncio.run(_embeddings()),
    }
    return {
        "upstream": "simulated upstream",
        "prices": "of Claude Opus 5: a read a tenth, a write a quarter more",
        "passed": not any(row.failed() for row in rows.values()),
        "rows": {name: row.plain() for name, row in rows.items()},
    }


async def _talk(model: Model, tenant: str = "a") -> list[Usage]:
    messages, used = [Message("system", (Text(_INSTRUCTIONS),))], []
    for turn in range(TURNS):
        question = f"Question {turn}: " + "what does the contract say of it? " * 20
        messages.append(Message("user", (Text(question),)))
        request = ChatRequest("m", tuple(messages), stream=True)
        deadline = asyncio.get_running_loop().time() + 60
        call = Call(request, Source("openai-chat", b"{}"), "1", deadline, tenant=tenant)
        chunks = [chunk async for chunk in model.stream(call)]
        messages.append(Message("assistant", (Text("".join([chunk.text for chunk in chunks])),)))
        used.append(next(chunk.usage for chunk in reversed(chunks) if chunk.usage))
    return used


def _billed(used: list[Usage]) -> tuple[int, int, int, float]:
    """Return tokens of prompts, cached and written, and what they cost in tokens at the price of input."""
    prompt, cached, written = (
        sum(getattr(usage, name) for usage in used) for name in ("input", "cached", "cache_write")
    )
    return prompt, cached, written, prompt - 0.9 * cached + 0.25 * written


async def _conversation() -> Row:
    rules = partial(rules_of, AnthropicProvider())
    plain = _billed(await _talk(MarkedOnly()))
    model = Prefixed(MarkedOnly(), Prefix(), rules, name=NAME, savings=PrefixSavings())
    first = _billed(await _talk(model))
    prompt, cached, written, cost = _billed(await _talk(model, "another tenant"))
    assert prompt == plain[0] == first[0]
    return Row(
        measured={
            "saving_on_the_cached_share": round((plain[3] - cost + 0.25 * written) / cached, 4),
            "cached_share": round(cached / prompt, 4),
            "saving_on_the_whole_prompt": round(1 - cost / plain[3], 4),
        },
        bars={"saving_on_the_cached_share": 0.9, "cached_share": 0.85, "saving_on_the_whole_prompt": 0.75},
        least=frozenset({"saving_on_the_cached_share", "cached_share", "saving_on_the_whole_prompt"}),
        also={
            "turns": TURNS,
            "prompt_tokens": prompt,
            "cached_tokens": cached,
            "written_tokens": written,
            "cached_share_of_the_first": round(first[1] / prompt, 4),
            "saving_on_the_whole_prompt_of_the_first": round(1 - first[3] / plain[3], 4),
        },
    )


def _fresh() -> Row:
    """Run workloads as deployments that know nothing of each other, with nothing in their ledgers."""
    total = plain_total = beyond = largest = 0.0
    losing: dict[str, int] = {}
    by_seed: dict[int, int] = {}
    for seed in SEEDS:
        for workload in workloads(seed, WORKLOADS):
            planner = Planner(workload.prices, workload.ttl)
            cost, plain = bill(workload, planner)
            total, plain_total = total + cost, plain_total + plain
            beyond = max(beyond, cost - plain - max(planner.ledger.first, SHARE * plain))
            if cost > plain + 1e-6:
                losing[workload.kind] = losing.get(workload.kind, 0) + 1
                by_seed[seed] = by_seed.get(seed, 0) + 1
                largest = max(largest, cost / plain - 1)
    return Row(
        measured={
            "cost_against_no_caching": round(total / plain_total, 4),
            "beyond_the_bound": round(beyond, 6),
            "that_lose_of_1000": round(sum(losing.values()) / len(SEEDS), 1),
        },
        bars={"cost_against_no_caching": 0.65, "beyond_the_bound": 0.0, "that_lose_of_1000": 6.0},
        also={
            "workloads": WORKLOADS * len(SEEDS),
            "lose_by_seed": by_seed,
            "lose_by_kind": losing,
            "largest_loss_share": round(largest, 4),
        },
    )


async def _fleet() -> Row:
    """Run workloads one after the other, as instances that share a ledger and die without a word."""
    store, shadow = _Counting(MemoryStore()), Shadow()
    cost = plain = worst = 0.0
    calls = losing = 0
    for workload in workloads(SEED, WORKLOADS):
        planner = Planner(workload.prices, workload.ttl, SharedLedger(store, shadow, NAME))
        own = 0.0
        for with_caching, without in bills(workload, planner):
            cost, plain, calls = cost + with_caching, plain + without, calls + 1
            own += with_caching - without
            worst = max(worst, cost - plain)
            await shadow.settle(1)
        losing += own > 1e-6
    first = float(await store.get(f"prefix-ledger:{NAME}:first") or 0)
    return Row(
        measured={
            "cost_against_no_caching": round(cost / plain, 4),
            "ever_above_no_caching_and_the_first_write": round(max(0.0, worst - first), 6),
            "store_operations_a_call": round(store.operations / calls, 3),
        },
        bars={
            "cost_against_no_caching": 0.65,
            "ever_above_no_caching_and_the_first_write": 0.0,
            "store_operations_a_call": 1.0,
        },
        also={
            "instances": WORKLOADS,
            "calls": calls,
            "first_write": first,
            "ever_above_no_caching": round(worst, 2),
            "instances_that_lose": losing,
        },
    )


class _Counting(Memory):
    """A memory that several instances share; counts what is asked of it."""

    shared = True
    operations = 0

    async def get(self, key: str) -> bytes | None:
        self.operations += 1
        return await super().get(key)

    async def add(self, key: str, amount: int, ttl: float) -> int:
        self.operations += 1
        return await super().add(key, amount, ttl)


async def _embeddings() -> Row:
    inner = SimulatedEmbedder(SimulatedProvider(ttft_ms=0))
    embedder = CachedEmbedder(inner, Memory(MemoryStore()), Shadow(), Cache(mode="on"), "p/embed")
    sent, partly, wholly, never = [], [], [], []
    for number in range(ROUNDS):
        texts = tuple(
            [f"round {number}, text {place}: what does the contract say?" for place in range(BATCH)]
        )
        await embedder.embed(_call(texts[:KNOWN]))
        before = embedder.misses
        partly.append(await _cpu(lambda texts=texts: embedder.embed(_call(texts))))
        sent.append(embedder.misses - before)
        wholly.append(await _cpu(lambda texts=texts: embedder.embed(_call(texts))))
        never.append(await _cpu(lambda texts=texts: inner.embed(_call(texts))))
    return Row(
        measured={"sent_share": max(sent) / BATCH},
        bars={"sent_share": (BATCH - KNOWN) / BATCH},
        also={
            "cpu_us_a_known_text": round(statistics.median(wholly) / BATCH * 1e6),
            "cpu_ms_a_batch_known_in_part": round(statistics.median(partly) * 1e3, 2),
            "cpu_ms_a_batch_of_the_embedded_embedder": round(statistics.median(never) * 1e3, 2),
            "dimensions": 384,
        },
    )


def _call(texts: tuple[str, ...]) -> EmbedCall:
    return EmbedCall(EmbedRequest("m", texts), asyncio.get_running_loop().time() + 60)


async def _cpu(work: Callable[[], Any]) -> float:
    began = time.process_time()
    await work()
    return time.process_time() - began
