"""Applications with a queue, and a worker that answers one job when a test says so."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec
from policies.models import Scripted
from support import Answer, ask, chat, make_app
from virtual_time import wall

from firsttoken.api.jobs import call_of
from firsttoken.app import App
from firsttoken.gateway import Gateway
from firsttoken.jobs.job import Job, JobError, Message
from firsttoken.jobs.jobs import Jobs, Run
from firsttoken.policies.defer import Deferred
from firsttoken.settings import MemoryQueue
from firsttoken.telemetry.record import Record

ASYNC = {"prefer": "respond-async"}


def queued_app(
    model: Scripted | None = None,
    records: list[Record] | None = None,
    *,
    outage: bool = False,
    **sections: Any,
) -> App:
    """Build an application with a queue, in virtual time; ``model`` answers in place of the simulated one."""
    app = make_app(records, **{"queue": MemoryQueue(), **sections})
    gateway = app.gateway
    vars(gateway)["jobs"] = Jobs(gateway.settings, gateway.store, gateway.queue, gateway.objects, wall=wall)
    if model is not None:
        gateway.routes["m"] = Deferred(model, partial(gateway._submit, []), outage=outage)
    return app


async def take(gateway: Gateway) -> Run:
    """Take the next job of the queue that has no end yet, as a worker does."""
    run = None
    while not isinstance(run, Run):
        (delivery,) = await gateway.queue.receive(1, 30.0, 1.0)
        message = msgspec.json.decode(delivery.body, type=Message)
        run = await gateway.jobs.begin(message.tenant, message.id)
        await gateway.queue.done(delivery)
    return run


async def work(gateway: Gateway, *, pause: float = 0.0, error: JobError | None = None) -> Job:
    """Answer the next job of the queue, ``pause`` seconds after it was taken; or let it fail."""
    run = await take(gateway)
    await asyncio.sleep(pause)
    if error is not None:
        job = await run.fail(error, 1)
    else:
        call = await call_of(gateway, run.job)
        call.deadline = asyncio.get_running_loop().time() + 60
        async with run.progress() as progress:
            async for chunk in gateway.stream(call):
                progress.add(chunk)
        job = await run.done(progress.whole(), "simulated/m", 1)
    await run.leave()
    return job


async def defer(app: App, body: Any = None, *, path: str = "/v1/chat/completions", **headers: str) -> str:
    """Send a request that becomes a job at once, and return the job's id."""
    answer = await ask(app, chat() if body is None else body, path=path, headers=ASYNC | headers)
    assert answer.status == 202, answer.body
    return answer.json()["id"]


async def fetch(app: App, path: str, method: str = "GET", **options: Any) -> Answer:
    """Ask for something that has no body."""
    return await ask(app, path=path, method=method, **options)


def keyed(**tenants: str) -> dict[str, Any]:
    """Return the section ``auth`` for tenants and their keys."""
    from firsttoken.auth import digest
    from firsttoken.settings import Auth

    return {"auth": Auth(mode="on", keys={tenant: [digest(key)] for tenant, key in tenants.items()})}
