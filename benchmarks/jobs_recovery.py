"""Recovery after an outage: how fast the backlog drains, and what those notice who wait for their answers.

A target of the simulated upstream allows 1,800 requests a minute; jobs may use half of them. First only live
calls come (10 a second), then the target is away and 900 jobs pile up, then it is back and both are answered.
Times of live calls count from the moment when they were due (open loop).
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from benchmarks.jobs_backends import Worker, sqlite
from firsttoken import config
from firsttoken.bench.child import Server, Simulator
from firsttoken.bench.fleet import toml
from firsttoken.gateway import Gateway
from firsttoken.providers.http import HttpClient, Timeouts

RPM, SHARE, LIVE, JOBS, BASELINE = 1800, 0.5, 10.0, 900, 60.0
BARS = {"drained at (share of the allowed rate)": 0.9, "live TTFT P99 grows by": 0.2}
_PATIENT = Timeouts(connect=30, first_byte=60, gap=30)
_PROFILE = "ttft_ms=200,itl_ms=10,tokens=16"


def run() -> dict[str, Any]:
    """Return the rates and times of one run."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        backend = stack.enter_context(sqlite(directory))
        simulator = Simulator("the simulated upstream", _PROFILE)
        stack.callback(simulator.stop)
        simulator.start()
        file = directory / "firsttoken.toml"
        file.write_text(toml(_settings(directory, simulator.url, backend.queue)), "utf-8")
        server, worker = Server(file), Worker(backend, file)
        stack.callback(server.stop)
        stack.callback(worker.stop)
        server.start()
        worker.start()
        return asyncio.run(_run(simulator, server.url, file))


def _settings(directory: Path, upstream: str, queue: dict[str, Any]) -> dict[str, Any]:
    return {
        "providers": {"up": {"kind": "openai", "base_url": f"{upstream}/v1", "api_key": "none"}},
        "models": {"m": {"target": "up/simulated"}},
        "targets": {"up/simulated": {"rpm": RPM}},
        "store": {"kind": "sqlite", "path": str(directory / "store.sqlite"), "timeout": 5.0},
        "queue": queue,
        "jobs": {"worker": False, "share": SHARE, "max_delay": 10.0},
        "server": {"log": False},
    }


async def _run(simulator: Simulator, url: str, file: Path) -> dict[str, Any]:
    client = HttpClient(max_idle=256)
    stop = asyncio.Event()
    _say("live calls only")
    before = await _live(client, url, asyncio.Event(), BASELINE)
    _say(f"the target is away: {JOBS} jobs")
    simulator.kill()
    names = [await _submit(client, url, number) for number in range(JOBS)]
    await asyncio.sleep(5)
    await asyncio.to_thread(simulator.start)
    _say("the target is back")
    gateway = Gateway(config.load(file, {}))
    live = asyncio.get_running_loop().create_task(_live(client, url, stop, 600))
    ended = await _all_end(gateway, names)
    stop.set()
    during = await live
    await gateway.aclose()
    await client.aclose()
    allowed = RPM * SHARE / 60
    times = sorted(job.finished for job in ended)
    rate = (len(times) - 1) / (times[-1] - times[0])
    growth = _p99(during) / _p99(before) - 1
    rows = {"drained at (share of the allowed rate)": rate / allowed, "live TTFT P99 grows by": growth}
    held = (
        rate >= BARS["drained at (share of the allowed rate)"] * allowed
        and growth < BARS["live TTFT P99 grows by"]
    )
    return {
        "upstream": "simulated upstream",
        "jobs": {state: sum(job.state == state for job in ended) for state in {job.state for job in ended}},
        "allowed jobs/s": allowed,
        "jobs/s": round(rate, 2),
        "live TTFT ms P50, P99 before": [_ms(statistics.median(before)), _ms(_p99(before))],
        "live TTFT ms P50, P99 while draining": [_ms(statistics.median(during)), _ms(_p99(during))],
        "live calls": [len(before), len(during)],
        "rows": {name: round(value, 3) for name, value in rows.items()},
        "bars": BARS,
        "passed": held,
    }


async def _live(client: HttpClient, url: str, stop: asyncio.Event, seconds: float) -> list[float]:
    """Send streamed calls as they are due, until it is time to stop; return the seconds to first content."""
    rng, loop = Random(3), asyncio.get_running_loop()  # noqa: S311 - times, not secrets
    at = loop.time()
    end, tasks = at + seconds, list[asyncio.Task[float]]()
    while not stop.is_set() and at < end:
        at += rng.expovariate(LIVE)
        await asyncio.sleep(max(0.0, at - loop.time()))
        tasks.append(loop.create_task(_first_content(client, url, at, len(tasks))))
    return list(await asyncio.gather(*tasks))


async def _first_content(client: HttpClient, url: str, due: float, number: int) -> float:
    loop = asyncio.get_running_loop()
    response = await client.request(
        "POST", f"{url}/v1/chat/completions", headers=_JSON, body=_body(f"live {number}", stream=True),
        timeouts=_PATIENT,
    )  # fmt: skip
    if response.status != 200:
        raise RuntimeError(f"a live call was answered {response.status}: {await response.read(1000)!r}")
    first = 0.0
    async for piece in response.chunks():
        if not first and b'"content":"' in piece:
            first = loop.time() - due
    return first


async def _submit(client: HttpClient, url: str, number: int) -> str:
    headers = [*_JSON, ("prefer", "respond-async")]
    response = await client.request(
        "POST", f"{url}/v1/chat/completions", headers=headers, body=_body(f"job {number}", stream=False)
    )
    said = msgspec.json.decode(await response.read(100_000))
    if response.status != 202:
        raise RuntimeError(f"a job was answered {response.status}: {said}")
    return str(said["id"])


async def _all_end(gateway: Gateway, names: list[str]) -> list[Any]:
    assert gateway.jobs is not None
    ended: dict[str, Any] = {}
    while len(ended) < len(names):
        await asyncio.sleep(3)
        for name in [one for one in names if one not in ended]:
            job = await gateway.jobs.find("local", name)
            if job is not None and job.is_final:
                ended[name] = job
        _say(f"{len(ended)} of {len(names)} jobs have ended")
    return list(ended.values())


_JSON = [("content-type", "application/json")]


def _body(prompt: str, *, stream: bool) -> bytes:
    messages = [{"role": "user", "content": prompt}]
    return msgspec.json.encode({"model": "m", "messages": messages, "stream": stream})


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
