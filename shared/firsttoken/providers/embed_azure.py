"""Embeddings of Azure OpenAI / Foundry deployments, v1 API: OpenAI's format with Azure's credentials."""

from __future__ import annotations

from collections.abc import Callable

from firsttoken.config import key_of
from firsttoken.embedding import EmbedCall
from firsttoken.providers.azure_auth import entra, identity
from firsttoken.providers.embed import Poster
from firsttoken.providers.embed_openai import OpenAIEmbedder
from firsttoken.providers.http import Response
from firsttoken.providers.upstream import Authorize, Connection, bearer
from firsttoken.settings import AzureProvider
from firsttoken.wire import openai_embeddings


class AzurePoster(Poster):
    """Drops a token that is refused."""

    def __init__(
        self, connection: Connection, authorize: Authorize, forget: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(connection, authorize, openai_embeddings.error_from)
        self._forget = forget

    def answered(self, call: EmbedCall, response: Response) -> None:  # noqa: ARG002
        """Look at the head of an answer."""
        if response.status == 401:
            self._forget()


def embedder(name: str, settings: AzureProvider, model: str, connection: Connection) -> OpenAIEmbedder:
    """Return an embedder of a deployment. Raises ConfigError when its key cannot be had."""
    where = f"providers.{name}.api_key"
    url = f"{settings.base_url.rstrip('/')}/embeddings"
    if key := key_of(settings.api_key, where):
        return OpenAIEmbedder(model, url, AzurePoster(connection, bearer(key, "api-key")))
    tokens = identity(settings.scope, where)
    return OpenAIEmbedder(model, url, AzurePoster(connection, entra(tokens), tokens.forget))
