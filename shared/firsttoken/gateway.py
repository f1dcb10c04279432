"""The composition root: settings in, one model a route out. Read top to bottom it is the life of a call.

A route is a public model name; behind it stands a target (provider and model). Policies will wrap the target
here, each a model around a model.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from importlib import import_module
from typing import TYPE_CHECKING, cast

from firsttoken import config
from firsttoken.errors import NotFoundError
from firsttoken.model import Call, Chunk, Model
from firsttoken.providers.http import HttpClient, Timeouts
from firsttoken.settings import HttpProvider, Settings, SimulatedProvider

if TYPE_CHECKING:
    from firsttoken.providers.upstream import Connection

ANY = "*"


class Gateway:
    """All routes of one process, and the one HTTP client that they share."""

    def __init__(self, settings: Settings, *, wire_faults: bool = False) -> None:
        self.settings = settings
        self._client = HttpClient()
        self._wire_faults = wire_faults
        self._targets: dict[str, Model] = {}
        self.routes = {name: self._model(route.target) for name, route in settings.models.items()}

    def stream(self, call: Call) -> AsyncGenerator[Chunk]:
        """Stream the answer to ``call``. Raises NotFoundError when no route has the model's name."""
        model = call.request.model
        route = model if model in self.routes else ANY
        if route not in self.routes:
            known = ", ".join(sorted(self.routes))
            message = f"The model {model!r} does not exist here; expected one of {known}."
            raise NotFoundError(message, param="model", code="model_not_found")
        call.record.target = self.settings.models[route].target
        return self.routes[route].stream(call)

    async def aclose(self) -> None:
        """Close the connections to all targets."""
        await self._client.aclose()

    def _model(self, target: str) -> Model:
        if target not in self._targets:
            self._targets[target] = self._provider(*target.split("/", 1))
        return self._targets[target]

    def _provider(self, name: str, model: str) -> Model:
        provider = self.settings.providers[name]
        if isinstance(provider, SimulatedProvider):
            from firsttoken.providers.simulated import Simulated

            return Simulated(provider, wire_faults=self._wire_faults)
        # A provider's module is named like its kind, and only those that are configured are imported.
        module = import_module(f"firsttoken.providers.{provider.__struct_config__.tag}")
        return cast("Model", module.chat(name, provider, model, self._connection(provider)))

    def _connection(self, provider: HttpProvider) -> Connection:
        from firsttoken.providers.upstream import Connection

        limits = self.settings.timeouts
        timeouts = Timeouts(connect=limits.connect, first_byte=limits.first_byte, gap=limits.gap)
        forwarded = tuple([name.lower() for name in provider.forward_headers])
        return Connection(self._client, timeouts, list(provider.headers.items()), forwarded)


def create_gateway(settings: Settings | None = None) -> Gateway:
    """Build a gateway from ``settings`` or from the configuration of this process. Raises ConfigError."""
    return Gateway(settings or config.load())
