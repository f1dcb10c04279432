"""Embeddings of the Gemini API.

Sources: ai.google.dev/api/embeddings, ai.google.dev/gemini-api/docs/embeddings, and what google-genai 3.4
sends. Several texts in one ``embedContent`` are parts of one content and give one vector, so
``gemini-embedding-2`` gets a call for each; older models take up to 100 in ``batchEmbedContents``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from firsttoken.config import key_of
from firsttoken.embedding import EmbedRequest, normalised, pack
from firsttoken.errors import UnsupportedFieldError, UpstreamProtocolError
from firsttoken.providers.embed import Batched, Poster
from firsttoken.providers.upstream import Connection, bearer
from firsttoken.settings import GeminiProvider
from firsttoken.wire.gemini.errors import error_from

MAX_DIMENSIONS = 3072
BATCH = 100
TASKS = {"query": "RETRIEVAL_QUERY", "document": "RETRIEVAL_DOCUMENT"}
PREFIXES = {"query": "task: search result | query: ", "document": "title: none | text: "}
"""How gemini-embedding-2 is told what a text is for: it reads no task type."""


class _Values(Struct, frozen=True):
    values: list[float]


class _Usage(Struct, frozen=True, rename="camel"):
    prompt_token_count: int | None = None


class _Answer(Struct, frozen=True, rename="camel"):
    embedding: _Values | None = None
    embeddings: list[_Values] = []
    usage_metadata: _Usage | None = None


_answer = msgspec.json.Decoder(_Answer)


class Batch:
    """Models that take many texts a call and a task type: gemini-embedding-001 and older."""

    size = BATCH

    def __init__(self, url: Callable[[str, str], str]) -> None:
        self._url = url

    def url(self, model: str) -> str:
        """Return where the model is called."""
        return self._url(model, "batchEmbedContents")

    def write(self, texts: Sequence[str], request: EmbedRequest, model: str) -> bytes:
        """Return the body of a call."""
        fixed = {
            "model": f"models/{model}",
            "taskType": TASKS.get(request.input_type),
            "outputDimensionality": at_most(request.dimensions, model),
        }
        wanted = {name: value for name, value in fixed.items() if value is not None}
        return msgspec.json.encode({"requests": [{**wanted, "content": content(text)} for text in texts]})

    def read(self, body: bytes, _headers: dict[str, str]) -> tuple[list[bytes], int | None]:
        """Return vectors of length 1 and the tokens counted."""
        return read(body)


class Single:
    """Models that turn all texts of a call into one vector: gemini-embedding-2."""

    size = 1

    def __init__(self, url: Callable[[str, str], str]) -> None:
        self._url = url

    def url(self, model: str) -> str:
        """Return where the model is called."""
        return self._url(model, "embedContent")

    def write(self, texts: Sequence[str], request: EmbedRequest, model: str) -> bytes:
        """Return the body of a call."""
        body: dict[str, Any] = {"content": content(PREFIXES.get(request.input_type, "") + texts[0])}
        if (dimensions := at_most(request.dimensions, model)) is not None:
            body["outputDimensionality"] = dimensions
        return msgspec.json.encode(body)

    def read(self, body: bytes, _headers: dict[str, str]) -> tuple[list[bytes], int | None]:
        """Return vectors of length 1 and the tokens counted."""
        return read(body)


def is_multimodal(model: str) -> bool:
    """Return whether all texts of a call become one vector."""
    name = model.rpartition("/")[2]
    return name.startswith("gemini-") and not name.startswith(
        ("gemini-embedding-001", "gemini-embedding-exp")
    )


def content(text: str) -> dict[str, Any]:
    """Return a content of one text."""
    return {"parts": [{"text": text}]}


def at_most(dimensions: int | None, model: str) -> int | None:
    """Return ``dimensions`` if a model can have so many. Raises UnsupportedFieldError."""
    if dimensions is not None and dimensions > MAX_DIMENSIONS:
        message = f"dimensions: {model} has vectors of at most {MAX_DIMENSIONS}; got {dimensions}."
        raise UnsupportedFieldError(message, param="dimensions")
    return dimensions


def read(body: bytes) -> tuple[list[bytes], int | None]:
    """Return the vectors of an answer, scaled to length 1, and the tokens counted.

    gemini-embedding-001 scales only vectors of full length; clients of OpenAI's format rely on it for all.
    """
    try:
        answer = _answer.decode(body)
        found = [answer.embedding] if answer.embedding else answer.embeddings
        vectors = [pack(normalised(item.values)) for item in found]
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise UpstreamProtocolError(f"The target's answer holds no embeddings: {error}") from error
    return vectors, answer.usage_metadata.prompt_token_count if answer.usage_metadata else None


def embedder(name: str, settings: GeminiProvider, model: str, connection: Connection) -> Batched:
    """Return an embedder of the Gemini API. Raises ConfigError when its key cannot be had."""
    key = key_of(settings.api_key, f"providers.{name}.api_key")
    base = settings.base_url.rstrip("/")

    def url(model: str, method: str) -> str:
        return f"{base}/models/{quote(model, safe='')}:{method}"

    single, batch = Single(url), Batch(url)
    poster = Poster(connection, bearer(key, "x-goog-api-key") if key else None, error_from)
    return Batched(model, lambda model: single if is_multimodal(model) else batch, poster)
