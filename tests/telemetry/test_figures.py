"""What is counted of a call, under which names, and what it cost."""

from __future__ import annotations

from typing import Any

import pytest
from telemetry.records import attempt, figures, labels, record

from firsttoken.telemetry.figures import NONE, OTHER, Labels, cost_of


def test_a_streamed_call() -> None:
    """It has a time to first token, to the last, and between two tokens."""
    found = figures(record())
    assert (found.model, found.target, found.outcome) == ("fast", "openai/gpt-4o-mini", "ok")
    assert found.ttft == pytest.approx(0.2)
    assert found.ttlt == pytest.approx(1.2)
    assert found.per_token == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"disconnected": True}, "left"),
        ({"error": "invalid", "status": 400}, "client_error"),
        ({"error": "rate_limited", "status": 429}, "client_error"),
        ({"error": "upstream_timeout", "status": 504}, "error"),
        ({"error": "upstream_closed", "status": 200}, "error"),
        ({"job": "job_1", "status": 202}, "deferred"),
        ({}, "ok"),
    ],
)
def test_outcomes(fields: dict[str, Any], outcome: str) -> None:
    """A stream that breaks off is an error, whatever its status; only whole answers have a last token."""
    found = figures(record(**fields))
    assert found.outcome == outcome
    assert (found.ttlt is None) == (outcome != "ok")


def test_a_whole_answer_has_no_first_token() -> None:
    """What is not streamed begins and ends at once: it would make streams look slow."""
    found = figures(record(stream=False))
    assert (found.ttft, found.per_token) == (None, None)
    assert found.ttlt is not None


def test_a_kept_answer_has_no_pace() -> None:
    """Tokens of a cache come at no pace of a model."""
    assert figures(record(cache="hit")).per_token is None
    assert figures(record(cache="hit")).hit


@pytest.mark.parametrize(
    ("models", "asked", "counted"),
    [
        (("fast",), "fast", "fast"),
        (("fast",), "anything", OTHER),
        (("fast", "*"), "anything", "*"),
        (("fast", "*"), "", NONE),
    ],
)
def test_models_are_those_of_the_configuration(models: Any, asked: str, counted: str) -> None:
    """A client cannot add a metric by asking for a model."""
    assert Labels(models, 10).model(asked) == counted


def test_names_are_bounded() -> None:
    """Beyond the limit, and for names that are none, there is one name."""
    own = labels(series=3)
    assert [own.target(f"p/{n}") for n in range(5)] == ["p/0", "p/1", "p/2", OTHER, OTHER]
    assert own.target("p/1") == "p/1"
    assert labels().target("x" * 1000) == OTHER
    assert labels().target("") == NONE


def price(target: str, model: str, prompt: int, answer: int, cached: int) -> float | None:
    return None if target == "p/unknown" else prompt + 10 * answer - cached


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({}, 1000 + 1010),
        ({"attempts": [attempt(cached_tokens=400)]}, 1000 + 1010 - 400),
        ({"attempts": [attempt(input_tokens=0, output_tokens=0), attempt()]}, 2010),
        ({"attempts": [attempt(), attempt(kind="hedge")]}, 4020),
        ({"attempts": [attempt(), attempt(target="p/unknown")]}, None),
        ({"attempts": []}, None),
        ({"attempts": [], "cache": "hit"}, 0),
        ({"coalesced": True}, 0),
        ({"replayed": True}, 0),
    ],
)
def test_cost(fields: dict[str, Any], cost: float | None) -> None:
    """All attempts are paid for, once; a cost of which a part is not known is not known."""
    assert cost_of(record(**fields), price) == cost
