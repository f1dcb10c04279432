"""Embeddings of Bedrock, through the whole endpoint, against a scripted server."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest

from firsttoken.errors import ConfigError
from firsttoken.providers.embed_bedrock import embedder
from firsttoken.settings import BedrockProvider
from tests.providers.embed_server import Reply, embed, vectors

COUNT = "X-Amzn-Bedrock-Input-Token-Count"
TITAN = "amazon.titan-embed-text-v2:0"
NOVA = "amazon.nova-2-multimodal-embeddings-v1:0"


def provider(url: str) -> BedrockProvider:
    return BedrockProvider(region="eu-west-1", base_url=url, api_key="ours")


def bedrock(path: str, body: Any) -> Reply:
    """Answer as each family does: the number that a text is becomes its vector."""
    if "titan" in path:
        vector = [float(body["inputText"]), 1.0]
        said = {"embedding": vector, "inputTextTokenCount": 5, "embeddingsByType": {"float": vector}}
        return 200, {}, said
    if "nova" in path:
        value = float(body["singleEmbeddingParams"]["text"]["value"])
        return 200, {COUNT: "7"}, {"embeddings": [{"embeddingType": "TEXT", "embedding": [value, 1.0]}]}
    found = [[float(text), 1.0] for text in body["texts"]]
    if "v4" in path:
        said = {"id": "i", "embeddings": {"float": found}, "response_type": "embeddings_by_type"}
        return 200, {COUNT: "3"}, said
    return 200, {COUNT: "3"}, {"embeddings": found, "response_type": "embeddings_floats"}


def ask(model: str, **fields: Any) -> Any:
    return embed(bedrock, {"model": "m", **fields}, provider, target=f"up/{model}")


@pytest.mark.parametrize(
    ("model", "fields", "sent"),
    [
        (TITAN, {"dimensions": 256}, {"inputText": "1", "dimensions": 256, "normalize": True}),
        (TITAN, {"input_type": "query"}, {"inputText": "1", "normalize": True}),
        ("amazon.titan-embed-text-v1", {}, {"inputText": "1"}),
        (
            "cohere.embed-multilingual-v3",
            {},
            {"texts": ["1"], "input_type": "search_document", "embedding_types": ["float"]},
        ),
        (
            "us.cohere.embed-v4:0",
            {"dimensions": 512, "input_type": "query"},
            {
                "texts": ["1"],
                "input_type": "search_query",
                "embedding_types": ["float"],
                "output_dimension": 512,
            },
        ),
        (
            NOVA,
            {"dimensions": 384, "input_type": "query"},
            {
                "taskType": "SINGLE_EMBEDDING",
                "singleEmbeddingParams": {
                    "embeddingPurpose": "TEXT_RETRIEVAL",
                    "embeddingDimension": 384,
                    "text": {"truncationMode": "NONE", "value": "1"},
                },
            },
        ),
    ],
)
def test_each_family_in_its_words(model: str, fields: dict[str, Any], sent: Any) -> None:
    """Dimensions and purpose are said as the family says them, at the address of InvokeModel."""
    answer, upstream = ask(model, input="1", **fields)
    (request,) = upstream.requests
    assert request.body == sent
    assert unquote(request.path) == f"/model/{model}/invoke"
    assert "%3A" in request.path or ":" not in model
    assert request.headers["authorization"] == "Bearer ours"
    assert vectors(answer) == [[1, 1]]
    assert answer.json()["model"] == model


@pytest.mark.parametrize(
    ("model", "sizes", "tokens"),
    [
        (TITAN, [1] * 100, 500),
        (NOVA, [1] * 100, 700),
        ("cohere.embed-english-v3", [4, 96], 6),
        ("arn:aws:bedrock:eu-west-1:1:inference-profile/eu.cohere.embed-v4:0", [4, 96], 6),
    ],
)
def test_many_texts(model: str, sizes: list[int], tokens: int) -> None:
    """Each family gets as many texts a call as it takes; vectors keep their order and counts add up."""
    answer, upstream = ask(model, input=[str(number) for number in range(100)])
    assert sorted(len(request.body.get("texts", "1")) for request in upstream.requests) == sizes
    assert vectors(answer) == [[number, 1] for number in range(100)]
    assert answer.json()["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_calls_at_once() -> None:
    """Eight calls run at once, not more."""
    body = {"model": "m", "input": [str(number) for number in range(40)]}
    _, upstream = embed(bedrock, body, provider, target=f"up/{TITAN}", together=8)
    assert upstream.peak == 8


@pytest.mark.parametrize(
    ("model", "dimensions"),
    [(TITAN, 300), ("cohere.embed-english-v3", 512), ("cohere.embed-v4:0", 300), (NOVA, 512)],
)
def test_dimensions_that_it_has_not(model: str, dimensions: int) -> None:
    """A number of dimensions that the family has not is refused with those that it has."""
    answer, upstream = ask(model, input="1", dimensions=dimensions)
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "unsupported_field", "dimensions")
    assert "1024" in error["message"]
    assert not upstream.requests


def test_a_model_that_only_the_client_names() -> None:
    """Behind ``*`` a model of no known family is the client's mistake."""
    answer, _ = ask("*", input="1")
    assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_a_configured_model_of_no_known_family() -> None:
    """A route to a model that cannot be asked stops the start."""
    connection: Any = None
    with pytest.raises(ConfigError, match="not known to embed"):
        embedder("up", provider("http://x"), "anthropic.claude", connection)


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        ((429, {"x-amzn-errortype": "ThrottlingException"}, {"message": "slow down"}), 429, None),
        ((400, {"x-amzn-errortype": "ValidationException"}, {"message": "too long"}), 400, None),
        ((200, {}, b"{}"), 502, "upstream_protocol"),
        ((200, {}, {"embedding": [1e300]}), 502, "upstream_protocol"),
        ((200, {}, {"embeddings": {"int8": [[1]]}}), 502, "upstream_protocol"),
    ],
)
def test_failures(reply: Reply, status: int, code: str | None) -> None:
    """Errors are those of the provider's codec; what is no embedding is an error of the target."""
    body = {"model": "m", "input": ["1", "2"]}
    answer, _ = embed(lambda *_: reply, body, provider, target=f"up/{TITAN}")
    assert answer.status == status
    if code:
        assert answer.json()["error"]["code"] == code
    if status == 400:
        assert answer.json()["error"]["message"].startswith("input[")
