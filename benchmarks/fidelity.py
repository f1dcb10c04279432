"""How faithfully a stream keeps its pace through each runtime, and what each adds to the first token.

The simulated upstream sends a token each 20 ms. Gaps and first tokens are taken by a raw socket client; for
the added time to the first token, calls to the simulator and through the endpoint take turns.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

from benchmarks.processes import ROOT

sys.path.insert(0, str(ROOT / "tests" / "conformance"))

GAP_MS = 20
TOKENS = 60
STREAMS = 5
TTFT_CALLS = 200
BARS = {"median_gap_ms": [17, 23], "added_ttft_ms": 5}


async def arrivals(url: str, spec: str, key: str) -> list[float]:
    """Return the milliseconds from sending a request to each of its tokens."""
    host, _, port = url.removeprefix("http://").partition(":")
    body = json.dumps(
        {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"x-firsttoken-simulate: {spec}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, int(port))
    started = time.perf_counter()
    writer.write(head.encode() + body)
    found: list[float] = []
    while data := await reader.read(65536):
        now = (time.perf_counter() - started) * 1000
        found.extend([now] * data.count(b'"content":"'))
    writer.close()
    return found[1:]  # the first event has the role and no text


def _median_gap(streams: list[list[float]]) -> float:
    gaps = [later - earlier for times in streams for earlier, later in pairwise(times)]
    return round(statistics.median(gaps), 2)


async def _measure() -> dict[str, Any]:
    import tempfile
    from pathlib import Path

    from endpoints import KEY, RUNTIMES, configuration, simulator

    spec = f"ttft_ms=20,itl_ms={GAP_MS},tokens={TOKENS}"
    gaps: dict[str, float] = {}
    added: dict[str, float] = {}
    for name, start in RUNTIMES.items():
        if name == "aws-rie":
            continue  # it buffers: see docs/conformance.md
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            upstream = await stack.enter_async_context(simulator())
            url = await stack.enter_async_context(start(configuration(folder, upstream)))
            await arrivals(url, spec, KEY)
            gaps[name] = _median_gap([await arrivals(url, spec, KEY) for _ in range(STREAMS)])
            quick = f"ttft_ms=20,itl_ms={GAP_MS},tokens=2"
            pairs = [
                ((await arrivals(upstream, quick, KEY))[0], (await arrivals(url, quick, KEY))[0])
                for _ in range(TTFT_CALLS)
            ]
            added[name] = round(
                statistics.median(b for _, b in pairs) - statistics.median(a for a, _ in pairs), 2
            )
    return {
        "upstream": "simulated upstream, one token each 20 ms",
        "median_gap_ms": gaps,
        "added_ttft_ms": added,
        "bars": BARS,
        "streams": STREAMS,
        "ttft_calls": TTFT_CALLS,
    }


def run() -> dict[str, Any]:
    """Measure every runtime but AWS's own emulator."""
    return asyncio.run(_measure())
