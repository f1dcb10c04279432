"""Embeddings of Vertex AI (Agent Platform): ``embedContent`` for Gemini's models, ``predict`` for the older.

Sources: the Vertex AI guide "Text embeddings API", and what google-genai 3.4 sends. A text that is too long
is refused, not cut as it would be by default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from firsttoken.embedding import EmbedRequest, normalised, pack
from firsttoken.errors import UpstreamProtocolError
from firsttoken.providers import vertex
from firsttoken.providers.embed import Batched, Poster
from firsttoken.providers.embed_gemini import PREFIXES, TASKS, at_most, content, is_multimodal, read
from firsttoken.providers.upstream import Connection
from firsttoken.settings import VertexProvider
from firsttoken.wire.gemini.errors import error_from

PREDICT_BATCH = 5
"""Texts a call that every region takes, and whose tokens stay below the 20,000 of a call."""


class _Statistics(Struct, frozen=True):
    token_count: float | None = None


class _Embeddings(Struct, frozen=True):
    values: list[float]
    statistics: _Statistics = _Statistics()


class _Prediction(Struct, frozen=True):
    embeddings: _Embeddings


class _Answer(Struct, frozen=True):
    predictions: list[_Prediction]


_answer = msgspec.json.Decoder(_Answer)


class EmbedContent:
    """Gemini's models: a call a text."""

    size = 1

    def __init__(self, url: Callable[[str, str], str]) -> None:
        self._url = url

    def url(self, model: str) -> str:
        """Return where the model is called."""
        return self._url(model, "embedContent")

    def write(self, texts: Sequence[str], request: EmbedRequest, model: str) -> bytes:
        """Return the body of a call."""
        by_prefix = is_multimodal(model)
        wanted: dict[str, Any] = {
            "taskType": None if by_prefix else TASKS.get(request.input_type),
            "outputDimensionality": at_most(request.dimensions, model),
            "autoTruncate": False,
        }
        prefix = PREFIXES.get(request.input_type, "") if by_prefix else ""
        config = {name: value for name, value in wanted.items() if value is not None}
        return msgspec.json.encode({"content": content(prefix + texts[0]), "embedContentConfig": config})

    def read(self, body: bytes, _headers: dict[str, str]) -> tuple[list[bytes], int | None]:
        """Return vectors of length 1 and the tokens counted."""
        return read(body)


class Predict:
    """Older models, such as ``text-embedding-005``."""

    size = PREDICT_BATCH

    def __init__(self, url: Callable[[str, str], str]) -> None:
        self._url = url

    def url(self, model: str) -> str:
        """Return where the model is called."""
        return self._url(model, "predict")

    def write(self, texts: Sequence[str], request: EmbedRequest, model: str) -> bytes:
        """Return the body of a call."""
        task = {"task_type": TASKS[request.input_type]} if request.input_type else {}
        parameters: dict[str, Any] = {"autoTruncate": False}
        if request.dimensions is not None:
            parameters["outputDimensionality"] = at_most(request.dimensions, model)
        instances = [{**task, "content": text} for text in texts]
        return msgspec.json.encode({"instances": instances, "parameters": parameters})

    def read(self, body: bytes, _headers: dict[str, str]) -> tuple[list[bytes], int | None]:
        """Return vectors of length 1 and the tokens counted."""
        try:
            found = [prediction.embeddings for prediction in _answer.decode(body).predictions]
            vectors = [pack(normalised(item.values)) for item in found]
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise UpstreamProtocolError(f"The target's answer holds no embeddings: {error}") from error
        counts = [item.statistics.token_count for item in found]
        return vectors, None if None in counts else int(sum(filter(None, counts)))


def embedder(name: str, settings: VertexProvider, model: str, connection: Connection) -> Batched:
    """Return an embedder of the project. Raises ConfigError when its credentials cannot be had."""
    base = f"{vertex.parent(settings)}/publishers/google/models"

    def url(model: str, method: str) -> str:
        return f"{base}/{quote(model)}:{method}"

    newer, older = EmbedContent(url), Predict(url)
    link = vertex.link(settings, connection)
    poster = Poster(link, vertex.authorization(name, settings), error_from)
    return Batched(model, lambda model: newer if "gemini" in model else older, poster)
