"""Embeddings of the Gemini API, through the whole endpoint, against a scripted server."""

from __future__ import annotations

from math import isclose
from typing import Any

import pytest

from firsttoken.settings import GeminiProvider
from tests.providers.embed_server import Reply, embed, vectors


def provider(url: str) -> GeminiProvider:
    return GeminiProvider(base_url=f"{url}/v1beta", api_key="ours")


def values(text: str) -> dict[str, Any]:
    return {"values": [3.0, 4.0 * float(text.rpartition(" ")[2])]}


def gemini(path: str, body: Any) -> Reply:
    """Answer as the API does: the number at the end of a text becomes part of its vector."""
    if path.endswith(":batchEmbedContents"):
        texts = [request["content"]["parts"][0]["text"] for request in body["requests"]]
        return 200, {}, {"embeddings": [values(text) for text in texts]}
    (part,) = body["content"]["parts"]
    return 200, {}, {"embedding": values(part["text"]), "usageMetadata": {"promptTokenCount": 2}}


def test_batches() -> None:
    """An older model gets 100 texts a call, and the vectors come back in order and of length 1."""
    texts = [f"text {number}" for number in range(250)]
    body = {"model": "m", "input": texts, "dimensions": 2, "input_type": "query"}
    answer, upstream = embed(gemini, body, provider, target="up/gemini-embedding-001")
    assert sorted(len(request.body["requests"]) for request in upstream.requests) == [50, 100, 100]
    for number, vector in enumerate(vectors(answer)):
        assert isclose(sum(value * value for value in vector), 1, rel_tol=1e-6)
        assert isclose(vector[1] / vector[0], 4 / 3 * number, rel_tol=1e-5)
    first = upstream.requests[0]
    assert first.path == "/v1beta/models/gemini-embedding-001:batchEmbedContents"
    assert first.headers["x-goog-api-key"] == "ours"
    assert first.body["requests"][0] == {
        "model": "models/gemini-embedding-001",
        "content": {"parts": [{"text": first.body["requests"][0]["content"]["parts"][0]["text"]}]},
        "taskType": "RETRIEVAL_QUERY",
        "outputDimensionality": 2,
    }
    assert answer.json()["usage"]["estimated"] is True
    assert answer.json()["model"] == "gemini-embedding-001"


@pytest.mark.parametrize(
    ("purpose", "prefix"),
    [(None, ""), ("query", "task: search result | query: "), ("passage", "title: none | text: ")],
)
def test_one_call_a_text(purpose: str | None, prefix: str) -> None:
    """gemini-embedding-2 makes one vector of a call, and reads the purpose of a text in the text."""
    body = {"model": "m", "input": ["a 1", "a 2", "a 3"], "dimensions": 8, "input_type": purpose}
    answer, upstream = embed(gemini, body, provider, target="up/gemini-embedding-2", together=3)
    assert upstream.peak == 3
    assert {request.path for request in upstream.requests} == {
        "/v1beta/models/gemini-embedding-2:embedContent"
    }
    assert [vector[1] / vector[0] for vector in vectors(answer)] == pytest.approx([4 / 3, 8 / 3, 4])
    assert {request.body["outputDimensionality"] for request in upstream.requests} == {8}
    texts = {request.body["content"]["parts"][0]["text"] for request in upstream.requests}
    assert texts == {f"{prefix}a 1", f"{prefix}a 2", f"{prefix}a 3"}
    assert answer.json()["usage"] == {"prompt_tokens": 6, "total_tokens": 6}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [1, 2]}, "input"),
        ({"input": "x", "user": "u"}, "user"),
        ({"input": "x", "dimensions": 4000}, "dimensions"),
        ({"input": "x", "input_type": "clustering"}, "input_type"),
    ],
)
def test_what_it_cannot_do(fields: dict[str, Any], param: str) -> None:
    """What the API has no word for is refused by name before anything is sent."""
    answer, upstream = embed(gemini, {"model": "m", **fields}, provider, target="up/gemini-embedding-001")
    assert (answer.status, answer.json()["error"]["param"]) == (400, param)
    assert answer.json()["error"]["code"] == "unsupported_field"
    assert not upstream.requests


def test_a_refusal_names_the_text() -> None:
    """When one of many calls is refused, the one error says which text it was."""

    def script(path: str, body: Any) -> Reply:
        if body["content"]["parts"][0]["text"] == "2":
            return 400, {}, {"error": {"code": 400, "message": "too long", "status": "INVALID_ARGUMENT"}}
        return gemini(path, body)

    body = {"model": "m", "input": [str(number) for number in range(20)]}
    answer, _ = embed(script, body, provider, target="up/gemini-embedding-2")
    assert (answer.status, answer.json()["error"]["param"]) == (400, "input")
    assert "input[2]: too long" in answer.json()["error"]["message"]


def test_a_wrong_number_of_vectors() -> None:
    """A target that leaves a vector out is at fault: no text ever gets another one's."""
    body = {"model": "m", "input": ["1", "2"]}
    script = lambda *_: (200, {}, {"embeddings": [{"values": [1.0]}]})  # noqa: E731
    answer, _ = embed(script, body, provider, target="up/gemini-embedding-001")
    assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_protocol")
