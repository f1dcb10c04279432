"""Batches of targets without a batch API: each line is answered by us, at once or as a job of the queue.

Without a queue a bounded number of lines is answered at once, in the order of the file, until the tick's time
is up. With one each line becomes a job, a bounded number of them at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial

import msgspec

from firsttoken.batch.batch import Batch, derived
from firsttoken.batch.lines import Line
from firsttoken.batch.parallel import gather
from firsttoken.batch.provider import Lines, Progress, Result, answered, failed
from firsttoken.errors import (
    DeadlineError,
    FirstTokenError,
    InternalError,
    UpstreamAuthError,
    UpstreamError,
    UpstreamRefusedError,
)
from firsttoken.jobs.job import Job, JobRequest
from firsttoken.jobs.jobs import Jobs
from firsttoken.model import Call, Chunk
from firsttoken.settings.batch import Batch as Settings
from firsttoken.telemetry.record import Record
from firsttoken.wire import openai_chat

TRIES = 3
"""Of a line within a tick, while others of its group are answered."""
PAUSE = 2.0
"""Seconds before the second try; the third comes after twice as long."""
GROUP = 4
"""Lines that are answered together, as a multiple of those at once; a crash has so many answered again."""
HANDLE = "local"
"""Of batches that are answered within ticks."""
Stream = Callable[[Call], AsyncGenerator[Chunk]]


class _Local:
    """What both ways share: they end when all results were collected, and stop at once."""

    partial = True

    def __init__(self, batch: Batch, lines: Lines, settings: Settings, until: Callable[[], float]) -> None:
        self.batch = batch
        self._lines = lines
        self._settings = settings
        self._until = until

    def check(self, line: Line) -> None:
        """Do nothing: the route says itself what it cannot answer."""

    async def find(self) -> str:
        """Return nothing: to submit it again does no harm."""
        return ""

    def _is_over(self) -> bool:
        return asyncio.get_running_loop().time() >= self._until()

    def _call(self, line: Line, deadline: float) -> Call:
        request, source = openai_chat.read_request(line.body)
        name, tenant = derived(self.batch, line.number), self.batch.tenant
        record = Record(id=name, tenant=tenant, model=request.model, started=deadline)
        return Call(
            request=request,
            source=source,
            id=name,
            deadline=deadline,
            tenant=tenant,
            record=record,
            background=True,
        )


class FanOut(_Local):
    """Lines that are answered within a tick: ``until`` is its end, on the loop's clock."""

    def __init__(
        self, batch: Batch, lines: Lines, settings: Settings, stream: Stream, until: Callable[[], float]
    ) -> None:
        super().__init__(batch, lines, settings, until)
        self._stream = stream

    async def submit(self, lines: Lines) -> str:  # noqa: ARG002 - they are read as they are answered
        """Do nothing yet."""
        return HANDLE

    async def poll(self, handle: str) -> Progress:  # noqa: ARG002
        """Say that it goes on: it ends when everything is collected."""
        return Progress()

    async def cancel(self, handle: str) -> None:
        """Do nothing: between ticks nothing is at work."""

    async def results(self, handle: str, start: int) -> AsyncGenerator[Result]:  # noqa: ARG002
        """Answer lines from number ``start`` on, and yield what came of them, in their order.

        Ends where time is up, and where a whole group met errors that a later try may mend: an outage. A
        batch that was stopped has no more of them.
        """
        if self.batch.ended:
            return
        size = GROUP * self._settings.concurrency
        group: list[Line] = []
        async with aclosing(self._from(start)) as lines:
            async for line in lines:
                group.append(line)
                if len(group) < size:
                    continue
                found = await self._answer(group)
                for result in found:
                    yield result
                group = []
                if not found or self._is_over():
                    return
        for result in await self._answer(group) if group else []:
            yield result

    async def _from(self, start: int) -> AsyncGenerator[Line]:
        async for line in self._lines(start):
            yield line

    async def _answer(self, group: Sequence[Line]) -> list[Result]:
        """Return what came of each line; nothing where all of them have to be tried later."""
        found: dict[int, Result] = {}
        mendable: set[int] = set()
        waiting = list(group)
        for tried in range(TRIES):
            if tried:
                await asyncio.sleep(PAUSE * 2 ** (tried - 1))
            outcomes = await gather(waiting, self._one, limit=self._settings.concurrency)
            mendable.clear()
            for outcome in outcomes:
                line = waiting[outcome.index]
                if outcome.ok:
                    found[line.number] = outcome.result()
                    continue
                error = outcome.error
                if not isinstance(error, FirstTokenError):
                    outcome.result()
                    continue
                found[line.number] = failed(line.number, error)
                if may_mend(error):
                    mendable.add(line.number)
            if len(mendable) == len(group):
                return []
            waiting = [line for line in waiting if line.number in mendable]
            if not waiting or self._is_over():
                break
        return [found[line.number] for line in group]

    async def _one(self, line: Line) -> Result:
        loop = asyncio.get_running_loop()
        call = self._call(line, loop.time() + self._settings.call_seconds)
        chunks = self._stream(call)
        try:
            async with asyncio.timeout_at(call.deadline):
                said = [chunk async for chunk in chunks]
        except TimeoutError as error:
            raise DeadlineError("The time for this call is used up.") from error
        finally:
            await chunks.aclose()
        return answered(line.number, openai_chat.write_answer(call, said, int(self.batch.created)))


class Queued(_Local):
    """Lines that become jobs: at most ``queued`` at a time. The handle says how many were submitted.

    A job's id is made from the batch's and the line's: however often a line is submitted, it is one job.
    """

    def __init__(
        self, batch: Batch, lines: Lines, settings: Settings, jobs: Jobs, until: Callable[[], float]
    ) -> None:
        super().__init__(batch, lines, settings, until)
        self._jobs = jobs

    async def submit(self, lines: Lines) -> str:  # noqa: ARG002 - they are read as there is room
        """Do nothing yet: the first look submits the first lines."""
        return "0"

    async def poll(self, handle: str) -> Progress:
        """Submit as many lines as there is room for. Raises QueueError."""
        done, batch = int(handle), self.batch
        room = min(batch.collected + self._settings.queued, batch.total) - done
        if room <= 0:
            return Progress()
        size = GROUP * self._settings.concurrency
        group: list[Line] = []
        async for line in self._lines(done):
            group.append(line)
            if len(group) < min(size, room):
                continue
            for outcome in await gather(group, self._submit, limit=self._settings.concurrency):
                outcome.result()
            done, room, group = done + len(group), room - len(group), []
            if room <= 0 or self._is_over():
                break
        return Progress(handle=str(done))

    async def cancel(self, handle: str) -> None:
        """Cancel the jobs that have no end yet."""
        names = [self._name(number) for number in range(self.batch.collected, int(handle))]
        cancel = partial(self._jobs.cancel, self.batch.tenant)
        for outcome in await gather(names, cancel, limit=self._settings.concurrency):
            outcome.result()

    async def results(self, handle: str, start: int) -> AsyncGenerator[Result]:
        """Yield what came of the jobs, in the order of their lines, up to the first that has no end yet."""
        size = GROUP * self._settings.concurrency
        for first in range(start, int(handle), size):
            numbers = range(first, min(first + size, int(handle)))
            for outcome in await gather(numbers, self._result, limit=self._settings.concurrency):
                result = outcome.result()
                if result is None:
                    return
                yield result
            if self._is_over():
                return

    async def _submit(self, line: Line) -> None:
        batch, jobs = self.batch, self._jobs
        job = Job(
            id=self._name(line.number),
            tenant=batch.tenant,
            model=batch.model,
            wire="openai_chat",
            created=jobs.wall(),
            expires=batch.expires,
        )
        await jobs.create(job, JobRequest(wire="openai_chat", body=line.body))
        await jobs.send(job)

    async def _result(self, number: int) -> Result | None:
        job = await self._jobs.get(self.batch.tenant, self._name(number))
        if job is None:
            return failed(number, InternalError("The job of this line is not kept any more."))
        if not job.is_final:
            return None
        said = await self._jobs.answer(job)
        if said is not None:
            asked = {"model": self.batch.model, "messages": [{"role": "user", "content": ""}]}
            call = self._call(Line(number, 0, "", msgspec.json.encode(asked)), 0.0)
            return answered(number, openai_chat.write_answer(call, list(said), int(self.batch.created)))
        if job.error is None:
            state = self.batch.ended or job.state
            return Result(number, code=f"batch_{state}", message=f"The job of this request is {job.state}.")
        error = job.error
        body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        return Result(number, error.status, msgspec.json.encode({"error": body}))

    def _name(self, number: int) -> str:
        return f"job_{derived(self.batch, number)}"


def may_mend(error: FirstTokenError) -> bool:
    """Return whether the same call may be answered later."""
    if isinstance(error, UpstreamRefusedError | UpstreamAuthError):
        return False
    return isinstance(error, UpstreamError | DeadlineError)
