"""``POST /v1/messages/count_tokens``: counted where that is possible, estimated elsewhere."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support import Answer, ask, make_app

from firsttoken.policies.estimate import PER_IMAGE, estimate
from firsttoken.settings import OpenAIProvider, Route, Server
from firsttoken.wire.anthropic import read_count

PATH = "/v1/messages/count_tokens"


def count(body: Any, **sections: Any) -> Answer:
    return asyncio.run(ask(make_app(**sections), body, path=PATH))


def asked(content: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **fields}


def test_the_simulated_model_counts_what_it_bills() -> None:
    """The number is the one that the usage of the answer has."""
    body = asked("How many tokens are these?", system="Be brief.")
    answer = count(body)
    used = asyncio.run(ask(make_app(), {**body, "max_tokens": 5}, path="/v1/messages")).json()["usage"]
    assert answer.json() == {"input_tokens": used["input_tokens"]}
    assert "x-firsttoken-estimate" not in answer.headers


def test_other_targets_are_estimated() -> None:
    """A target that cannot count is not asked, and the answer says that it is an estimate."""
    answer = count(
        asked("x" * 40),
        providers={"up": OpenAIProvider(base_url="http://127.0.0.1:9")},
        models={"*": Route(target="up/*")},
    )
    assert (answer.json(), answer.headers["x-firsttoken-estimate"]) == ({"input_tokens": 14}, "true")


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (asked("x"), 5),
        (asked("é" * 4), 6),
        (asked("x" * 40, system="y" * 40), 28),
        (asked([{"type": "image", "source": {"type": "url", "url": "http://x"}}]), PER_IMAGE + 4),
        (asked([{"type": "thinking", "thinking": "x" * 8, "signature": "s"}]), 6),
        (asked([{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]), 7),
        (
            asked(
                [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t",
                        "content": [
                            {"type": "text", "text": "x" * 8},
                            {"type": "image", "source": {"type": "url", "url": "http://x"}},
                        ],
                    }
                ]
            ),
            PER_IMAGE + 6,
        ),
    ],
)
def test_the_estimate(body: dict[str, Any], tokens: int) -> None:
    """Four bytes are a token; messages and pictures cost a constant."""
    assert estimate(read_count(json.dumps(body).encode())[0]) == tokens


def test_tools_count() -> None:
    """A tool costs what its description takes."""
    tool = {"name": "f", "description": "d" * 400, "input_schema": {"type": "object"}}
    with_tool, without = (
        estimate(read_count(json.dumps(asked("x", tools=tools)).encode())[0]) for tools in ([tool], [])
    )
    assert with_tool - without > 100


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 400, "invalid_request_error"),
        ({"model": "m"}, 400, "invalid_request_error"),
        (asked([[[[[[[["deep"]]]]]]]]), 400, "invalid_request_error"),
        (
            {**asked("x"), "tools": [{"name": "f", "input_schema": {"a": {"b": {"c": {"d": {"e": {}}}}}}}]},
            400,
            "invalid_request_error",
        ),
        ({**asked("x"), "model": "unknown"}, 404, "not_found_error"),
        (asked("x" * 3000), 413, "request_too_large"),
    ],
)
def test_bad_requests(body: Any, status: int, kind: str) -> None:
    """Errors have the shape of this format."""
    answer = count(body, server=Server(log=False, max_body_bytes=2048, max_json_depth=6))
    assert (answer.status, answer.json()["type"], answer.json()["error"]["type"]) == (status, "error", kind)
