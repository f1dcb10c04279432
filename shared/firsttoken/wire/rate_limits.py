"""What the headers of an answer say is left of the target's limits, whichever provider wrote them.

Sources: OpenAI's page "Rate limits" (``x-ratelimit-*``, durations such as ``1m30s``), Anthropic's (RFC 3339
times; input and output apart), Cerebras' (names that end in their period). Azure writes OpenAI's names, but
whole seconds, -1 for what it does not know, and no limit at all from its older versions. Google and Amazon
tell nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from firsttoken.telemetry.record import Quota


class TokenQuota(Quota, frozen=True):
    """A quota of tokens; where those of the answer have a limit of their own, ``output`` is that one."""

    output: Quota | None = None


Names = tuple[str, str, str]
"""Of the headers that tell the limit, what remains, and when all of it is there again."""


def _openai(what: str) -> Names:
    return f"x-ratelimit-limit-{what}", f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}"


def _anthropic(what: str) -> Names:
    name = f"anthropic-ratelimit-{what}"
    return f"{name}-limit", f"{name}-remaining", f"{name}-reset"


_FAMILIES: tuple[tuple[Names, Names], ...] = (
    (_openai("requests"), _openai("tokens")),
    (_anthropic("requests"), _anthropic("tokens")),
    (_openai("requests-day"), _openai("tokens-minute")),
)
"""Of each family the headers about requests, and those about tokens."""
_INPUT, _OUTPUT = _anthropic("input-tokens"), _anthropic("output-tokens")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|µs|ns|d|h|m|s)")
_UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DAY = 86_400.0
_MAX_DIGITS = 15


def read_quotas(headers: Mapping[str, str], now: float | None = None) -> tuple[Quota | None, Quota | None]:
    """Return what is left of the requests and of the tokens, None for what is not told.

    Names of headers are lower-case; ``now`` is Unix time (of this moment unless given). A quota whose limit
    is not told has the limit 0. What is not understood counts as not told. Costs less than 1 us where there
    is no such header.
    """
    for requests, tokens in _FAMILIES:
        if requests[1] in headers or tokens[1] in headers:
            break
    else:
        if _INPUT[1] not in headers:
            return None, None
        requests, tokens = _FAMILIES[1]
    at = time.time() if now is None else now
    return _quota(headers, requests, at), _token_quota(headers, tokens, at)


def _token_quota(headers: Mapping[str, str], names: Names, now: float) -> Quota | None:
    """Return the quota of tokens: of the prompt's, where the answer's are counted apart."""
    prompt, answer = _quota(headers, _INPUT, now), _quota(headers, _OUTPUT, now)
    if prompt is None:
        return _quota(headers, names, now)
    return TokenQuota(prompt.limit, prompt.remaining, prompt.reset, answer)


def _quota(headers: Mapping[str, str], names: Names, now: float) -> Quota | None:
    limit, remaining, reset = [headers.get(name, "") for name in names]
    left = _count(remaining)
    return None if left is None else Quota(_count(limit) or 0, left, _seconds(reset, now))


def _count(value: str) -> int | None:
    return int(value) if value.isdecimal() and value.isascii() and len(value) <= _MAX_DIGITS else None


def _seconds(value: str, now: float) -> float:
    """Return the seconds until a reset, at most a day: a duration, a number, or a date and time."""
    if parts := _DURATION.findall(value):
        return min(_DAY, sum(float(number) * _UNITS[unit] for number, unit in parts))
    try:
        said = _time(value) - now if "T" in value else float(value or 0)
    except (ValueError, OverflowError):
        return 0.0
    return min(_DAY, said) if said > 0 else 0.0  # and so is NaN


def _time(value: str) -> float:
    from datetime import datetime  # slow to import, and only Anthropic needs it

    return datetime.fromisoformat(value).timestamp()
