"""Embeddings of Vertex AI, through the whole endpoint, against a scripted server."""

from __future__ import annotations

from typing import Any

import pytest

from firsttoken.settings import VertexProvider
from tests.providers.embed_server import Reply, embed, vectors

MODELS = "/v1/projects/p/locations/eu/publishers/google/models"


def provider(url: str) -> VertexProvider:
    return VertexProvider(base_url=url, project="p", location="eu", api_key="token")


def answers(path: str, body: Any) -> Reply:
    """Answer as the service does: the length of a text becomes part of its vector."""
    if path.endswith(":predict"):
        texts = [instance["content"] for instance in body["instances"]]
        said = [{"values": [1.0, len(text)], "statistics": {"token_count": 2.0}} for text in texts]
        return 200, {}, {"predictions": [{"embeddings": item} for item in said]}
    text = body["content"]["parts"][0]["text"]
    return 200, {}, {"embedding": {"values": [1.0, len(text)]}, "usageMetadata": {"promptTokenCount": 3}}


@pytest.mark.parametrize(
    ("model", "text", "config"),
    [
        ("gemini-embedding-001", "bb", {"taskType": "RETRIEVAL_QUERY"}),
        ("gemini-embedding-2", "task: search result | query: bb", {}),
    ],
)
def test_gemini_models(model: str, text: str, config: dict[str, str]) -> None:
    """A text is a call; its purpose is a task type or a prefix, and it is never cut in silence."""
    body = {"model": "m", "input": ["a", "bb", "ccc"], "input_type": "query", "dimensions": 256}
    answer, upstream = embed(answers, body, provider, target=f"up/{model}")
    assert {request.path for request in upstream.requests} == {f"{MODELS}/{model}:embedContent"}
    wanted = {"outputDimensionality": 256, "autoTruncate": False, **config}
    expected = {"content": {"parts": [{"text": text}]}, "embedContentConfig": wanted}
    assert expected in [request.body for request in upstream.requests]
    assert upstream.requests[0].headers["authorization"] == "Bearer token"
    ratios = [vector[1] / vector[0] for vector in vectors(answer)]
    assert [ratio - ratios[0] for ratio in ratios] == pytest.approx([0, 1, 2], rel=1e-4)
    assert answer.json()["usage"] == {"prompt_tokens": 9, "total_tokens": 9}


def test_older_models() -> None:
    """Models that predict take five texts a call."""
    texts = ["x" * size for size in range(1, 13)]
    body = {"model": "m", "input": texts, "input_type": "document", "dimensions": 64}
    answer, upstream = embed(answers, body, provider, target="up/text-embedding-005")
    assert sorted(len(request.body["instances"]) for request in upstream.requests) == [2, 5, 5]
    assert upstream.requests[0].path == f"{MODELS}/text-embedding-005:predict"
    assert upstream.requests[0].body["parameters"] == {"autoTruncate": False, "outputDimensionality": 64}
    assert upstream.requests[0].body["instances"][0]["task_type"] == "RETRIEVAL_DOCUMENT"
    assert [vector[1] / vector[0] for vector in vectors(answer)] == pytest.approx(range(1, 13))
    assert answer.json()["usage"]["prompt_tokens"] == 24


@pytest.mark.parametrize("model", ["gemini-embedding-001", "text-embedding-005"])
def test_broken_answers(model: str) -> None:
    """What is no embedding is an error of the target."""
    answer, _ = embed(
        lambda *_: (200, {}, b"{}"), {"model": "m", "input": "a"}, provider, target=f"up/{model}"
    )
    assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_protocol")
