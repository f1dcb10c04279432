"""Nothing is lost: 10,000 requests, all targets gone for 60 s in the middle, workers killed 50 times.

On each queue that runs here. A gateway takes the requests as they come (open loop); the simulated upstream is
killed and started again. What cannot be answered becomes a job, which workers answer; they are killed with
SIGKILL at random times. In the end every job's record is read.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from msgspec import Struct, field

from benchmarks.jobs_backends import BACKENDS, Worker
from firsttoken import config
from firsttoken.bench.child import Server, Simulator
from firsttoken.bench.fleet import toml
from firsttoken.errors import FirstTokenError, QueueError
from firsttoken.gateway import Gateway
from firsttoken.jobs.job import Job
from firsttoken.providers.http import HttpClient, Timeouts
from firsttoken.queues import Dead

PATIENT = Timeouts(connect=30, first_byte=120, gap=30)


class Plan(Struct, frozen=True):
    """How large a run is. Times in seconds."""

    requests: int = 10_000
    rate: float = 50.0
    outage: float = 60.0
    kills: int = 50
    workers: int = 3
    patience: float = 900.0
    """For the last job to end, after the last request."""
    seed: int = 7

    @property
    def seconds(self) -> float:
        """Return how long requests come."""
        return self.requests / self.rate


SHORT = Plan(requests=240, rate=40.0, outage=5.0, kills=3, workers=2, patience=120.0)


class Sent(Struct):
    """What the clients were told."""

    direct: int = 0
    jobs: dict[str, str] = field(default_factory=dict)
    """The prompt of each job."""
    failed: Counter[str] = field(default_factory=Counter)


def measure(name: str, plan: Plan) -> dict[str, Any]:
    """Run the plan on one kind of queue and return what came of it."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        backend = stack.enter_context(BACKENDS[name](directory))
        simulator = Simulator("the simulated upstream", "ttft_ms=20,itl_ms=0,tokens=8")
        stack.callback(simulator.stop)
        simulator.start()
        file = directory / "firsttoken.toml"
        file.write_text(toml(_settings(directory, simulator.url, backend.queue)), "utf-8")
        workers = [Worker(backend, file) for _ in range(plan.workers if "worker" in backend.command else 1)]
        for worker in workers:
            stack.callback(worker.stop)
            worker.start()
        server = _Gateway(file, backend.env)
        stack.callback(server.stop)
        server.start()
        return asyncio.run(_run(plan, simulator, server.url, workers, config.load(file, dict(backend.env))))


class _Gateway(Server):
    def __init__(self, file: Path, env: Any) -> None:
        super().__init__(file)
        self._more = dict(env)

    def variables(self) -> dict[str, str]:
        """Return what is added to its environment."""
        return {**super().variables(), **self._more}


def _settings(directory: Path, upstream: str, queue: dict[str, Any]) -> dict[str, Any]:
    return {
        "providers": {"up": {"kind": "openai", "base_url": f"{upstream}/v1", "api_key": "none"}},
        "models": {"m": {"target": "up/simulated"}},
        "store": {"kind": "sqlite", "path": str(directory / "store.sqlite"), "timeout": 10.0},
        "queue": queue,
        "jobs": {
            "defer": "outage",
            "lease": 6.0,
            "max_delay": 60.0,
            "max_attempts": 20,
            "worker": False,
        },
        "breaker": {"open": 2.0, "max_open": 10.0},
        "server": {"log": False},
    }


async def _run(
    plan: Plan, simulator: Simulator, url: str, workers: list[Worker], settings: Any
) -> dict[str, Any]:
    rng, loop = Random(plan.seed), asyncio.get_running_loop()  # noqa: S311 - times, not secrets
    client, sent = HttpClient(max_idle=256), Sent()
    began = loop.time()
    middle = (plan.seconds - plan.outage) / 2

    async def outage() -> None:
        await asyncio.sleep(middle)
        simulator.kill()
        await asyncio.sleep(plan.outage)
        await asyncio.to_thread(simulator.start)

    async def killing() -> int:
        # Most kills fall into the time when jobs are being answered: behind the outage.
        times = sorted(
            middle + rng.random() * (plan.seconds - middle + plan.outage / 2) for _ in range(plan.kills)
        )
        for at in times:
            await asyncio.sleep(max(0.0, began + at - loop.time()))
            worker = rng.choice(workers)
            worker.kill()
            worker.start()
        return len(times)

    kills = loop.create_task(killing())
    out = loop.create_task(outage())
    await _load(plan, client, url, sent, rng)
    await out
    killed = await kills
    gateway = Gateway(settings)
    jobs, drained = await _ends(gateway, sent, loop.time() + plan.patience)
    report = await _report(gateway, sent, jobs, workers)
    await gateway.aclose()
    await client.aclose()
    return {"kills": killed, "seconds": round(drained - began), **report}


async def _load(plan: Plan, client: HttpClient, url: str, sent: Sent, rng: Random) -> None:
    loop = asyncio.get_running_loop()
    at, tasks = loop.time(), []
    for number in range(plan.requests):
        at += rng.expovariate(plan.rate)
        await asyncio.sleep(max(0.0, at - loop.time()))
        tasks.append(loop.create_task(_ask(client, url, f"request {number}", sent)))
        if number % 500 == 499:
            print(f"  {number + 1} sent, {len(sent.jobs)} jobs", file=sys.stderr, flush=True)
    await asyncio.gather(*tasks)


async def _ask(client: HttpClient, url: str, prompt: str, sent: Sent) -> None:
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": prompt}]})
    headers = [("content-type", "application/json")]
    try:
        response = await client.request(
            "POST", f"{url}/v1/chat/completions", headers=headers, body=body, timeouts=PATIENT
        )
        said = msgspec.json.decode(await response.read(1_000_000))
    except FirstTokenError as error:
        sent.failed[type(error).__name__] += 1
        return
    if response.status == 202:
        sent.jobs[said["id"]] = prompt
    elif response.status == 200:
        sent.direct += 1
    else:
        sent.failed[str(response.status)] += 1


async def _ends(gateway: Gateway, sent: Sent, until: float) -> tuple[dict[str, Job], float]:
    """Wait for all jobs to end; return them as they are then, and when that was."""
    loop, ended = asyncio.get_running_loop(), dict[str, Job]()
    assert gateway.jobs is not None
    while len(ended) < len(sent.jobs) and loop.time() < until:
        for name in [one for one in sent.jobs if one not in ended]:
            job = await gateway.jobs.find("local", name)
            if job is not None and job.is_final:
                ended[name] = job
        print(f"  {len(ended)} of {len(sent.jobs)} jobs have ended", file=sys.stderr, flush=True)
        await asyncio.sleep(1 if len(ended) < len(sent.jobs) else 0)
    return ended, loop.time()


async def _report(
    gateway: Gateway, sent: Sent, jobs: dict[str, Job], workers: list[Worker]
) -> dict[str, Any]:
    assert gateway.jobs is not None
    wrong = changed = 0
    for name, job in jobs.items():
        changed += await gateway.jobs.find("local", name) != job
        chunks = await gateway.jobs.answer(job)
        wrong += job.state == "done" and (
            chunks is None or sent.jobs[name] not in "".join(chunk.text for chunk in chunks)
        )
    rows = [row for worker in workers for row in worker.rows()]
    done = Counter(row["id"] for row in rows if row.get("status") == "done")
    dead = await _dead(gateway)
    states = Counter(job.state for job in jobs.values())
    unexplained = sum(job.state == "failed" and job.error is None for job in jobs.values())
    return {
        "answered at once": sent.direct,
        "jobs": len(sent.jobs),
        "states": dict(states),
        "lost": len(sent.jobs) - len(jobs) + unexplained,
        "refused": dict(sent.failed),  # neither answered nor taken: the client was told so at once
        "answered twice": sum(count > 1 for count in done.values()),
        "changed after the end": changed,
        "wrong answers": wrong,
        "dead letters": len(dead),
        "dead letters without a reason": sum(not one.reason for one in dead),
        "attempts beyond the first": sum(max(job.attempts - 1, 0) for job in jobs.values()),
        "sent again": sum(row.get("status") == "later" for row in rows),
    }


async def _dead(gateway: Gateway) -> Sequence[Dead]:
    """Return the dead letters; an emulator that was busy for minutes may need a moment."""
    assert gateway.jobs is not None
    for _ in range(10):
        with suppress(QueueError):
            return await gateway.jobs.queue.dead(1000)
        await asyncio.sleep(5)
    return await gateway.jobs.queue.dead(1000)


def run(plan: Plan | None = None, names: list[str] | None = None) -> dict[str, Any]:
    """Run the plan on every queue."""
    plan, rows = plan or Plan(), []
    for name in names or list(BACKENDS):
        print(f"  {name}", file=sys.stderr, flush=True)
        started = time.monotonic()
        rows.append({"queue": name, **measure(name, plan), "whole run s": round(time.monotonic() - started)})
        print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    bad = (
        "lost",
        "answered twice",
        "changed after the end",
        "wrong answers",
        "dead letters without a reason",
    )
    passed = all(row[one] == 0 for row in rows for one in bad)
    shown = msgspec.to_builtins(plan)
    return {
        "upstream": "simulated upstream",
        "plan": shown,
        "passed": passed,
        "rows": rows,
    }
