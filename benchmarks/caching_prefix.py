"""What the providers' prompt caches and the embeddings cache save, in front of a simulated upstream.

``conversation``: twenty turns with a provider that caches by marker and bills as Anthropic does, with and
without the policy that sets the markers. ``workloads``: a thousand random ones, counted in tokens, three
kinds of them made to end just when a write was paid for. ``embeddings``: batches that are known in part.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.caching_workloads import MarkedOnly, bill, workloads
from benchmarks.resilience_row import Row
from firsttoken.cache.embedded import CachedEmbedder
from firsttoken.cache.prefix import Prefixed, PrefixSavings
from firsttoken.cache.prefix_planner import SHARE, Planner
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
HOSTILE = ("once", "twice", "few")
"""Kinds of workloads that end before what was written is read."""
BATCH, KNOWN = 64, 48
ROUNDS = 20
NAME = "p/claude-opus-5"
_INSTRUCTIONS = " ".join(f"Rule {number}: be exact, brief and kind." for number in range(400))


def run() -> dict[str, Any]:
    """Run all parts."""
    rows = {
        "20-turn conversation": asyncio.run(_conversation()),
        "1,000 random workloads": _workloads(),
        "embeddings, 48 of 64 texts known": asyncio.run(_embeddings()),
    }
    return {
        "upstream": "simulated upstream",
        "prices": "of Claude Opus 5: a read a tenth, a write a quarter more",
        "passed": not any(row.failed() for row in rows.values()),
        "rows": {name: row.plain() for name, row in rows.items()},
    }


async def _talk(model: Model) -> list[Usage]:
    messages, used = [Message("system", (Text(_INSTRUCTIONS),))], []
    for turn in range(TURNS):
        question = f"Question {turn}: " + "what does the contract say of it? " * 20
        messages.append(Message("user", (Text(question),)))
        request = ChatRequest("m", tuple(messages), stream=True)
        call = Call(request, Source("openai-chat", b"{}"), "1", asyncio.get_running_loop().time() + 60)
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
    prompt, cached, written, cost = _billed(await _talk(model))
    assert prompt == plain[0]
    return Row(
        measured={
            "saving_on_the_cached_share": round((plain[3] - cost + 0.25 * written) / cached, 4),
            "cached_share": round(cached / prompt, 4),
            "saving_on_the_whole_prompt": round(1 - cost / plain[3], 4),
        },
        bars={"saving_on_the_cached_share": 0.9, "cached_share": 0.85, "saving_on_the_whole_prompt": 0.75},
        least=frozenset({"saving_on_the_cached_share", "cached_share", "saving_on_the_whole_prompt"}),
        also={"turns": TURNS, "prompt_tokens": prompt, "cached_tokens": cached, "written_tokens": written},
    )


def _workloads() -> Row:
    total = plain_total = beyond = 0.0
    losing: dict[str, int] = {}
    for workload in workloads(SEED, WORKLOADS):
        planner = Planner(workload.prices, workload.ttl)
        cost, plain = bill(workload, planner)
        total, plain_total = total + cost, plain_total + plain
        beyond = max(beyond, cost - plain * (1 + SHARE) - planner.ledger.first)
        if cost > plain + 1e-6:
            losing[workload.kind] = losing.get(workload.kind, 0) + 1
    hostile = sum(count for kind, count in losing.items() if kind in HOSTILE)
    return Row(
        measured={
            "cost_against_no_caching": round(total / plain_total, 4),
            "beyond_the_bound": round(beyond, 6),
            "ordinary_workloads_that_lose": sum(losing.values()) - hostile,
        },
        bars={
            "cost_against_no_caching": 0.65,
            "beyond_the_bound": 0.0,
            "ordinary_workloads_that_lose": 0.05 * WORKLOADS,
        },
        also={"workloads": WORKLOADS, "hostile_workloads_that_lose": hostile, "lose_by_kind": losing},
    )


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
