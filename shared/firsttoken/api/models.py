"""``GET /v1/models`` and ``GET /v1/models/{id}``: the public model names."""

from __future__ import annotations

import msgspec

from firsttoken.api.exchange import Exchange
from firsttoken.errors import NotFoundError
from firsttoken.gateway import Gateway


async def models(exchange: Exchange, gateway: Gateway, name: str = "") -> None:
    """List the public model names, or describe one. Raises NotFoundError."""
    listed = [
        {"id": model, "object": "model", "created": 0, "owned_by": route.target.partition("/")[0]}
        for model, route in {**gateway.settings.models, **gateway.settings.embeddings}.items()
    ]
    if not name:
        await exchange.answer(200, msgspec.json.encode({"object": "list", "data": listed}))
        return
    found = [model for model in listed if model["id"] == name]
    if not found:
        raise NotFoundError(f"The model {name!r} does not exist here.", param="model", code="model_not_found")
    await exchange.answer(200, msgspec.json.encode(found[0]))
