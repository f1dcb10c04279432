"""Records of calls as the gateway leaves them."""

from __future__ import annotations

from typing import Any

from firsttoken.settings import OpenAIProvider, Route, Settings, SimulatedProvider
from firsttoken.telemetry.figures import Figures, Labels
from firsttoken.telemetry.record import Attempt, Record

MODELS = ("fast", "slow")


def record(**fields: Any) -> Record:
    """Return the record of a streamed call: first token after 200 ms, last after 1.2 s, 101 tokens."""
    given = {
        "id": "req_1",
        "tenant": "acme",
        "model": "fast",
        "target": "openai/gpt-4o-mini",
        "stream": True,
        "status": 200,
        "started": 100.0,
        "first_chunk": 100.2,
        "finished": 101.2,
        "input_tokens": 1000,
        "output_tokens": 101,
        "attempts": [attempt()],
    }
    return Record(**{**given, **fields})


def attempt(**fields: Any) -> Attempt:
    """Return the attempt behind `record`."""
    given = {
        "target": "openai/gpt-4o-mini",
        "started": 100.01,
        "first_chunk": 100.19,
        "finished": 101.2,
        "outcome": "ok",
        "input_tokens": 1000,
        "output_tokens": 101,
    }
    return Attempt(**{**given, **fields})


def labels(series: int = 200) -> Labels:
    return Labels(MODELS, series)


def figures(given: Record) -> Figures:
    return labels().figures(given)


def settings(**sections: Any) -> Settings:
    """Return settings with the models of `MODELS` behind OpenAI and a simulated target."""
    given = {
        "providers": {
            "openai": OpenAIProvider(base_url="http://127.0.0.1:9/v1"),
            "simulated": SimulatedProvider(),
        },
        "models": {
            "fast": Route(targets=["openai/gpt-4o-mini", "simulated/m"]),
            "slow": Route(target="openai/*"),
        },
    }
    return Settings(**{**given, **sections})
