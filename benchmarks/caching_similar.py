"""What a look-up of a similar question costs: index, embedded embedder, guard. CPU of one core, no store.

Questions are made of a few hundred words, so that thousands of them are near each other, as those of one
product's users are.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable
from random import Random
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one core: read when numpy is imported

from firsttoken.cache.index import MemoryIndex, Question
from firsttoken.cache.similar_lookup import rules_for
from firsttoken.providers import lexical

SIZES = (10_000, 100_000)
BARS = {"look-up among 10,000": 1.0, "look-up among 100,000": 6.0, "embedded embedder, 10 words": 5.0}
_VERBS = ("reset", "cancel", "renew", "change", "find", "download", "repair", "clean", "order", "return")
_THINGS = ("invoice", "password", "account", "refund", "parcel", "router", "laptop", "passport", "visa")
_PLACES = ("Berlin", "Paris", "Oslo", "Madrid", "Rome", "Vienna", "Prague", "Lisbon", "Dublin", "Athens")
_FORMS = (
    "How do I {verb} my {thing} number {number} in {place}?",
    "What is the best way to {verb} a {thing} when I live in {place}, case {number}?",
    "Can you explain how to {verb} the {thing} {number} of the {place} office?",
)


def questions(count: int) -> list[str]:
    """Return so many different questions."""
    rng = Random(1)  # noqa: S311 - no secret
    found: dict[str, None] = {}
    while len(found) < count:
        words = {"verb": rng.choice(_VERBS), "thing": rng.choice(_THINGS), "place": rng.choice(_PLACES)}
        found[rng.choice(_FORMS).format(number=rng.randrange(1000), **words)] = None
    return list(found)


def cpu_ms(work: Callable[[int], object], times: int) -> float:
    """Return the median CPU time of a call, in milliseconds."""
    taken = []
    for number in range(times):
        before = time.process_time()
        work(number)
        taken.append(time.process_time() - before)
    return round(statistics.median(taken) * 1000, 3)


def look_up(texts: list[str]) -> tuple[float, float, float]:
    """Return CPU ms of finding five among the questions, how often the twin was found, and bytes each."""
    index = MemoryIndex(len(texts))
    for number, text in enumerate(texts):
        index.put("s", Question(str(number), text, "", lexical.embed(text, 384)))
    rng = Random(2)  # noqa: S311 - no secret
    asked = [rng.randrange(len(texts)) for _ in range(200)]
    vectors = [lexical.embed(f"{texts[number]} please", 384) for number in asked]
    found = [0]

    async def all_of_them() -> float:
        taken = []
        for number, vector in zip(asked, vectors, strict=True):
            before = time.process_time()
            near = await index.nearest("s", vector, 5)
            taken.append(time.process_time() - before)
            found[0] += near[0].key == str(number)
        return statistics.median(taken) * 1000

    took = asyncio.run(all_of_them())
    return round(took, 3), round(found[0] / len(asked), 3), index.nbytes / len(texts)


def _embed_anew(text: str) -> bytes:
    """Embed a text none of whose words was seen before: the worst case."""
    lexical._places.cache_clear()  # noqa: SLF001 - nobody else may forget them
    return lexical.embed(text, 384)


def run() -> dict[str, Any]:
    """Measure, and check the bars."""
    texts = questions(max(SIZES))
    rules = rules_for("en", lexical=True)
    measured: dict[str, float] = {}
    recall: dict[str, float] = {}
    memory: dict[str, int] = {}
    for size in SIZES:
        name = f"look-up among {size:,}"
        measured[name], recall[name], each = look_up(texts[:size])
        memory[name] = round(each)
    measured["embedded embedder, 10 words"] = cpu_ms(lambda number: _embed_anew(texts[number]), 500)
    measured["canonical form"] = cpu_ms(lambda number: rules.canonical(texts[number]), 500)
    measured["guard reads a question"] = cpu_ms(lambda number: rules.prepare(texts[number]), 500)
    twins = [(rules.prepare(text), rules.prepare(f"{text[:-1]} please?")) for text in texts[:500]]
    assert all(rules.verdict(*twin).same for twin in twins)
    measured["guard compares two that pass"] = cpu_ms(lambda number: rules.verdict(*twins[number]), 500)
    for name, bar in BARS.items():
        assert measured[name] <= bar, f"{name}: {measured[name]} ms, bar {bar} ms"
    assert min(recall.values()) >= 0.99, recall
    return {"bars_ms": BARS, "cpu_ms": measured, "found": recall, "bytes_each": memory}
