"""Embeddings of Amazon Bedrock, through ``InvokeModel``: Titan, Cohere and Nova, each in its own words.

Sources: the Bedrock and Nova user guides, "Amazon Titan Embeddings Text", "Cohere Embed v3", "Cohere Embed
v4", "Complete embeddings request and response schema". Cohere's answers count no tokens; Bedrock does, in a
header.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from firsttoken.embedding import EmbedRequest, pack
from firsttoken.errors import ConfigError, NotFoundError, UpstreamProtocolError
from firsttoken.providers.bedrock import authorizer, base_url
from firsttoken.providers.embed import Batched, Poster, no_choice
from firsttoken.providers.upstream import Connection
from firsttoken.settings import BedrockProvider
from firsttoken.wire.bedrock.errors import error_from

COUNT = "x-amzn-bedrock-input-token-count"
COHERE_BATCH = 96
COHERE_TYPES = {"": "search_document", "query": "search_query", "document": "search_document"}
"""Cohere always asks what a text is for; what is not said is a document."""
NOVA_PURPOSES = {"": "GENERIC_INDEX", "query": "TEXT_RETRIEVAL", "document": "GENERIC_INDEX"}
"""Only texts come this way, so a query looks for texts among texts."""


class _Nova(Struct, frozen=True):
    embedding: list[float]


class _Answer(Struct, frozen=True, rename="camel"):
    """What any of the three answers; ``embeddings`` is a list of vectors, of objects, or lists by type."""

    embedding: list[float] | None = None
    embeddings: Any = None
    input_text_token_count: int | None = None
    input_token_count: int | None = None


_answer = msgspec.json.Decoder(_Answer)
Body = dict[str, Any]
Write = Callable[[Sequence[str], EmbedRequest, str], Body]


class Family:
    """Models that are asked in one way; ``size`` texts a call."""

    def __init__(self, url: Callable[[str], str], write: Write, size: int) -> None:
        self.size = size
        self.url = url
        self._write = write

    def write(self, texts: Sequence[str], request: EmbedRequest, model: str) -> bytes:
        """Return the body of a call. Raises UnsupportedFieldError."""
        body = self._write(texts, request, model)
        return msgspec.json.encode({name: value for name, value in body.items() if value is not None})

    def read(self, body: bytes, headers: dict[str, str]) -> tuple[list[bytes], int | None]:
        """Return the vectors of an answer and the tokens counted."""
        try:
            answer = _answer.decode(body)
            vectors = [pack(values) for values in _vectors(answer)]
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise UpstreamProtocolError(f"The target's answer holds no embeddings: {error}") from error
        tokens = headers.get(COUNT, "")
        if tokens.isascii() and tokens.isdigit():
            return vectors, int(tokens[:12])
        counted = answer.input_text_token_count
        return vectors, answer.input_token_count if counted is None else counted


def _vectors(answer: _Answer) -> list[list[float]]:
    if answer.embedding is not None:
        return [answer.embedding]
    found = answer.embeddings
    if isinstance(found, dict):
        found = found.get("float")
    if isinstance(found, list) and found and isinstance(found[0], dict):
        return [item.embedding for item in msgspec.convert(found, list[_Nova])]
    return msgspec.convert(found, list[list[float]])


def _titan_v1(texts: Sequence[str], request: EmbedRequest, model: str) -> Body:
    no_choice(request, model, (1536,))
    return {"inputText": texts[0]}


def _titan_v2(texts: Sequence[str], request: EmbedRequest, model: str) -> Body:
    no_choice(request, model, (256, 512, 1024))
    return {"inputText": texts[0], "dimensions": request.dimensions, "normalize": True}


def _cohere_v3(texts: Sequence[str], request: EmbedRequest, model: str) -> Body:
    no_choice(request, model, (1024,))
    return {
        "texts": texts,
        "input_type": COHERE_TYPES[request.input_type],
        "embedding_types": ["float"],
    }


def _cohere_v4(texts: Sequence[str], request: EmbedRequest, model: str) -> Body:
    no_choice(request, model, (256, 512, 1024, 1536))
    return {
        "texts": texts,
        "input_type": COHERE_TYPES[request.input_type],
        "embedding_types": ["float"],
        "output_dimension": request.dimensions,
    }


def _nova(texts: Sequence[str], request: EmbedRequest, model: str) -> Body:
    no_choice(request, model, (256, 384, 1024, 3072))
    return {
        "taskType": "SINGLE_EMBEDDING",
        "singleEmbeddingParams": {
            "embeddingPurpose": NOVA_PURPOSES[request.input_type],
            "embeddingDimension": request.dimensions or 3072,
            "text": {"truncationMode": "NONE", "value": texts[0]},
        },
    }


FAMILIES: tuple[tuple[str, Write, int], ...] = (
    ("amazon.titan-embed-text-v1", _titan_v1, 1),
    ("amazon.titan-embed-text-v2", _titan_v2, 1),
    ("cohere.embed-english-v3", _cohere_v3, COHERE_BATCH),
    ("cohere.embed-multilingual-v3", _cohere_v3, COHERE_BATCH),
    ("cohere.embed-v4", _cohere_v4, COHERE_BATCH),
    ("amazon.nova-2-multimodal-embeddings", _nova, 1),
)
"""What a model's id, inference profile or ARN contains, how it is asked, and for how many texts at once."""


def embedder(name: str, settings: BedrockProvider, model: str, connection: Connection) -> Batched:
    """Return an embedder of Bedrock. Raises ConfigError for a model that is not of a known family."""
    base = base_url(settings)

    def url(model: str) -> str:
        return f"{base}/model/{quote(model, safe='')}/invoke"

    families = {known: Family(url, write, size) for known, write, size in FAMILIES}

    def family(model: str) -> Family:
        found = next((known for known in families if known in model), None)
        if found is None:
            message = f"The model {model!r} is not known to embed; expected one of {', '.join(families)}."
            raise NotFoundError(message, param="model", code="model_not_found")
        return families[found]

    if model != "*":
        try:
            family(model)
        except NotFoundError as error:
            raise ConfigError(f"embeddings: target {name}/{model}: {error}") from error
    return Batched(model, family, Poster(connection, authorizer(name, settings), error_from))
