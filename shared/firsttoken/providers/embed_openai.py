"""Embeddings of any server that speaks OpenAI's format: bytes pass through unchanged in both directions."""

from __future__ import annotations

from firsttoken.config import key_of
from firsttoken.embedding import EmbedCall, Embeddings
from firsttoken.providers.embed import Poster
from firsttoken.providers.upstream import Connection, bearer
from firsttoken.settings import OpenAIProvider
from firsttoken.wire import openai_embeddings


class OpenAIEmbedder:
    """An embedder that is one call away. ``model`` is the target's name for it, or ``*`` for the client's."""

    def __init__(self, model: str, url: str, poster: Poster) -> None:
        self._model = model
        self._url = url
        self._poster = poster

    async def embed(self, call: EmbedCall) -> Embeddings:
        """Return the vectors of ``call``. Raises UpstreamError and its kinds."""
        model = call.request.model if self._model == "*" else self._model
        body, _ = await self._poster.post(self._url, openai_embeddings.write_request(call, model), call)
        return openai_embeddings.read_answer(body, call.request)


def embedder(name: str, settings: OpenAIProvider, model: str, connection: Connection) -> OpenAIEmbedder:
    """Return an embedder of such a server. Raises ConfigError when its key cannot be had."""
    key = key_of(settings.api_key, f"providers.{name}.api_key")
    poster = Poster(connection, bearer(key) if key else None, openai_embeddings.error_from)
    return OpenAIEmbedder(model, f"{settings.base_url.rstrip('/')}/embeddings", poster)
