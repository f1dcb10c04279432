"""Jobs: ``202 Accepted`` for a call that is answered later, and what its client asks about it from then on.

A job is found by its tenant and its id only, so another tenant's job, an expired one and one that never was
look the same.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from firsttoken.api.exchange import Exchange
from firsttoken.api.query import number, query_of
from firsttoken.errors import FirstTokenError, NotFoundError, StoreError, UpstreamError
from firsttoken.gateway import Gateway
from firsttoken.jobs.job import Job, JobError
from firsttoken.model import Call
from firsttoken.wire import codec_of

if TYPE_CHECKING:
    from firsttoken.jobs.jobs import Jobs

DEFAULT_LIMIT, MAX_LIMIT = 20, 100
_JSON = (b"content-type", b"application/json")
_FRESH = (b"cache-control", b"no-store")
_ENDED = {
    "cancelled": JobError(409, "invalid_request_error", "The job was cancelled.", "job_cancelled"),
    "expired": JobError(504, "timeout_error", "No target could answer the job in time.", "job_expired"),
}
_FAILED = JobError(502, "upstream_error", "There is no answer.", "upstream_error")


class _Named(Struct, frozen=True):
    """A job's document, as far as it is read."""

    id: str


async def accept(exchange: Exchange, gateway: Gateway, call: Call, name: str) -> None:
    """Answer a call that has become the job ``name``.

    202 and its document; where heartbeats have begun a stream already, that stream goes on with the job.
    """
    job = await _accepted(gateway, call, name)
    if call.later is not None and call.later.background:
        from firsttoken.api import background

        await background.accept(exchange, gateway, call, job)
    elif exchange.started:
        from firsttoken.api.job_events import JobWriter, follow

        await follow(exchange, gateway, job, JobWriter(exchange.codec, call, job), call.deadline)
    else:
        asked = [(b"preference-applied", b"respond-async")] if call.later and call.later.asked else []
        headers = [(b"location", f"/v1/jobs/{name}".encode()), retry_after(gateway), *asked]
        await exchange.answer(202, msgspec.json.encode(document(job)), [_JSON, _FRESH, *headers])


async def accept_again(exchange: Exchange, gateway: Gateway, call: Call, body: bytes) -> None:
    """Do `accept` with the document of a job that another exchange was answered with."""
    await accept(exchange, gateway, call, msgspec.json.decode(body, type=_Named).id)


async def show(exchange: Exchange, gateway: Gateway, name: str) -> None:
    """Answer with a job's document, and with its answer when there is one. Raises NotFoundError."""
    job = await find(exchange, gateway, name)
    shown = document(job)
    if job.state == "done":
        shown |= await _answer(gateway, job)
    headers = [] if job.is_final else [retry_after(gateway)]
    await exchange.answer(200, msgspec.json.encode(shown), [_JSON, _FRESH, *headers])


async def recent(exchange: Exchange, gateway: Gateway) -> None:
    """Answer with the tenant's newest jobs, without their answers. Raises RequestError for a wrong limit."""
    limit = number(query_of(exchange), "limit", 1, MAX_LIMIT, DEFAULT_LIMIT)
    listed = await jobs_of(gateway).recent(exchange.record.tenant, limit)
    body = msgspec.json.encode({"object": "list", "data": [document(job) for job in listed]})
    await exchange.answer(200, body, [_JSON, _FRESH])


async def cancel(exchange: Exchange, gateway: Gateway, name: str) -> None:
    """Cancel a job that is not finished, and answer with its document. Raises NotFoundError."""
    job = await jobs_of(gateway).cancel(exchange.record.tenant, name)
    if job is None:
        raise not_found(name)
    await exchange.answer(200, msgspec.json.encode(document(job)), [_JSON, _FRESH])


def jobs_of(gateway: Gateway) -> Jobs:
    """Return the jobs of this gateway. Raises NotFoundError where there are none."""
    if gateway.jobs is None:
        raise NotFoundError("There are no jobs here: this server has no queue to put them in.")
    return gateway.jobs


async def find(exchange: Exchange, gateway: Gateway, name: str) -> Job:
    """Return a job of the client's tenant. Raises NotFoundError."""
    job = await jobs_of(gateway).get(exchange.record.tenant, name)
    if job is None:
        raise not_found(name)
    return job


def not_found(name: str) -> NotFoundError:
    """Return the error for a job that is not there, or not this client's."""
    return NotFoundError(f"There is no job {name[:80]!r}.", code="job_not_found")


async def call_of(gateway: Gateway, job: Job) -> Call:
    """Return the call that a job answers, to write its answer with.

    Raises NotFoundError where that is not kept any more.
    """
    request = await jobs_of(gateway).request(job)
    if request is None:
        raise NotFoundError("What this job asked for is not kept any more.", code="answer_expired")
    asked, source = codec_of(job.wire).read_request(request.body, request.model, stream=request.stream)
    return Call(
        request=asked, source=source, id=job.id.removeprefix("job_"), deadline=math.inf, tenant=job.tenant
    )


async def answer_of(gateway: Gateway, job: Job, call: Call, created: int) -> bytes:
    """Return the answer of a job that is done, as its client would have got it, had it waited.

    Raises NotFoundError where it is not kept any more.
    """
    chunks = await jobs_of(gateway).answer(job)
    if chunks is None:
        raise NotFoundError("The answer of this job is not kept any more.", code="answer_expired")
    return codec_of(job.wire).write_answer(call, list(chunks), created)


def error_of(job: Job) -> FirstTokenError:
    """Return the error that a job which ended without an answer means."""
    said = job.error or _ENDED.get(job.state, _FAILED)
    error = FirstTokenError(said.message, param=said.param, code=said.code)
    error.status, error.type = said.status, said.type
    return error


def document(job: Job) -> dict[str, Any]:
    """Return what clients see of a job. Times are Unix seconds; those that have not come are left out."""
    shown: dict[str, Any] = {
        "id": job.id,
        "object": "job",
        "state": job.state,
        "model": job.model,
        "created_at": int(job.created),
        "expires_at": int(job.expires),
        "attempts": job.attempts,
    }
    if job.started:
        shown["started_at"] = int(job.started)
    if job.finished:
        shown["finished_at"] = int(job.finished)
    if job.target:
        shown["target"] = job.target
    if job.webhook:
        shown["webhook"] = job.notified or "pending"
    if job.state == "failed" or job.error:
        shown["error"] = msgspec.to_builtins(job.error or _FAILED)
    return shown


def retry_after(gateway: Gateway) -> tuple[bytes, bytes]:
    """Return the header that says when to ask again."""
    return (b"retry-after", b"%d" % math.ceil(gateway.settings.jobs.retry_after))


async def _accepted(gateway: Gateway, call: Call, name: str) -> Job:
    """Return a job that was just made; what is known of it where the store does not answer now."""
    with suppress(StoreError):
        if (job := await jobs_of(gateway).get(call.tenant, name)) is not None:
            return job
    now = time.time()
    return Job(
        id=name,
        tenant=call.tenant,
        model=call.request.model,
        wire="",
        created=now,
        expires=now + gateway.settings.jobs.expires,
    )


async def _answer(gateway: Gateway, job: Job) -> dict[str, Any]:
    """Return an answer as its client would have got it, had it waited; null where it is not kept any more.

    Where the target's answer cannot be said in the client's format, the error that says so stands beside.
    """
    try:
        return {"answer": Raw(await answer_of(gateway, job, await call_of(gateway, job), int(job.created)))}
    except NotFoundError:
        return {"answer": None}
    except UpstreamError as error:
        said = JobError(error.status, error.type, str(error), error.code, error.param)
        return {"answer": None, "error": msgspec.to_builtins(said)}
