"""Rows that ask a gateway in this process: answers cut anywhere, shared answers, the cost of policies."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from typing import Any

from benchmarks.resilience_calls import call, chunks, expected, gateway
from benchmarks.resilience_row import Row
from firsttoken.bench.child import Simulator
from firsttoken.errors import FirstTokenError
from firsttoken.gateway import Gateway
from firsttoken.simulator.profile import HEADER

TOKENS = 60
FORMATS: dict[str, dict[str, Any]] = {
    "openai chat": {"kind": "openai", "path": "/v1"},
    "openai responses": {"kind": "openai", "path": "/v1", "api": "responses"},
    "anthropic": {"kind": "anthropic", "path": ""},
    "gemini": {"kind": "gemini", "path": "/v1beta"},
    "bedrock": {"kind": "bedrock", "path": "", "region": "any"},
}
_AT_ONCE = 8
_CALLS = 400
_LONG = 500


def cut(*, short: bool = False) -> Row:
    """Cut answers at a random token: they are gone on with, word for word, from every wire format."""
    runs = 20 if short else 1000
    simulator = Simulator("simulator", f"ttft_ms=0,itl_ms=0,tokens={TOKENS}")
    try:
        simulator.start()
        whole = {name: asyncio.run(_cut(simulator.url, name, runs)) for name in FORMATS}
    finally:
        simulator.stop()
    share = min(row["identical"] / runs for row in whole.values())
    return Row(
        {"identical": share}, {"identical": 0.99}, frozenset({"identical"}), {"runs": runs, "formats": whole}
    )


async def _cut(url: str, name: str, runs: int) -> dict[str, int]:
    given = dict(FORMATS[name])
    provider = {"base_url": url + given.pop("path"), "api_key": "any", **given}
    ours = gateway(
        {
            "providers": {"cut": {**provider, "forward_headers": [HEADER]}, "whole": provider},
            "models": {"chat": {"targets": ["cut/m", "whole/m"]}},
            "breaker": {"enabled": False},  # else the cut target would be left alone
            "throttle": {"enabled": False},
            "hedge": {"enabled": False},
            "retry": {"budget": runs},
        }
    )
    rng = random.Random(name)  # noqa: S311 - where to cut, not secrets
    counts = {"identical": 0, "resumed": 0, "repeated": 0, "failed": 0}
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int, after: int) -> None:
        prompt = f"{number} Zürich 東京"
        asked = call(prompt, headers={HEADER: f"fault=cut,after={after}"})
        async with turn:
            try:
                said = await chunks(ours, asked)
            except FirstTokenError:
                counts["failed"] += 1
                return
        whole, text = expected(prompt, TOKENS), "".join([chunk.text for chunk in said])
        counts["identical"] += text == whole and any(chunk.finish for chunk in said)
        counts["repeated"] += len(text) > len(whole)
        counts["resumed"] += asked.record.resumed > 0

    await asyncio.gather(*(one(number, rng.randrange(1, TOKENS)) for number in range(runs)))
    await ours.aclose()
    return counts


def leader_leaves(*, short: bool = False) -> Row:
    """Let the first of many identical calls leave before its first token; all others are answered."""
    return asyncio.run(_leader_leaves(100 if short else 1000, ttft_ms=200 if short else 1000))


async def _leader_leaves(calls: int, ttft_ms: float) -> Row:
    ours = gateway(_simulated(f"ttft_ms={ttft_ms},itl_ms=1"))
    tasks = [
        asyncio.create_task(chunks(ours, call("the same", temperature=0.0, seed=1))) for _ in range(calls)
    ]
    await asyncio.sleep(ttft_ms / 2000)
    tasks[0].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    texts = ["".join([chunk.text for chunk in said]) for said in answers if isinstance(said, list)]
    upstream = sum(target.stats.calls for target in ours.targets.values())
    await ours.aclose()
    return Row(
        {"upstream_calls": upstream, "answered": len([text for text in texts if text]) / (calls - 1)},
        {"upstream_calls": 1, "answered": 1.0},
        frozenset({"answered"}),
        {"different_texts": len(set(texts))},
    )


def overhead(*, short: bool = False) -> Row:
    """Measure the CPU time of all policies on the healthy path, beyond the bare provider's."""
    rounds, calls = (3, 40) if short else (21, _CALLS)
    return asyncio.run(_overhead(rounds, calls))


async def _overhead(rounds: int, calls: int) -> Row:
    per_call: list[float] = []
    per_chunk: list[float] = []
    one = gateway(_everything("ttft_ms=0,itl_ms=0,tokens=1"))
    many = gateway(_everything(f"ttft_ms=0,itl_ms=0,tokens={_LONG}"))
    for turn in range(rounds + 1):
        small, large = await _added(one, calls), await _added(many, max(calls // 10, 4))
        if turn:  # the first round warms up
            per_call.append(small)
            per_chunk.append((large - small) / (_LONG - 1))
    await one.aclose()
    await many.aclose()
    return Row(
        {
            "request_us": round(statistics.median(per_call), 1),
            "chunk_us": round(statistics.median(per_chunk), 2),
        },
        {"request_us": 150, "chunk_us": 2},
        also={"rounds": rounds, "calls": calls},
    )


async def _added(ours: Gateway, calls: int) -> float:
    """Return the microseconds that a call through the gateway takes beyond one of its provider."""
    bare = next(iter(ours.providers.values()))
    return (await _cpu(ours, calls) - await _cpu(bare, calls)) / calls * 1e6


async def _cpu(model: Any, calls: int) -> float:
    asked = [call(f"{number}: what is a token?", temperature=0.0) for number in range(calls)]
    start = time.process_time()
    for one in asked:
        async for _ in model.stream(one):
            pass
    return time.process_time() - start


def _simulated(profile: str) -> dict[str, Any]:
    provider = {"kind": "simulated", "profile": profile}
    return {
        "providers": {"a": provider, "b": provider},
        "models": {"chat": {"targets": ["a/m", "b/m"]}},
    }


def _everything(profile: str) -> dict[str, Any]:
    return {
        **_simulated(profile),
        "coalesce": {"mode": "on"},
        "targets": {"a/m": {"rpm": 100_000_000, "tpm": 100_000_000_000}},
    }
