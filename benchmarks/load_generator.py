"""What the load generator itself costs, and how wrong its times are, on one core.

The mock is a process on the other core whose delays are known: it writes the time that it really let pass
into the first piece of each answer. The error is our time to first token, counted from when the request was
due, minus that; it contains our own timer, the connection, and the reading. Other work on the same two cores
shows in every figure: run it alone, or before the others (`nice -n -19`). The result says which it was, and
the load of the machine at the end.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from benchmarks.processes import started

MODULE = "benchmarks.load_generator"
SECONDS = 6.0
ROUNDS = 3
BARS = {"requests_per_s": 2000, "chunks_per_s": 50_000, "ttft_error_p50_ms": 1.0}
TTFT_MS = 50.0
CASES: dict[str, dict[str, Any]] = {
    "whole": {"rate": 2200.0, "stream": False, "chunks": 1, "gap_ms": 0.0},
    "streamed": {"rate": 520.0, "stream": True, "chunks": 100, "gap_ms": 0.0},
    "paced": {"rate": 20.0, "stream": True, "chunks": 64, "gap_ms": 10.0},
    "paced, many": {"rate": 150.0, "stream": True, "chunks": 64, "gap_ms": 10.0},
}
"""Requests a second, pieces of an answer, and the milliseconds between two of them."""


def _piece(text: str, finish: str = "null") -> bytes:
    event = b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":%s}]}\n\n'
    data = event % (text.encode(), finish.encode())
    return b"%x\r\n%s\r\n" % (len(data), data)


_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LAST = _piece("", '"stop"') + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
_TOKEN = _piece(" token")


class Mock(asyncio.Protocol):
    """One connection; the model's name says how an answer goes: ``CHUNKS-GAP``."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._loop = asyncio.get_running_loop()
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer a complete request after the delay."""
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank or len(body) < int(head.split(b"content-length: ")[1].split(b"\r\n")[0]):
            return
        self._received = b""
        chunks, gap = body.split(b'"model":"')[1].split(b'"')[0].split(b"-")
        answer = self._stream if b'"stream":true' in body else self._whole
        now = time.perf_counter()
        self._loop.call_later(TTFT_MS / 1000, answer, now, int(chunks), float(gap) / 1000)

    def _whole(self, since: float, _chunks: int, _gap: float) -> None:
        body = b'{"model":"m","choices":[{"message":{"content":"%.6f"},"finish_reason":"stop"}]}'
        body %= time.perf_counter() - since
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)

    def _stream(self, since: float, chunks: int, gap: float) -> None:
        first = _piece(f"{time.perf_counter() - since:.6f}")
        self._transport.write(_HEAD + first)
        if gap:
            self._next(chunks - 1, gap, self._loop.time() + gap)
            return
        for _ in range(chunks - 1):
            self._transport.write(_TOKEN)
        self._transport.write(_LAST)

    def _next(self, left: int, gap: float, at: float) -> None:
        if left:
            self._loop.call_at(at, partial(self._send, left, gap, at))
        else:
            self._transport.write(_LAST)

    def _send(self, left: int, gap: float, at: float) -> None:
        self._transport.write(_TOKEN)
        self._next(left - 1, gap, at + gap)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Mock, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


async def _measure(url: str, rate: float, *, stream: bool, chunks: int, gap_ms: float) -> dict[str, float]:
    from firsttoken.bench import load

    body = load.body(f"{chunks}-{gap_ms}", "hi", stream=stream)
    times = load.poisson(rate, SECONDS, random.Random(1))  # noqa: S311 - load
    calls = [load.Arrival(at, "hi", body, stream) for at in times]
    await load.run(url, [load.Arrival(0.0, "hi", body, stream)] * 32, deadline=10)
    cpu, begun = time.process_time(), time.perf_counter()
    samples = await load.run(url, calls, deadline=10)
    cpu, elapsed = time.process_time() - cpu, time.perf_counter() - begun
    assert all(sample.complete for sample in samples), {sample.error for sample in samples}
    errors = [(sample.latency or 0.0) - _delay(sample) for sample in samples]
    late = [sample.sent - sample.at for sample in samples]
    pieces = sum(sample.chunks for sample in samples)
    quantiles = {"p50": 0.5, "p99": 0.99}
    return {
        "requests_per_s": round(len(samples) / SECONDS, 1),
        "chunks_per_s": round(pieces / SECONDS, 1),
        "seconds": round(elapsed, 2),
        "cpu_share": round(cpu / elapsed, 3),
        "cpu_us_per_request": round(cpu / len(samples) * 1e6, 1),
        **{
            f"ttft_error_{n}_ms": round((load.quantile(errors, q) or 0) * 1e3, 3)
            for n, q in quantiles.items()
        },
        **{f"behind_{n}_ms": round((load.quantile(late, q) or 0) * 1e3, 3) for n, q in quantiles.items()},
    }


def _delay(sample: Any) -> float:
    return float(sample.text.split()[0])


def _median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}


def run() -> dict[str, Any]:
    """Measure each kind of load, in turns; the generator has one core to itself and the mock the other."""
    usual = os.sched_getaffinity(0)
    own, other = sorted(usual)[:2]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    try:
        os.sched_setaffinity(0, {own})
        with started(["-m", MODULE], other) as (_, url):
            for _ in range(ROUNDS):
                for name, case in CASES.items():
                    rounds[name].append(asyncio.run(_measure(url, **case)))
    finally:
        os.sched_setaffinity(0, usual)
    found = {name: _median(rows) for name, rows in rounds.items()}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "upstream": f"simulated upstream: a mock on loopback, {TTFT_MS:g} ms to the first piece; it says how"
        " long it took",
        "cases": CASES,
        "seconds": SECONDS,
        "nice": os.nice(0),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "medians": found,
        "bars": BARS,
        "passed": found["whole"]["requests_per_s"] >= BARS["requests_per_s"]
        and found["streamed"]["chunks_per_s"] >= BARS["chunks_per_s"]
        and all(row["ttft_error_p50_ms"] <= BARS["ttft_error_p50_ms"] for row in found.values()),
        "rounds": rounds,
    }


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve())
