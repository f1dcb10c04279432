"""What happened to one call, as data: policies write here, exporters turn it into metrics and log lines."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field


class Quota(Struct, frozen=True):
    """What a target's headers say is left of a limit; ``reset``: seconds until all of it is there again."""

    limit: int
    remaining: int
    reset: float


class Attempt(Struct):
    """One call to one target on behalf of a client's call. Times as in `Record`."""

    target: str = ""
    started: float = 0.0
    first_chunk: float | None = None
    finished: float | None = None
    outcome: str = ""
    """``ok``, ``left`` (nobody listened any more, as with the slower of two), or an error's code."""
    kind: str = "first"
    """Why it was made: first, failover, retry, hedge, resume, rung, probe."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Of the input, read from the provider's prompt cache."""
    requests_quota: Quota | None = None
    tokens_quota: Quota | None = None


class Record(Struct):
    """Times are seconds on the event loop's clock; None means that the moment never came."""

    id: str = ""
    tenant: str = ""
    model: str = ""
    target: str = ""
    stream: bool = False
    status: int = 0
    error: str | None = None
    started: float = 0.0
    first_chunk: float | None = None
    finished: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    disconnected: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    """Every call that was made upstream, in order; those that a gate refused are not among them."""
    rung: str = ""
    """The step of the ladder that answered; empty for the first, the route's own targets."""
    resumed: int = 0
    """How often the answer broke off and was gone on with."""
    coalesced: bool = False
    """Whether another call's upstream answered this one."""
    cache: str = ""
    """``hit``, ``stale``, ``similar``, ``refused`` (a remembered refusal), ``miss``; empty: not looked up."""
    job: str = ""
    """The job that the call has become, or that it is made for."""
    replayed: bool = False
    """Whether the answer was given before, under the same idempotency key."""
    notes: dict[str, str] = field(default_factory=dict)
    """What a provider said of its answer: region, deployment, lane."""
    cached_tokens: int | None = None
    """Of the input, read from the provider's prompt cache."""
    cost: float | None = None
    """What the answer cost, as far as the prices of all that was called are known."""
    trace: str = ""
    """The ``traceparent`` of this call; empty where nobody traces it."""
    parent: str = ""
    """The client's span in it."""

    def summary(self) -> dict[str, Any]:
        """Return one flat, JSON-ready row without any text of the prompt or the answer.

        Durations are milliseconds.
        """
        return {
            **self.notes,  # first, so that none of them replaces a word of ours
            "request_id": self.id,
            "tenant": self.tenant,
            "model": self.model,
            "target": self.target,
            "stream": self.stream,
            "status": self.status,
            "error": self.error,
            "ttft_ms": _milliseconds(self.started, self.first_chunk),
            "ttlt_ms": _milliseconds(self.started, self.finished),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "cost": self.cost,
            "disconnected": self.disconnected,
            "attempts": [f"{attempt.kind}:{attempt.target}:{attempt.outcome}" for attempt in self.attempts],
            "rung": self.rung,
            "resumed": self.resumed,
            "coalesced": self.coalesced,
            "cache": self.cache,
            "replayed": self.replayed,
            "job": self.job,
            "trace_id": self.trace[3:35],
        }


def _milliseconds(start: float, end: float | None) -> float | None:
    return None if end is None else round((end - start) * 1000, 2)
