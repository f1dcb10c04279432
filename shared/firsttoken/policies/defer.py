"""No answer now: the call becomes a job, which a worker answers when a target is healthy again.

The outermost policy. Like all others it ends where the answer begins: what has begun never becomes a job.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from firsttoken.errors import (
    DeadlineError,
    DeferredError,
    FirstTokenError,
    QueueError,
    StoreError,
    UpstreamAuthError,
    UpstreamError,
    UpstreamRefusedError,
)
from firsttoken.model import Call, Chunk, Later, Model
from firsttoken.policies.opened import Opened, Policy, open_model

Submit = Callable[[Call, Later], Awaitable[str]]
"""Makes a job of a call and returns its id. Raises StoreError and QueueError."""
RESERVE = 2.0
"""Seconds before a call's deadline that are kept to make a job of it ..."""
_RESERVED = 0.25
"""... or so much of the time that it has, where that is less."""


class Deferred(Policy):
    """A model whose calls become jobs: those that ask for it, and with ``outage`` all that find no answer.

    A job is made at once, or where the answer has not begun within the client's time, or after an error that
    a later try may mend. Costs nothing for calls that may not become jobs; for those that may about 9 us,
    and 0.2 us a chunk.
    """

    def __init__(self, model: Model, submit: Submit, *, outage: bool) -> None:
        self._model = model
        self._submit = submit
        self._outage = outage

    def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the answer to ``call``. Raises DeferredError where it has become a job."""
        return super().stream(call) if self._later(call) else self._model.stream(call)

    async def open(self, call: Call) -> Opened:
        """Open the answer. Raises DeferredError where the call has become a job."""
        later = self._later(call)
        if later is None:
            return await open_model(self._model, call)
        if later.asked and not later.wait:
            raise await self._deferred(call, later)
        try:
            return await self._in_time(call, later)
        except FirstTokenError as error:
            if not _may_mend(error):
                raise
            cause = error
        try:
            deferred = await self._deferred(call, later)
        except (StoreError, QueueError) as lost:
            call.record.notes["not_deferred"] = str(lost)  # for the log: the client hears of its own outage
            if later.asked:
                raise
            raise cause from lost
        raise deferred from cause

    def _later(self, call: Call) -> Later | None:
        later = call.later
        return later if later is not None and (later.asked or self._outage) else None

    async def _in_time(self, call: Call, later: Later) -> Opened:
        """Open the answer. Raises DeadlineError when it is time to give up."""
        now = asyncio.get_running_loop().time()
        until = call.deadline - min(RESERVE, _RESERVED * max(call.deadline - now, 0.0))
        if later.wait:
            until = min(until, now + later.wait)
        limit = asyncio.timeout_at(until)
        try:
            async with limit:
                return await open_model(self._model, call)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineError("The time for this call is used up.") from None

    async def _deferred(self, call: Call, later: Later) -> DeferredError:
        name = await self._submit(call, later)
        call.record.job = name
        return DeferredError(f"The call has become the job {name}.", id=name)


def _may_mend(error: FirstTokenError) -> bool:
    """Return whether a later try may succeed: not where the request or our credentials are wrong."""
    if isinstance(error, UpstreamRefusedError | UpstreamAuthError):
        return False
    return isinstance(error, DeadlineError) or (
        isinstance(error, UpstreamError) and (error.retryable or error.failover)
    )
