"""The headers that providers send besides an answer: its request id and what is left of the rate limits.

Sources: OpenAI's and Azure's pages on rate limits (``x-ratelimit-*``, durations such as ``1m30s``),
Anthropic's (``anthropic-ratelimit-*``, RFC 3339 times). Google and Amazon tell no limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from firsttoken.simulator.limits import Quota

Headers = list[tuple[bytes, bytes]]

_REQUEST_IDS = {"anthropic": b"request-id", "bedrock-converse": b"x-amzn-requestid"}


def request_id(wire: str, identity: str) -> Headers:
    """Return the header that holds the request id, where it is another than ``x-request-id``."""
    name = _REQUEST_IDS.get(wire)
    return [(name, identity.encode())] if name else []


def rate_limits(wire: str, quotas: Mapping[str, Quota], now: float) -> Headers:
    """Return what the format's provider says about its limits; ``now`` is Unix time in seconds."""
    if wire.startswith("openai"):
        return [header for name, quota in quotas.items() for header in _openai(name, quota)]
    if wire == "anthropic":
        return [header for name, quota in quotas.items() for header in _anthropic(name, quota, now)]
    return []


def retry_after_ms(wire: str, seconds: float | None) -> Headers:
    """Return the wait in milliseconds, which OpenAI and Azure name besides ``retry-after``."""
    if seconds is None or not wire.startswith("openai"):
        return []
    return [(b"retry-after-ms", str(round(seconds * 1000)).encode())]


def _openai(name: str, quota: Quota) -> Headers:
    values = {"limit": str(quota.limit), "remaining": str(quota.remaining), "reset": _duration(quota.reset)}
    return [(f"x-ratelimit-{word}-{name}".encode(), value.encode()) for word, value in values.items()]


def _anthropic(name: str, quota: Quota, now: float) -> Headers:
    reset = datetime.fromtimestamp(now + quota.reset, UTC).isoformat(timespec="seconds")
    values = {
        "limit": str(quota.limit),
        "remaining": str(quota.remaining),
        "reset": reset.replace("+00:00", "Z"),
    }
    return [(f"anthropic-ratelimit-{name}-{word}".encode(), value.encode()) for word, value in values.items()]


def _duration(seconds: float) -> str:
    """Return a duration as OpenAI writes it: ``20ms``, ``1.5s``, ``6m0s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:.0f}s" if minutes else f"{rest:.3g}s"
