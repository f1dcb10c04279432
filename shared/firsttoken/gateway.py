"""The composition root: settings in, one model a route out. Read top to bottom it is the life of a call.

A route is a public model name; behind it stands a target (provider and model). Policies will wrap the target
here, each a model around a model.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from importlib import import_module
from typing import TYPE_CHECKING, cast

from firsttoken import config
from firsttoken.errors import ConfigError, NotFoundError
from firsttoken.model import Call, Chunk, Model
from firsttoken.policies.stats import Stats
from firsttoken.policies.target import Measured, Target
from firsttoken.policies.timeouts import Timeouts
from firsttoken.providers import http
from firsttoken.settings import HttpProvider, Provider, Route, Settings, SimulatedProvider

if TYPE_CHECKING:
    from firsttoken.embedding import EmbedCall, Embedder, Embeddings
    from firsttoken.providers.upstream import Connection

ANY = "*"
EMBEDDING_KINDS = ("openai", "azure", "gemini", "vertex", "bedrock", "local", "simulated")
"""Kinds of providers that have embedders, each in a module `firsttoken.providers.embed_KIND`."""


class Gateway:
    """All routes of one process, and the one HTTP client that they share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._client = http.HttpClient()
        self.targets: dict[str, Target] = {}
        self.providers: dict[str, Model] = {}
        """The bare models behind the targets, without any policy."""
        self.routes: dict[str, Model] = {name: self._route(route) for name, route in settings.models.items()}
        self.embedders = {name: self._embedder(route.target) for name, route in settings.embeddings.items()}

    def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the answer to ``call``. Raises NotFoundError when no route has the model's name."""
        route = _route(call.request.model, self.routes, "model")
        return self.routes[route].stream(call)

    async def embed(self, call: EmbedCall) -> Embeddings:
        """Return the vectors of ``call``. Raises NotFoundError when no route has the model's name."""
        route = _route(call.request.model, self.embedders, "embedding model")
        call.record.target = self.settings.embeddings[route].target
        return await self.embedders[route].embed(call)

    async def aclose(self) -> None:
        """Close the connections to all targets."""
        await self._client.aclose()

    def _route(self, route: Route) -> Model:
        """Return the policies over the targets of a route."""
        return self._target(route.all_targets()[0].target)

    def _target(self, name: str) -> Target:
        """Return a target: its provider in the policies that concern this one target."""
        if name not in self.targets:
            provider, _, model = name.partition("/")
            limits = self.settings.timeouts
            # Behind HTTP the client of the provider sees every byte, so it tells silence from thinking.
            gap = limits.idle if isinstance(self.settings.providers[provider], HttpProvider) else limits.gap
            stats = Stats()
            self.providers[name] = self._provider(provider, model)
            measured = Measured(self.providers[name], stats)
            self.targets[name] = Target(name, Timeouts(measured, limits, gap), stats)
        return self.targets[name]

    def _provider(self, name: str, model: str) -> Model:
        provider = self.settings.providers[name]
        if isinstance(provider, SimulatedProvider):
            from firsttoken.providers.simulated import Simulated

            return Simulated(provider)
        if not isinstance(provider, HttpProvider):
            raise ConfigError(f"providers.{name}: expected a provider of chat models; this one only embeds")
        # A provider's module is named like its kind, and only those that are configured are imported.
        module = import_module(f"firsttoken.providers.{_kind(provider)}")
        return cast("Model", module.chat(name, provider, model, self._connection(provider)))

    def _embedder(self, target: str) -> Embedder:
        name, model = target.split("/", 1)
        provider = self.settings.providers[name]
        if _kind(provider) not in EMBEDDING_KINDS:
            message = f"providers.{name}: has no embeddings; expected one of {', '.join(EMBEDDING_KINDS)}"
            raise ConfigError(message)
        connection = self._connection(provider) if isinstance(provider, HttpProvider) else None
        module = import_module(f"firsttoken.providers.embed_{_kind(provider)}")
        return cast("Embedder", module.embedder(name, provider, model, connection))

    def _connection(self, provider: HttpProvider) -> Connection:
        from firsttoken.providers.upstream import Connection

        limits = self.settings.timeouts
        longest = max(limits.first_chunk, limits.whole)  # the policy knows which of them holds for a call
        timeouts = http.Timeouts(connect=limits.connect, first_byte=longest, gap=limits.gap)
        forwarded = tuple([name.lower() for name in provider.forward_headers])
        return Connection(self._client, timeouts, list(provider.headers.items()), forwarded)


def _route(model: str, routes: Collection[str], what: str) -> str:
    route = model if model in routes else ANY
    if route not in routes:
        known = f"expected one of {', '.join(sorted(routes))}" if routes else "none is configured"
        message = f"The {what} {model!r} does not exist here; {known}."
        raise NotFoundError(message, param="model", code="model_not_found")
    return route


def _kind(provider: Provider) -> str:
    return str(provider.__struct_config__.tag)


def create_gateway(settings: Settings | None = None) -> Gateway:
    """Build a gateway from ``settings`` or from the configuration of this process. Raises ConfigError."""
    return Gateway(settings or config.load())
