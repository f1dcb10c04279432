"""What micro-batches of embeddings bring: texts a second of 64 callers, each with one text, off and on.

The gateway runs in this process, the upstream is a simulated one in another, over HTTP. Two upstreams: one
whose accelerator takes 8 ms a call and 0.1 ms a text, one call after the other, and one that takes no time,
so that only the work for each call counts.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from benchmarks.processes import address, started
from firsttoken.embedding import EmbedCall, Embeddings, EmbedRequest
from firsttoken.gateway import Gateway
from firsttoken.settings import Cache, Embedding, OpenAIProvider, Settings

CALLERS, SECONDS, ROUNDS, WINDOW = 64, 2.0, 5, 0.003
UPSTREAMS = {
    "accelerator, 8 ms a call + 0.1 ms a text": "ttft_ms=0,embed_call_ms=8,embed_text_ms=0.1",
    "no time of its own": "ttft_ms=0",
}
BAR = 10.0


class Waits:
    """Stands between the batches and the target, and notes how long each text has waited there."""

    def __init__(self, embedder: Any) -> None:
        self._embedder = embedder
        self.entered: dict[str, float] = {}
        self.waits: list[float] = []

    async def embed(self, call: EmbedCall) -> Embeddings:
        """Note who goes, and pass the call on."""
        now = time.perf_counter()
        self.waits.extend(now - self.entered.pop(text) for text in call.request.inputs)
        return await self._embedder.embed(call)


async def measure(url: str, window: float) -> tuple[float, list[float]]:
    """Return texts a second, and the seconds that each text waited for company."""
    item = Embedding(target="up/m", window=window)
    settings = Settings(
        providers={"up": OpenAIProvider(base_url=url, api_key="none")},
        embeddings={"e": item},
        cache=Cache(mode="off"),
    )
    gateway = Gateway(settings)
    embedder = gateway.embedders["e"]
    waits = Waits(embedder._embedder if window else embedder)  # noqa: SLF001 - measured from within
    if window:
        embedder._embedder = waits  # noqa: SLF001
    outer = embedder if window else waits
    loop = asyncio.get_running_loop()
    done = 0

    async def caller(number: int) -> None:
        nonlocal done
        count = 0
        while loop.time() < end:
            text = f"caller {number} asks for text {count}"
            waits.entered[text] = time.perf_counter()
            call = EmbedCall(EmbedRequest("e", (text,)), deadline=loop.time() + 30, tenant=f"t{number % 8}")
            await outer.embed(call)
            count += 1
            done += 1

    end = loop.time() + SECONDS / 4
    await asyncio.gather(*map(caller, range(CALLERS)))  # connections and imports
    done, waits.waits = 0, []
    began, end = loop.time(), loop.time() + SECONDS
    await asyncio.gather(*map(caller, range(CALLERS)))
    rate = done / (loop.time() - began)
    await gateway.aclose()
    return rate, waits.waits


def run() -> dict[str, Any]:
    """Return the medians of interleaved rounds."""
    rows = []
    for name, profile in UPSTREAMS.items():
        off, on, waits = [], [], []
        sim = ["-m", "firsttoken.cli", "sim", "--port", "0", "--profile", profile]
        with started(sim) as (_, line):
            url = address(line).rstrip("/")
            for _ in range(ROUNDS):
                off.append(asyncio.run(measure(url, 0.0))[0])
                rate, waited = asyncio.run(measure(url, WINDOW))
                on.append(rate)
                waits.extend(waited)
        gain = statistics.median(b / a for a, b in zip(off, on, strict=True))
        rows.append(
            {
                "upstream": f"simulated upstream: {name}",
                "texts/s, one call each": round(statistics.median(off)),
                "texts/s, micro-batches": round(statistics.median(on)),
                "gain": round(gain, 1),
                "added wait P50 ms": round(statistics.median(waits) * 1000, 2),
                "window ms": WINDOW * 1000,
            }
        )
    passed = rows[0]["gain"] >= BAR and all(row["added wait P50 ms"] <= row["window ms"] for row in rows)
    return {
        "upstream": "simulated upstream",
        "callers": CALLERS,
        "rounds of s": [ROUNDS, SECONDS],
        "bar": BAR,
        "passed": passed,
        "rows": rows,
    }
