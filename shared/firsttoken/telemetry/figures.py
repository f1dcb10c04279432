"""What is counted of one call, worked out once for all exporters, under names that are bounded.

A client may ask for any model name, and a kept answer may name a target that is not configured any more:
neither may add a metric. Failed calls have no latencies, so they cannot make the others look better or worse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from firsttoken.telemetry.record import Record

OTHER = "other"
NONE = "none"
_LONGEST = 120
_HITS = frozenset(("hit", "stale", "similar"))

Price = Callable[[str, str, int, int, int], float | None]
"""What a call of a target costs, given the model that the client named and the tokens of its prompt, of its
answer, and of the prompt from a cache; None where that is not known."""


class Figures(Struct, frozen=True):
    """One call in numbers. Times are seconds; None: it does not apply, or the call failed."""

    model: str
    target: str
    tenant: str
    outcome: str
    """``ok``, ``deferred``, ``left`` (by the client), ``client_error`` or ``error``."""
    error: str
    """The code of the error; empty where there is none."""
    ttft: float | None
    """Of a streamed answer."""
    ttlt: float | None
    per_token: float | None
    """Between two tokens of a streamed answer, on average."""
    hit: bool
    """Whether a kept answer was given."""
    attempts: int
    """Calls that were made for it, not those of another call whose answer it shares."""


class Names:
    """The first ``limit`` names that it is asked for; all others are `OTHER`. Memory: so many names."""

    def __init__(self, limit: int, known: Iterable[str] = ()) -> None:
        self._limit = limit
        self._known = set(known)

    def of(self, name: str) -> str:
        """Return the name that counts for ``name``."""
        if name in self._known:
            return name
        if not name or len(name) > _LONGEST or len(self._known) >= self._limit:
            return OTHER if name else NONE
        self._known.add(name)
        return name


class Labels:
    """The bounded names of one process: models are those of the configuration."""

    def __init__(self, models: Iterable[str], series: int) -> None:
        self._models = frozenset(models)
        self._any = "*" if "*" in self._models else OTHER
        self._targets, self._tenants, self._errors = (Names(series) for _ in range(3))

    def model(self, name: str) -> str:
        """Return the route that a client's model name means."""
        return name if name in self._models else self._any if name else NONE

    def target(self, name: str) -> str:
        """Return the name that counts for a target."""
        return self._targets.of(name)

    def figures(self, record: Record) -> Figures:
        """Return what is counted of a call that has ended."""
        outcome = _outcome(record)
        began, ended, started = record.first_chunk, record.finished, record.started
        whole = outcome == "ok" and ended is not None
        first = began - started if began is not None and record.stream and outcome != "error" else None
        later = (record.output_tokens or 0) - 1
        kept = record.replayed or record.cache in _HITS
        spaced = whole and first is not None and later > 0 and not kept
        return Figures(
            model=self.model(record.model),
            target=self._targets.of(record.target),
            tenant=self._tenants.of(record.tenant),
            outcome=outcome,
            error=self._errors.of(record.error) if record.error else "",
            ttft=first,
            ttlt=(ended - started) if whole and ended is not None else None,
            per_token=(ended - began) / later if spaced and ended is not None and began is not None else None,
            hit=record.cache in _HITS,
            attempts=0 if record.coalesced else len(record.attempts),
        )


def cost_of(record: Record, price: Price) -> float | None:
    """Return what a call cost, all its attempts together; None where the price of one is not known.

    What another call has paid for, and an answer from a cache, costs nothing.
    """
    if record.coalesced or record.replayed or record.cache in _HITS:
        return 0.0
    total = 0.0
    for attempt in record.attempts:
        tokens = (attempt.input_tokens, attempt.output_tokens, attempt.cached_tokens)
        if not any(tokens):
            continue
        cost = price(attempt.target, record.model, *tokens)
        if cost is None:
            return None
        total += cost
    return total if record.attempts else None


def _outcome(record: Record) -> str:
    if record.disconnected:
        return "left"
    if record.error:
        return "client_error" if 400 <= record.status < 500 else "error"
    return "deferred" if record.job and record.status == 202 else "ok"
