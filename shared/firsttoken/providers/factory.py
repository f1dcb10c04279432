"""Builds the provider behind a target. A provider's module is imported only when it is configured."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from firsttoken.errors import ConfigError
from firsttoken.model import Model
from firsttoken.providers.http import HttpClient, Timeouts
from firsttoken.settings import HttpProvider, Provider, Settings, SimulatedProvider

if TYPE_CHECKING:
    from firsttoken.embedding import Embedder
    from firsttoken.providers.upstream import Connection

EMBEDDING_KINDS = ("openai", "azure", "gemini", "vertex", "bedrock", "local", "simulated")
"""Kinds of providers that have embedders, each in a module `firsttoken.providers.embed_KIND`."""


class Factory:
    """Makes models and embedders out of settings; all of them share one HTTP client."""

    def __init__(self, settings: Settings, client: HttpClient) -> None:
        self._settings = settings
        self._client = client

    def chat(self, target: str) -> Model:
        """Return the model ``provider/model``. Raises ConfigError."""
        name, _, model = target.partition("/")
        provider = self._settings.providers[name]
        if isinstance(provider, SimulatedProvider):
            from firsttoken.providers.simulated import Simulated

            return Simulated(provider)
        if not isinstance(provider, HttpProvider):
            raise ConfigError(f"providers.{name}: expected a provider of chat models; this one only embeds")
        module = import_module(f"firsttoken.providers.{kind_of(provider)}")
        return cast("Model", module.chat(name, provider, model, self._connection(provider)))

    def embedder(self, target: str) -> Embedder:
        """Return the embedder ``provider/model``. Raises ConfigError."""
        name, _, model = target.partition("/")
        provider = self._settings.providers[name]
        if kind_of(provider) not in EMBEDDING_KINDS:
            message = f"providers.{name}: has no embeddings; expected one of {', '.join(EMBEDDING_KINDS)}"
            raise ConfigError(message)
        connection = self._connection(provider) if isinstance(provider, HttpProvider) else None
        module = import_module(f"firsttoken.providers.embed_{kind_of(provider)}")
        return cast("Embedder", module.embedder(name, provider, model, connection))

    def _connection(self, provider: HttpProvider) -> Connection:
        from firsttoken.providers.upstream import Connection

        limits = self._settings.timeouts
        longest = max(limits.first_chunk, limits.whole)  # the policy knows which of them holds for a call
        timeouts = Timeouts(connect=limits.connect, first_byte=longest, gap=limits.gap)
        forwarded = tuple([name.lower() for name in provider.forward_headers])
        return Connection(self._client, timeouts, list(provider.headers.items()), forwarded)


def kind_of(provider: Provider) -> str:
    """Return the word that chooses the provider in the configuration."""
    return str(provider.__struct_config__.tag)
