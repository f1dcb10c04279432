"""Quotas from the headers of every provider that tells them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from firsttoken.simulator import headers as simulated
from firsttoken.simulator.limits import Quota as SimulatedQuota
from firsttoken.telemetry.record import Quota
from firsttoken.wire.rate_limits import TokenQuota, read_quotas

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC).timestamp()


def openai(what: str, limit: str = "100", remaining: str = "40", reset: str = "1s") -> dict[str, str]:
    said = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{word}-{what}": value for word, value in said.items()}


def anthropic(what: str, limit: int, remaining: int, reset: str = "2026-03-01T12:00:30Z") -> dict[str, str]:
    said = {"limit": str(limit), "remaining": str(remaining), "reset": reset}
    return {f"anthropic-ratelimit-{what}-{word}": value for word, value in said.items()}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("20ms", 0.02),
        ("1s", 1.0),
        ("7.66s", 7.66),
        ("1m30s", 90.0),
        ("6m0s", 360.0),
        ("23h18m29.144s", 83_909.144),
        ("55", 55.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("nan", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        ("9999h", 86_400.0),
        ("2026-03-01T12:00:05Z", 5.0),
        ("2026-03-01T13:00:05+01:00", 5.0),
        ("2026-03-01T11:00:00Z", 0.0),
        ("2026-99-99T", 0.0),
    ],
)
def test_resets_are_durations_numbers_or_times(written: str, seconds: float) -> None:
    """A reset is read in each way that providers write it; what makes no sense is no wait."""
    requests, tokens = read_quotas(openai("requests", reset=written), NOW)
    assert tokens is None
    assert requests == Quota(100, 40, pytest.approx(seconds))


def test_openai_tells_requests_and_tokens() -> None:
    """Both quotas of OpenAI's family are read."""
    headers = {**openai("requests", "60", "59", "1s"), **openai("tokens", "150000", "149984", "6m0s")}
    assert read_quotas(headers, NOW) == (Quota(60, 59, 1.0), Quota(150_000, 149_984, 360.0))


def test_azure_s_deviations() -> None:
    """-1 is not known, whole seconds are seconds, and an old version tells only what remains."""
    assert read_quotas(openai("tokens", "-1", "-1", "0")) == (None, None)
    assert read_quotas(openai("tokens", "1000", "0", "55")) == (None, Quota(1000, 0, 55.0))
    old = {"x-ratelimit-remaining-requests": "79", "x-ratelimit-remaining-tokens": "61353"}
    assert read_quotas(old) == (Quota(0, 79, 0.0), Quota(0, 61_353, 0.0))


def test_anthropic_tells_prompt_and_answer_apart() -> None:
    """The limit of the prompt's tokens carries that of the answer's; the one of both counts without them."""
    both = {**anthropic("requests", 50, 49), **anthropic("tokens", 38_000, 30_000)}
    assert read_quotas(both, NOW) == (Quota(50, 49, 30.0), Quota(38_000, 30_000, 30.0))
    apart = {
        **both,
        **anthropic("input-tokens", 30_000, 25_000),
        **anthropic("output-tokens", 8000, 7000),
    }
    assert read_quotas(apart, NOW)[1] == TokenQuota(30_000, 25_000, 30.0, Quota(8000, 7000, 30.0))
    assert read_quotas(anthropic("input-tokens", 9, 8), NOW) == (None, TokenQuota(9, 8, 30.0))


def test_cerebras_names_the_period() -> None:
    """Names that end in their period are understood too."""
    headers = {
        **openai("requests-day", "14400", "14370", "33011"),
        **openai("tokens-minute", "60000", "59000"),
    }
    assert read_quotas(headers) == (Quota(14_400, 14_370, 33_011.0), Quota(60_000, 59_000, 1.0))


@pytest.mark.parametrize("value", ["", "many", "1, 2", "1.5", "²", "9" * 40])
def test_numbers_that_are_none_tell_nothing(value: str) -> None:
    """What is no plain number of a sane length is not told."""
    assert read_quotas(openai("requests", remaining=value)) == (None, None)
    assert read_quotas(openai("requests", limit=value))[0] == Quota(0, 40, 1.0)


def test_most_answers_tell_nothing() -> None:
    """Without such headers nothing is known."""
    assert read_quotas({"content-type": "text/event-stream", "x-request-id": "r"}) == (None, None)


@pytest.mark.parametrize("wire", ["openai-chat", "anthropic"])
def test_the_simulator_is_understood(wire: str) -> None:
    """What our own provider writes is what is read."""
    left = {"requests": SimulatedQuota(60, 12, 48.0), "tokens": SimulatedQuota(1000, 400, 36.0)}
    written = {name.decode(): value.decode() for name, value in simulated.rate_limits(wire, left, NOW)}
    assert read_quotas(written, NOW) == (Quota(60, 12, 48.0), Quota(1000, 400, 36.0))
