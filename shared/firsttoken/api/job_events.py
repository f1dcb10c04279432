"""``GET /v1/jobs/{id}/events``: a job as the stream that its client would have got, had it waited.

It waits with heartbeats that tell the job's state, passes the answer on while a worker produces it, and ends
as that stream would have. A kept answer comes at once.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from firsttoken.api.chat import stream_headers
from firsttoken.api.exchange import Exchange, Heartbeat
from firsttoken.api.jobs import call_of, error_of, find, jobs_of
from firsttoken.api.lifetime import deadline_of, until_the_client_leaves
from firsttoken.errors import DeadlineError, FirstTokenError, NotFoundError
from firsttoken.gateway import Gateway
from firsttoken.jobs.job import Job
from firsttoken.model import Call, Chunk
from firsttoken.wire import codec_of
from firsttoken.wire.codec import Codec

_CLOSING = 0.2
"""Seconds before the deadline in which the stream is ended properly."""


class JobWriter:
    """A `firsttoken.wire.codec.StreamWriter` for an answer that is not there yet.

    Where the format is server-sent events and its clients read over comments, those tell the job's state.
    """

    def __init__(self, codec: Codec, call: Call, job: Job) -> None:
        self._writer = codec.open_writer(call, int(job.created))
        self._comments = codec.STREAM_TYPE.startswith("text/event-stream") and codec.WIRE != "gemini"
        self._state = ""
        self._begun = False

    def told(self, job: Job) -> bytes:
        """Return what says that the job's state is another one now."""
        news = job.state != self._state and not job.is_final
        self._state = job.state
        return self.heartbeat() if news and self._comments and not self._begun else b""

    def write(self, chunk: Chunk) -> bytes:
        """Return the events of one chunk."""
        self._begun = True
        return self._writer.write(chunk)

    def end(self) -> bytes:
        """Return the closing events."""
        return self._writer.end()

    def ended(self, job: Job) -> bytes:
        """Return the closing events of a job that ended without an answer; or raise what they shall say."""
        raise error_of(job)

    def adopt(self, raw: bytes) -> None:
        """See `firsttoken.wire.codec.StreamWriter.adopt`."""
        self._writer.adopt(raw)

    def error(self, error: FirstTokenError, request_id: str) -> bytes:
        """Return the event that ends a broken answer."""
        return self._writer.error(error, request_id)

    def heartbeat(self) -> bytes:
        """Return a comment with the state, or what clients of the format read over."""
        if self._comments and not self._begun:
            return b": job %b\n\n" % self._state.encode()
        return self._writer.heartbeat()


async def events(exchange: Exchange, gateway: Gateway, name: str) -> None:
    """Stream a job in the format of its call; 200 whatever becomes of it. Raises NotFoundError."""
    job = await find(exchange, gateway, name)
    codec = codec_of(job.wire)
    if job.wire == "gemini" and b"alt=sse" not in exchange.scope.get("query_string", b"").split(b"&"):
        codec = codec_of("gemini.array")  # as Google streams without it
    writer = JobWriter(codec, await call_of(gateway, job), job)
    exchange.codec = codec
    await stream(exchange, gateway, job, writer)


async def stream(exchange: Exchange, gateway: Gateway, job: Job, writer: JobWriter) -> None:
    """Answer with a job as a stream, until its end, the deadline, or the client leaves."""
    if exchange.scope["method"] == "HEAD":
        await exchange.start(200, stream_headers(exchange.codec))
        await exchange.end()
        return
    deadline = deadline_of(exchange, gateway)
    work = follow(exchange, gateway, job, writer, deadline)
    await until_the_client_leaves(exchange, deadline, work)


async def follow(exchange: Exchange, gateway: Gateway, job: Job, writer: JobWriter, deadline: float) -> None:
    """Write a stream of the job to a client, beginning it if need be.

    Raises what ends the stream in place of an answer: the job's error, or DeadlineError while it goes on.
    """
    exchange.writer = writer
    head = stream_headers(exchange.codec)
    now = asyncio.get_running_loop().time()
    until = deadline - min(_CLOSING, max(deadline - now, 0.0) / 4)
    beat = Heartbeat(exchange, gateway.settings.server.heartbeat_seconds, head)
    try:
        if not exchange.started:
            await exchange.start(200, head)
        await _send(exchange, writer.told(job))
        async with aclosing(jobs_of(gateway).follow(job.tenant, job.id, until)) as news:
            async for item in news:
                if isinstance(item, Job):
                    job = item
                    await _send(exchange, writer.told(job))
                else:
                    await _send(exchange, writer.write(item))
        if not job.is_final:
            raise await _unfinished(gateway, job)
        await exchange.end(writer.end() if job.state == "done" else writer.ended(job))
    finally:
        beat.stop()


async def _send(exchange: Exchange, data: bytes) -> None:
    if data:
        await exchange.write(data)


async def _unfinished(gateway: Gateway, job: Job) -> FirstTokenError:
    """Return the error for a stream that ends before its job."""
    if await jobs_of(gateway).get(job.tenant, job.id) is None:
        return NotFoundError("The job is not kept any more.", code="job_not_found")
    message = "The time for this connection is used up; the job goes on. Connect again"
    return DeadlineError(f"{message} at /v1/jobs/{job.id}/events.", code="job_unfinished")
