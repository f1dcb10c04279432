"""A target as a route sees it: a name, what is known of it, and the policies around its provider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from firsttoken.errors import FirstTokenError
from firsttoken.model import Call, Model
from firsttoken.policies.opened import Ending, Opened, Policy, open_model
from firsttoken.policies.stats import Stats, is_failure
from firsttoken.telemetry.record import Attempt


class Target(Policy):
    """The outer face of a target: every call to it becomes an attempt of its own."""

    def __init__(
        self,
        name: str,
        model: Model,
        stats: Stats,
        *,
        price: float = 0.0,
        headroom: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.name = name
        """``provider/model``, as configured."""
        self.stats = stats
        self.price = price
        """Of a million tokens; 0 when unknown."""
        self.headroom = headroom
        """Share of the target's quota that is left, 0 to 1."""
        self._model = model

    async def open(self, call: Call) -> Opened:
        """Open the target's answer."""
        attempt = Attempt(target=self.name, kind=call.kind)
        return await open_model(self._model, replace(call, attempt=attempt))


class Measured(Policy):
    """Around the provider itself: what really goes out is written to the record and to the statistics."""

    def __init__(self, model: Model, stats: Stats) -> None:
        self._model = model
        self._stats = stats

    async def open(self, call: Call) -> Opened:
        """Open the answer and note when it began, or why it did not."""
        stats, attempt, record = self._stats, call.attempt, call.record
        now = asyncio.get_running_loop().time
        attempt.started = now()
        record.attempts.append(attempt)
        stats.in_flight += 1
        stats.calls += 1
        try:
            opened = await open_model(self._model, call)
        except BaseException as error:
            self._ended(attempt, error if isinstance(error, FirstTokenError) else None, now())
            if call.request.stream:
                stats.gave_up(now() - attempt.started)
            raise
        attempt.first_chunk = now()
        if call.request.stream:
            stats.began(attempt.first_chunk - attempt.started)
        record.target = attempt.target

        def ended(ending: Ending) -> None:
            if ending.usage is not None:
                attempt.input_tokens, attempt.output_tokens = ending.usage.input, ending.usage.output
                attempt.cached_tokens = ending.usage.cached
            self._ended(attempt, ending.error, now(), left=ending.left)

        opened.ends.append(ended)
        return opened

    def _ended(
        self, attempt: Attempt, error: FirstTokenError | None, now: float, *, left: bool = True
    ) -> None:
        attempt.finished = now
        if error is not None:
            self._stats.ended(failed=is_failure(error))
            attempt.outcome = error.code or error.type
        else:
            self._stats.ended(failed=None if left else False)
            attempt.outcome = "left" if left else "ok"
