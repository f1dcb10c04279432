"""The rate limits of a target, kept on our side: reserve before a call, settle after it, wait or go away.

A `Limiter` knows how much of each limit is left; `Limited` is the policy that asks it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from firsttoken.errors import (
    RequestError,
    UnavailableError,
    UpstreamAuthError,
    UpstreamConnectError,
    UpstreamRateLimitError,
    UpstreamRefusedError,
)
from firsttoken.model import Call, Model, Usage
from firsttoken.policies.bucket import Amounts, Bucket, Quotas
from firsttoken.policies.charging import charging_of
from firsttoken.policies.estimate import estimate
from firsttoken.policies.line import Reservation, rank_of
from firsttoken.policies.opened import Ending, Opened, Policy, open_model
from firsttoken.policies.quota_sync import QuotaSync
from firsttoken.policies.shadow import Shadow
from firsttoken.policies.stats import LEARNED, Stats
from firsttoken.policies.waiting import WaitingRoom
from firsttoken.settings import Limit, Target
from firsttoken.stores.store import Store
from firsttoken.telemetry.record import Attempt
from firsttoken.wire.rate_limits import TokenQuota

if TYPE_CHECKING:
    from random import Random

TYPICAL_OUTPUT = 512.0
"""Tokens of an answer, until the target's own average is known."""
_WEIGHT = 0.1
"""Of the latest answer in that average."""
_NOTHING: Amounts = (0.0, 0.0, 0.0)
_NEVER_ARRIVED = (UnavailableError, UpstreamConnectError, RequestError)
_NOT_PROCESSED = (UpstreamRateLimitError, UpstreamRefusedError, UpstreamAuthError)


class BucketView(Struct, frozen=True):
    """One limit at one moment: how much a minute, and how much is left (negative: owed)."""

    limit: int
    left: int


class LimitView(Struct, frozen=True):
    """One limiter at one moment; a limit is None while it is unknown."""

    requests: BucketView | None = None
    tokens: BucketView | None = None
    output: BucketView | None = None
    waiting: int = 0
    shed: int = 0
    """Calls that were not let through since the start."""


class Limited(Policy):
    """A model that is called within its limits. Calls wait a moment for them, or fail as unavailable."""

    def __init__(self, model: Model, limiter: Limiter) -> None:
        self._model = model
        self._limiter = limiter

    async def open(self, call: Call) -> Opened:
        """Open the answer once the limits allow it. Raises UnavailableError where that would take too long.

        Costs about 1 us of CPU while no limit is known, 6 us otherwise.
        """
        limiter = self._limiter
        reservation = limiter.admit(call)
        if reservation is not None and reservation.future is not None:
            await limiter.room.wait(reservation)
        try:
            opened = await open_model(self._model, call)
        except BaseException as error:
            if reservation is not None:
                limiter.failed(reservation, error)
            limiter.learn(call.attempt)
            raise
        limiter.learn(call.attempt)
        if reservation is not None:
            opened.ends.append(partial(limiter.ended, reservation))
        return opened


class Limiter:
    """What is left of one target's limits, and who waits for more.

    Limits are the configured ones, else those that the target's headers tell; the headers lower what is left
    of either. A target of many models (``provider/*``) learns none: each of its models has limits of its own.
    A call larger than a whole limit is charged all of it: whether it fits is for the target to say. Memory:
    ``settings.queue`` waiting calls. For one event loop at a time.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it knows, what it shares, and its clocks
        self,
        name: str,
        target: Target,
        settings: Limit,
        stats: Stats,
        store: Store | None,
        shadow: Shadow,
        *,
        kind: str = "",
        wall: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        model = name.partition("/")[2]
        self.quotas = Quotas(target.rpm, target.tpm, target.output_tpm)
        self._settings = settings
        self._stats = stats
        self._max_output = target.max_output
        self._learns = model != "*"
        self._charging = charging_of(kind, model, target.burndown)
        self._apart = self._charging.output == "apart"
        self._together = charging_of("", "") if self._apart else self._charging
        self._average = TYPICAL_OUTPUT
        self._sync: QuotaSync | None = None
        if store is not None and store.shared:
            if rng is None:
                from random import Random  # slow to import, and not needed without a shared store

                rng = Random()  # noqa: S311 - jitter, not secrets
            self._sync = QuotaSync(name, self.quotas, store, shadow, settings.sync, wall=wall, rng=rng)
        self.room = WaitingRoom(self.quotas, settings.queue, self._sync)

    def admit(self, call: Call) -> Reservation | None:
        """Reserve what a call will use, or let it wait in the `room`; None where nothing limits it.

        Raises UnavailableError where the answer would come too late.
        """
        if not self._settings.enabled:
            return None
        now = asyncio.get_running_loop().time()
        stats = self._stats
        typical = (stats.quantile(0.5) or 0.0) if stats.samples >= LEARNED else 0.0
        if now + typical > call.deadline:
            raise self.room.refusal("The answer would come too late.", None)
        if not self.quotas.known:
            return None
        if self._sync is not None:
            self._sync.touch(now)
        reservation = self._reservation(call)
        if len(self.room) or not self.quotas.fit(reservation.amounts, now):
            reservation.rank = rank_of(call, self._settings.priorities)
            until = min(now + self._settings.max_wait, call.deadline - typical)
            self.room.enter(reservation, now, until)
        else:
            reservation.amounts = self.quotas.take(reservation.amounts)
        return reservation

    def failed(self, reservation: Reservation, error: BaseException) -> None:
        """Settle a call that brought no answer: give back what the target does not count."""
        if isinstance(error, _NEVER_ARRIVED):
            self._settle(reservation, _NOTHING)
        elif isinstance(error, _NOT_PROCESSED):
            self._settle(reservation, (1.0, 0.0, 0.0))
        elif self._charging.settles or not reservation.named:
            self._settle(reservation, self._used(Usage(input=reservation.prompt)))

    def ended(self, reservation: Reservation, ending: Ending) -> None:
        """Settle a call that was answered: what it used, or input and chunks where nobody said."""
        usage = ending.usage
        if usage is None or ending.left or ending.error is not None:
            said = usage or Usage(input=reservation.prompt)
            usage = Usage(said.input, max(said.output, ending.chunks), said.cached)
        else:
            self._average += _WEIGHT * (usage.output - self._average)
        if self._charging.settles or not reservation.named:
            self._settle(reservation, self._used(usage))

    def learn(self, attempt: Attempt) -> None:
        """Believe what the target's headers said."""
        requests, tokens = attempt.requests_quota, attempt.tokens_quota
        if (requests is None and tokens is None) or not self._learns or not self._settings.enabled:
            return
        now, quotas = asyncio.get_running_loop().time(), self.quotas
        if requests is not None:
            quotas.requests.adapt(requests, now)
        if tokens is not None:
            quotas.tokens.adapt(tokens, now)
            if isinstance(tokens, TokenQuota) and tokens.output is not None and self._apart:
                # What is counted as it is produced leaves out what is still to come.
                rest = tokens.output.remaining - int(quotas.pending)
                quotas.output.adapt(replace(tokens.output, remaining=rest), now)
        self.room.serve()

    def headroom(self) -> float:
        """Return the share of the scarcest limit that is left, 0 to 1; 1 while no limit is known."""
        return self.quotas.headroom(asyncio.get_running_loop().time())

    def view(self) -> LimitView:
        """Return what a status page shows."""
        now = asyncio.get_running_loop().time()
        requests, tokens, output = [_view(bucket, now) for bucket in self.quotas.buckets]
        return LimitView(requests, tokens, output, len(self.room), self.room.shed)

    def _reservation(self, call: Call) -> Reservation:
        request = call.request
        prompt, limit = estimate(request), request.max_tokens or 0
        charging = self._charging if not self._apart or self.quotas.output.known else self._together
        tokens, output = charging.set_aside(prompt, limit or self._max_output, self._average)
        return Reservation((1.0, tokens, output), prompt, named=limit > 0, tenant=call.tenant)

    def _used(self, usage: Usage) -> Amounts:
        # Until the limit of answers is known, their tokens count against the one that is.
        charging = self._charging if not self._apart or self.quotas.output.known else self._together
        return (1.0, *charging.used(usage))

    def _settle(self, reservation: Reservation, used: Amounts) -> None:
        self.quotas.settle(reservation.amounts, used)
        self.room.serve()


def _view(bucket: Bucket, now: float) -> BucketView | None:
    return BucketView(int(bucket.limit), int(bucket.left(now))) if bucket.known else None
