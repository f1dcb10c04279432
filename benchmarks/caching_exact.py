"""What an answer that was given before costs: end to end over HTTP, by tier, and when many ask at once.

A real gateway process in front of a simulated upstream process (a first token after 300 ms, then 80 a
second); one client, one connection, so a latency is a call's own. ``constant endpoint`` is a server that
writes the same bytes to every request as fast as Python can: what the machine and the client cost anyway.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.processes import address, started
from benchmarks.resilience_row import Row
from firsttoken.cache.key import request_key
from firsttoken.chat import ChatRequest, Message, Text
from firsttoken.model import Call, Source

PROFILE = "ttft_ms=300,itl_ms=12.5,jitter=0,tokens=100"
MISSES = 5
HITS = 500
INSTANCES = 4
CALLERS = 1000
_SERVE = ["-m", "firsttoken.cli", "serve", "--port", "0"]
_SIM = ["-m", "firsttoken.cli", "sim", "--port", "0", "--profile", PROFILE]
_KEYS = {"key_secret": "benchmark", "encryption_key": base64.b64encode(b"k" * 32).decode()}


def _body(text: str, *, stream: bool) -> bytes:
    messages = [{"role": "user", "content": text}]
    asked = {"model": "m", "messages": messages, "temperature": 0, "stream": stream}
    return json.dumps(asked, separators=(",", ":")).encode()


class Client:
    """One connection, kept open; a call at a time."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def call(self, body: bytes) -> tuple[float, float]:
        """Return the seconds until the first and until the last byte of the answer's body."""
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        begun = time.perf_counter()
        self._socket.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        status = self._file.readline()
        assert b" 200 " in status, status + self._file.read1()
        length = 0
        while (line := self._file.readline().lower()) != b"\r\n":
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        if length:
            self._file.read(length)
            return time.perf_counter() - begun, time.perf_counter() - begun
        first = 0.0
        while size := int(self._file.readline(), 16):
            first = first or time.perf_counter() - begun
            self._file.read(size + 2)
        self._file.readline()
        return first, time.perf_counter() - begun

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()


def _timed(url: str, bodies: list[bytes]) -> tuple[float, float]:
    """Return the medians of the milliseconds until the first and the last byte."""
    client = Client(url)
    try:
        times = [client.call(body) for body in bodies]
    finally:
        client.close()
    first, last = (statistics.median(column) * 1000 for column in zip(*times, strict=True))
    return round(first, 3), round(last, 3)


@contextmanager
def _gateway(upstream: str, **settings: Any) -> Iterator[str]:
    """Run a gateway with the cache on and yield its URL; ``settings`` are ``section__key`` names."""
    env = {f"FIRSTTOKEN_{name.upper()}": str(value) for name, value in settings.items()}
    env |= {"FIRSTTOKEN_UPSTREAM_URL": f"{upstream}/v1", "FIRSTTOKEN_CACHE__MODE": "on"}
    env |= {"FIRSTTOKEN_UPSTREAM_MODEL": "m", "FIRSTTOKEN_SERVER__LOG": "false"}
    env |= {"FIRSTTOKEN_STORE__TIMEOUT": "5"}
    with started(_SERVE, core=0, **env) as (_, line):
        yield address(line).removesuffix("/v1")


@contextmanager
def _store(kind: str) -> Iterator[dict[str, Any]]:
    """Yield the settings of a store of its own."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if kind == "memory":
            yield {"store__kind": "memory"}
        elif kind == "sqlite":
            yield {"store__kind": "sqlite", "store__path": str(Path(folder) / "store.sqlite")}
        else:
            yield {"store__kind": "redis", "store__url": stack.enter_context(_redis(folder))}


@contextmanager
def _redis(folder: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    where = ["--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
    command = ["redis-server", *where, "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            while not _listens(port):
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _upstream() -> Any:
    return started(_SIM, core=1)


def _hits(kind: str, **settings: Any) -> dict[str, float]:
    """Return milliseconds of misses and hits, streamed, and of hits that are not, at the median."""
    with ExitStack() as stack:
        _, line = stack.enter_context(_upstream())
        store = stack.enter_context(_store(kind))
        url = stack.enter_context(_gateway(address(line).removesuffix("/v1"), **store, **settings))
        news = [_body(f"What is {number}?", stream=True) for number in range(MISSES)]
        miss_first, miss_last = _timed(url, news)
        _timed(url, news * 10)  # warms up
        first, last = _timed(url, news * (HITS // MISSES))
        _, whole = _timed(url, [_body(f"What is {n % MISSES}?", stream=False) for n in range(HITS)])
    return {
        "miss_first_ms": miss_first,
        "miss_last_ms": miss_last,
        "hit_first_ms": first,
        "hit_last_ms": last,
        "whole_hit_ms": whole,
    }


def _constant() -> float:
    """Return the milliseconds of a call to an endpoint that answers without looking, at the median."""
    with started(["-m", "benchmarks.upstream", "0"], core=0) as (_, port):
        body = _body("What is 1?", stream=False)
        url = f"http://127.0.0.1:{port}"
        _timed(url, [body] * 50)
        return _timed(url, [body] * HITS)[1]


def end_to_end() -> Row:
    """Measure how much sooner an answer is there that was given before."""
    times = _hits("memory")
    return Row(
        measured={
            "whole_answer_times_faster": round(times["miss_last_ms"] / times["hit_last_ms"]),
            "first_token_times_faster": round(times["miss_first_ms"] / times["hit_first_ms"]),
        },
        bars={"whole_answer_times_faster": 50, "first_token_times_faster": 50},
        least=frozenset({"whole_answer_times_faster", "first_token_times_faster"}),
        also=times,
    )


def tiers() -> Row:
    """Measure a hit in memory, and in each kind of store when the memory holds nothing."""
    constant = _constant()
    memory = _hits("memory")
    also: dict[str, Any] = {"constant_endpoint_ms": constant, "memory": memory}
    measured: dict[str, float | None] = {"memory_adds_ms": round(memory["whole_hit_ms"] - constant, 3)}
    bars = {"memory_adds_ms": 1.0}
    for kind in ("sqlite", "redis"):
        if kind == "redis" and not shutil.which("redis-server"):
            also["redis"] = "not measured: needs redis-server"
            continue
        bare, sealed = (_hits(kind, cache__memory_bytes=0, **more) for more in ({}, _sealed()))
        measured[f"{kind}_ms"] = bare["whole_hit_ms"]
        bars[f"{kind}_ms"] = 2.0
        also[kind] = {**bare, "encrypted_whole_hit_ms": sealed["whole_hit_ms"]}
    return Row(measured=measured, bars=bars, also=also)


def _sealed() -> dict[str, str]:
    return {f"cache__{name}": value for name, value in _KEYS.items()}


def key() -> Row:
    """Measure what it costs to find the key of a request."""
    measured: dict[str, float | None] = {}
    for name, size, times in (("1_kb_us", 1_000, 5_000), ("100_kb_us", 100_000, 200)):
        turns = (Message("system", (Text("Be kind. "),)), Message("user", (Text("word " * (size // 5)),)))
        call = Call(ChatRequest("m", turns, temperature=0.0), Source("openai_chat", b"{}"), "1", 0.0)
        measured[name] = round(min(_cpu_us(lambda call=call: request_key(call), times) for _ in range(7)), 2)
    return Row(measured=measured, bars={"1_kb_us": 10.0, "100_kb_us": 150.0})


def _cpu_us(work: Callable[[], object], times: int) -> float:
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times * 1e6


def stampede(kind: str = "sqlite") -> Row:
    """Let a thousand callers ask the same, new to all, at four gateways that share a store."""
    with _upstream() as (_, line), _store(kind) as store, ExitStack() as stack:
        upstream = address(line).removesuffix("/v1")
        urls = [stack.enter_context(_gateway(upstream, **store)) for _ in range(INSTANCES)]
        begun = time.perf_counter()
        good = sum(asyncio.run(_all_at_once(urls, _body("What is love?", stream=True))))
        took = time.perf_counter() - begun
        requests = _requests(upstream)
    return Row(
        measured={"upstream_calls": requests, "answers_missing": CALLERS - good},
        bars={"upstream_calls": 1, "answers_missing": 0},
        also={"callers": CALLERS, "gateways": INSTANCES, "store": kind, "seconds": round(took, 2)},
    )


async def _all_at_once(urls: list[str], body: bytes) -> list[bool]:
    return await asyncio.gather(*[_one(urls[number % len(urls)], body) for number in range(CALLERS)])


async def _one(url: str, body: bytes) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    writer.write(head + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    told = await reader.read(-1)
    writer.close()
    return told.startswith(b"HTTP/1.1 200") and b"[DONE]" in told


def _requests(upstream: str) -> int:
    import urllib.request

    with urllib.request.urlopen(f"{upstream}/simulator/state") as answer:  # noqa: S310 - our own
        return int(json.load(answer)["requests"])


ROWS: dict[str, Callable[[], Row]] = {
    "a hit, end to end": end_to_end,
    "a hit by tier": tiers,
    "a request's key": key,
    "1,000 new identical requests": stampede,
}


def run() -> dict[str, Any]:
    """Measure all of it."""
    os.sched_setaffinity(0, {1})
    rows = {name: row() for name, row in ROWS.items()}
    failed = {name: row.failed() for name, row in rows.items() if row.failed()}
    assert not failed, {name: rows[name].plain() for name in failed}
    return {"upstream": "simulated upstream", "rows": {name: row.plain() for name, row in rows.items()}}
