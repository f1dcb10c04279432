"""How each provider counts a call against its limit of tokens."""

from __future__ import annotations

import pytest

from firsttoken.model import Usage
from firsttoken.policies.charging import charging_of

USED = Usage(input=1000, output=200, cached=600)


@pytest.mark.parametrize(
    ("kind", "model", "named", "unnamed", "used"),
    [
        ("", "m", (1800, 0), (1300, 0), (1200, 0)),
        ("openai", "m", (1000, 0), (1000, 0), (1000, 0)),
        ("azure", "m", (1800, 0), (1300, 0), (1200, 0)),
        ("simulated", "m", (1800, 0), (1300, 0), (1200, 0)),
        ("anthropic", "m", (1000, 300), (1000, 300), (400, 200)),
        ("gemini", "m", (1000, 0), (1000, 0), (1000, 0)),
        ("vertex", "gemini-3-pro", (1000, 0), (1000, 0), (1000, 0)),
        ("vertex", "claude-sonnet-5", (1000, 300), (1000, 300), (400, 200)),
        ("bedrock", "amazon.nova-pro-v1:0", (1800, 0), (1300, 0), (600, 0)),
        ("bedrock", "eu.anthropic.claude-sonnet-4-5-v1:0", (2500, 0), (2500, 0), (1400, 0)),
        ("bedrock", "anthropic.claude-opus-4-8", (5500, 0), (5500, 0), (3400, 0)),
        ("bedrock", "us.anthropic.claude-sonnet-5-v1:0", (4000, 0), (4000, 0), (2400, 0)),
    ],
)
def test_each_provider_has_its_arithmetic(
    kind: str, model: str, named: tuple, unnamed: tuple, used: tuple
) -> None:
    """What is set aside with and without a limit of 800, and what counts in the end."""
    charging = charging_of(kind, model)
    assert charging.set_aside(1000, 800, 300.0) == named
    assert charging.set_aside(1000, 0, 300.0) == unnamed
    assert charging.used(USED) == used


def test_the_larger_part_counts() -> None:
    """OpenAI counts whichever is larger, the prompt or the answer's limit."""
    assert charging_of("openai", "m").set_aside(100, 800, 300.0) == (800, 0)


def test_an_answer_never_exceeds_its_limit() -> None:
    """A short limit counts where the average is longer."""
    assert charging_of("anthropic", "m").set_aside(10, 50, 300.0) == (10, 50)


def test_the_burndown_can_be_configured() -> None:
    """A rate that the operator knows better replaces the table's."""
    assert charging_of("bedrock", "anthropic.claude-opus-5", 2.0).used(USED) == (800, 0)
    assert charging_of("other", "m", 3.0).used(USED) == (1600, 0)


@pytest.mark.parametrize(("kind", "settles"), [("openai", False), ("azure", False), ("bedrock", True)])
def test_who_settles(kind: str, settles: bool) -> None:
    """OpenAI and Azure keep what was set aside, the others count what was used."""
    assert charging_of(kind, "m").settles is settles
