"""The headers of simulated providers, each in its own words."""

from __future__ import annotations

import pytest

from firsttoken.simulator import headers
from firsttoken.simulator.limits import Quota

QUOTAS = {"requests": Quota(10, 9, 6.0), "tokens": Quota(100, 20, 90.0)}


@pytest.mark.parametrize("wire", ["openai-chat", "openai-responses"])
def test_openai_tells_its_limits(wire: str) -> None:
    """Limit, what is left, and a duration until it is whole again."""
    assert dict(headers.rate_limits(wire, QUOTAS, 0.0)) == {
        b"x-ratelimit-limit-requests": b"10",
        b"x-ratelimit-remaining-requests": b"9",
        b"x-ratelimit-reset-requests": b"6s",
        b"x-ratelimit-limit-tokens": b"100",
        b"x-ratelimit-remaining-tokens": b"20",
        b"x-ratelimit-reset-tokens": b"1m30s",
    }
    assert headers.retry_after_ms(wire, 1.5) == [(b"retry-after-ms", b"1500")]
    assert headers.retry_after_ms(wire, None) == []


def test_anthropic_tells_its_limits() -> None:
    """The reset is a time of day."""
    told = dict(headers.rate_limits("anthropic", QUOTAS, 1_700_000_000.0))
    assert told[b"anthropic-ratelimit-requests-limit"] == b"10"
    assert told[b"anthropic-ratelimit-tokens-remaining"] == b"20"
    assert told[b"anthropic-ratelimit-tokens-reset"] == b"2023-11-14T22:14:50Z"
    assert headers.retry_after_ms("anthropic", 1.5) == []


@pytest.mark.parametrize("wire", ["gemini", "bedrock-converse"])
def test_others_tell_nothing(wire: str) -> None:
    """Google and Amazon send no limits."""
    assert headers.rate_limits(wire, QUOTAS, 0.0) == []


@pytest.mark.parametrize(
    ("wire", "name"),
    [("anthropic", b"request-id"), ("bedrock-converse", b"x-amzn-requestid"), ("openai-chat", None)],
)
def test_the_request_id_has_a_name_of_its_own(wire: str, name: bytes | None) -> None:
    """Clients find it where their provider puts it."""
    assert headers.request_id(wire, "req_1") == ([(name, b"req_1")] if name else [])


@pytest.mark.parametrize(("seconds", "said"), [(0.0, "0ms"), (0.02, "20ms"), (1.5, "1.5s"), (360, "6m0s")])
def test_durations(seconds: float, said: str) -> None:
    """As OpenAI writes them."""
    assert headers._duration(seconds) == said
