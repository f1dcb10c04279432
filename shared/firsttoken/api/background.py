"""OpenAI's background responses: ``background: true``, and what clients ask of ``/v1/responses/{id}``.

A response is a job by another name: ``resp_`` and ``job_`` before the same digits.
"""

from __future__ import annotations

from typing import Any

import msgspec

from firsttoken.api.exchange import Exchange
from firsttoken.api.job_events import JobWriter, follow, stream
from firsttoken.api.jobs import answer_of, call_of, error_of, jobs_of
from firsttoken.api.query import number, query_of
from firsttoken.errors import FirstTokenError, NotFoundError
from firsttoken.gateway import Gateway
from firsttoken.jobs.job import Job
from firsttoken.model import Call, Chunk
from firsttoken.wire.codec import Codec
from firsttoken.wire.openai_responses.background import BackgroundWriter, finished, response

WIRE = "openai_responses"
_STATUS = {"queued": "queued", "running": "in_progress", "cancelled": "cancelled"}
"""The status of a response by its job's state; every other job without an answer failed."""
_MAX_NUMBER = 10**12


class ResponseWriter(JobWriter):
    """Writes a job as the numbered events of a background response, those behind ``after``."""

    def __init__(self, codec: Codec, call: Call, job: Job, after: int = -1) -> None:
        super().__init__(codec, call, job)
        self._events = BackgroundWriter(call, int(job.created), after)
        self._opened = False

    def told(self, job: Job) -> bytes:
        """Return the events that say so, each once: a job that waits again is said to be in progress."""
        events = b"" if self._opened else self._events.queued()
        self._opened = True
        self._events.completed = int(job.finished)
        return events + (self._events.running() if job.state == "running" else b"") + super().told(job)

    def write(self, chunk: Chunk) -> bytes:
        """Return the events of one chunk."""
        self._begun = True
        return self._events.write(chunk)

    def end(self) -> bytes:
        """Return the closing events."""
        return self._events.end()

    def ended(self, job: Job) -> bytes:
        """Return the closing event of a response without an answer."""
        return self._events.failed(_status(job), _error(job))

    def error(self, error: FirstTokenError, request_id: str) -> bytes:
        """Return the event that ends this stream, but not the response."""
        return self._events.error(error, request_id)


async def accept(exchange: Exchange, gateway: Gateway, call: Call, job: Job) -> None:
    """Answer a call that has become a background response: with the response, or with its events."""
    call.id = job.id.removeprefix("job_")
    if call.request.stream:
        await follow(exchange, gateway, job, ResponseWriter(exchange.codec, call, job), call.deadline)
    else:
        await exchange.answer(200, response(call, int(job.created), _status(job)))


async def retrieve(exchange: Exchange, gateway: Gateway, name: str) -> None:
    """Answer with a response as it is now, or with its events (``stream``). Raises NotFoundError."""
    query = query_of(exchange)
    after = number(query, "starting_after", 0, _MAX_NUMBER, -1)
    job = _checked(await jobs_of(gateway).get(exchange.record.tenant, _job(name)), name)
    if query.get("stream", "").lower() in ("true", "1"):
        call = await call_of(gateway, job)
        await stream(exchange, gateway, job, ResponseWriter(exchange.codec, call, job, after))
    else:
        await exchange.answer(200, await _response(gateway, job))


async def cancel(exchange: Exchange, gateway: Gateway, name: str) -> None:
    """Cancel a response; one that has ended is answered with as it is. Raises NotFoundError."""
    job = _checked(await jobs_of(gateway).get(exchange.record.tenant, _job(name)), name)
    job = _checked(await jobs_of(gateway).cancel(job.tenant, job.id), name)
    await exchange.answer(200, await _response(gateway, job))


async def delete(exchange: Exchange, gateway: Gateway, name: str) -> None:
    """Cancel a response and forget it. Raises NotFoundError."""
    job = _checked(await jobs_of(gateway).get(exchange.record.tenant, _job(name)), name)
    await jobs_of(gateway).delete(job.tenant, job.id)
    said = {"id": name, "object": "response", "deleted": True}
    await exchange.answer(200, msgspec.json.encode(said))


async def _response(gateway: Gateway, job: Job) -> bytes:
    call = await call_of(gateway, job)
    created = int(job.created)
    if job.state != "done":
        return response(call, created, _status(job), _error(job))
    return finished(call, created, await answer_of(gateway, job, call, int(job.finished)))


def _status(job: Job) -> str:
    return _STATUS.get(job.state, "failed")


def _error(job: Job) -> dict[str, Any] | None:
    if not job.is_final or job.state == "cancelled":
        return None
    error = error_of(job)
    return {"code": error.code or error.type, "message": str(error)}


def _job(name: str) -> str:
    return f"job_{name.removeprefix('resp_')}"


def _checked(job: Job | None, name: str) -> Job:
    """Return a job that is a response. Raises NotFoundError."""
    if job is None or job.wire != WIRE:
        raise NotFoundError(f"Response with id {name[:80]!r} not found.", param="response_id")
    return job
