"""How long, how often and with what care targets are called. Sources of the defaults: docs/resilience.md."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from firsttoken.settings.base import NotNegative, Positive, Section, Share


class Timeouts(Section, frozen=True):
    """Seconds. ``total`` is the deadline of a call unless the client or the platform sets a nearer one."""

    connect: Positive = 5.0
    first_chunk: Positive = 30.0
    """Of a streamed answer, until its first content."""
    whole: Positive = 120.0
    """Of an answer that is not streamed, until it is there."""
    gap: Positive = 15.0
    """Silence in a streamed answer."""
    idle: Positive = 60.0
    """No content in a streamed answer whose target still sends signs of life."""
    total: Positive = 300.0
    reserve: NotNegative = 1.0
    """Kept back from the platform's limit, to end an answer properly."""


class Retry(Section, frozen=True):
    """Rounds over the targets of a route, and the budget that bounds them (docs/resilience.md)."""

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    base: Positive = 0.05
    """Seconds; the wait before round n is random up to ``base * 2 ** n``."""
    throttle_base: Positive = 1.0
    """The same after a 429 that named no time."""
    cap: Positive = 5.0
    """No single wait is longer; what asks for more is not retried here."""
    budget: NotNegative = 10.0
    """Retries a target can be sent in a row."""
    refill: Share = 0.1
    """What each success gives back."""


class Breaker(Section, frozen=True):
    """When a target is no longer called, and how it is found well again. Times in seconds."""

    enabled: bool = True
    consecutive: Annotated[int, Meta(ge=1)] = 3
    """Failures in a row, seen by one instance, that keep this instance away."""
    failures: Annotated[int, Meta(ge=1)] = 10
    """Failures in one window, counted over all instances, that keep all of them away."""
    ratio: Share = 0.5
    window: Positive = 10.0
    slow: Positive = 10.0
    """A first token later than this counts as a failure at that moment."""
    slow_factor: NotNegative = 4.0
    """... or later than so many times the target's P95, but not under ``slow_floor``; 0 turns that off."""
    slow_floor: Positive = 2.0
    open: Positive = 5.0
    """How long it stays open at first; each failed probe multiplies that by ``growth`` up to ``max_open``."""
    growth: Annotated[float, Meta(ge=1)] = 1.5
    max_open: Positive = 20.0
    jitter: Share = 0.2
    probe_timeout: Positive = 10.0
    stale: Positive = 5.0
    """How old the copy of the shared state may become before it is read again, beside the calls."""


class Throttle(Section, frozen=True):
    """Adaptive throttling: calls are held back as a target accepts fewer of them (Google SRE)."""

    enabled: bool = True
    factor: Annotated[float, Meta(ge=1)] = 2.0
    window: Positive = 120.0
    minimum: Annotated[int, Meta(ge=0)] = 20
    """Calls in the window before it acts."""


class Limit(Section, frozen=True):
    """The wait for a target's quota, and shedding of what would come too late."""

    enabled: bool = True
    max_wait: NotNegative = 2.0
    """Seconds that a call waits for quota before another target is tried."""
    queue: Annotated[int, Meta(ge=0)] = 256
    """Calls that wait for one target at most."""
    sync: Positive = 1.0
    """How often instances tell each other what they used."""
    priorities: dict[str, Literal["high", "normal", "low"]] = {}
    """Of tenants; a client may ask for a lower one in ``x-firsttoken-priority``."""


class Hedge(Section, frozen=True):
    """A second call to another target when the first token is later than usual."""

    enabled: bool = True
    quantile: Annotated[float, Meta(gt=0, lt=1)] = 0.95
    samples: Annotated[int, Meta(ge=10, le=256)] = 50
    """First tokens seen before it acts."""
    floor: NotNegative = 0.5
    """Seconds; never earlier than this."""
    budget: Share = 0.05
    """Share of calls that may be doubled."""


class Resume(Section, frozen=True):
    """Going on with an answer that broke off."""

    enabled: bool = True
    attempts: Annotated[int, Meta(ge=1, le=5)] = 2
    max_chars: Annotated[int, Meta(ge=1)] = 200_000
    """An answer longer than this is not resumed (it is kept in memory until its end)."""


class Coalesce(Section, frozen=True):
    """Identical calls in flight share one upstream call; ``auto``: those with temperature 0 or a seed."""

    mode: Literal["auto", "on", "off"] = "auto"
    max_bytes: Annotated[int, Meta(ge=1024)] = 4 * 1024 * 1024
    """Of an answer that is kept for those who join late; beyond it nobody can join any more."""


class Idempotency(Section, frozen=True):
    """``Idempotency-Key``: the same key gives the same answer."""

    enabled: bool = True
    ttl: Positive = 86_400.0
    max_bytes: Annotated[int, Meta(ge=1024)] = 4 * 1024 * 1024
    """A larger answer is not kept."""
    lease: Positive = 15.0
    """Seconds after which an instance that died is replaced."""


class Alerts(Section, frozen=True):
    """Thresholds that `/v1/status` reports against; the templates' alarms use the same."""

    error_rate: Share = 0.05
    ttft_p95: Positive = 5.0
    """Seconds."""
    open_breakers: Annotated[int, Meta(ge=1)] = 1
    store_down: bool = True
