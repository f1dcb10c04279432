"""What a call through the gateway costs the serving process, in CPU time.

The simulated upstream answers without delay. A bare aiohttp proxy is measured on the same machine in the same
minutes: absolute figures are this machine's, ratios travel. Method: 16 connections, the process under test
alone on core 0, upstream and load on core 1, medians of rounds.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
from typing import Any

from benchmarks.processes import address, cpu_seconds, started
from benchmarks.upstream import TOKENS

CONCURRENCY = 16
ROUNDS = 5
CALLS = 3000
STREAMS = 160
BARS = {"request_us": 350, "chunk_us": 15}
_MESSAGES = [{"role": "user", "content": "word " * 180}]


def _request(*, stream: bool) -> bytes:
    body = json.dumps({"model": "m", "messages": _MESSAGES, "stream": stream}, separators=(",", ":")).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"content-type: application/json\r\n\r\n" + body


async def _worker(host: str, port: int, request: bytes, calls: int, end: bytes) -> None:
    reader, writer = await asyncio.open_connection(host, port, limit=2**20)
    for _ in range(calls):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        if end:
            await reader.readuntil(end)
        else:
            lower = head.lower()
            start = lower.index(b"content-length:") + 15
            await reader.readexactly(int(lower[start : lower.index(b"\r\n", start)]))
    writer.close()


async def load(url: str, calls: int, *, stream: bool) -> None:
    """Make ``calls`` calls over as many connections as the concurrency."""
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    end = b"0\r\n\r\n" if stream else b""
    share = calls // CONCURRENCY
    await asyncio.gather(
        *(_worker(host, int(port), _request(stream=stream), share, end) for _ in range(CONCURRENCY))
    )


def measure(url: str, pid: int) -> dict[str, float]:
    """Return microseconds of the serving process's CPU per whole request and per streamed chunk."""
    import uvloop

    before = cpu_seconds(pid)
    uvloop.run(load(url, CALLS, stream=False))
    whole = cpu_seconds(pid)
    uvloop.run(load(url, STREAMS, stream=True))
    streamed = cpu_seconds(pid)
    return {
        "request_us": (whole - before) / (CALLS // CONCURRENCY * CONCURRENCY) * 1e6,
        "chunk_us": (streamed - whole) / STREAMS / TOKENS * 1e6,
    }


def run() -> dict[str, Any]:
    """Measure ours and the peer in turn."""
    os.sched_setaffinity(0, {1})
    with started(["-m", "benchmarks.upstream", "0"], core=1) as (_, port):
        upstream = f"http://127.0.0.1:{port}/v1"
        ours = ["-m", "firsttoken.cli", "serve", "--port", "0"]
        peer = ["-m", "benchmarks.aiohttp_proxy", upstream]
        env = {"FIRSTTOKEN_UPSTREAM_URL": upstream, "FIRSTTOKEN_UPSTREAM_MODEL": "m"}
        rows: dict[str, list[dict[str, float]]] = {"firsttoken": [], "bare aiohttp proxy": []}
        with started(ours, core=0, **env) as (a, first), started(peer, core=0) as (b, second):
            for turn in range(ROUNDS + 1):
                for name, child, line in (("firsttoken", a, first), ("bare aiohttp proxy", b, second)):
                    figures = measure(address(line), child.pid)
                    if turn:  # the first round warms up
                        rows[name].append(figures)
    medians = {
        name: {key: round(statistics.median(row[key] for row in figures), 1) for key in BARS}
        for name, figures in rows.items()
    }
    return {
        "upstream": "simulated upstream",
        "concurrency": CONCURRENCY,
        "medians": medians,
        "bars": BARS,
        "rounds": rows,
    }
