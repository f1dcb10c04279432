"""``GET /v1/models`` and ``GET /v1/models/{id}``: the public model names."""

from __future__ import annotations

import msgspec

from firsttoken.api.exchange import Exchange
from firsttoken.errors import NotFoundError
from firsttoken.gateway import Gateway


async def models(exchange: Exchange, gateway: Gateway, name: str = "") -> None:
    """List the public model names, or describe one. Raises NotFoundError."""
    settings = gateway.settings
    targets = {model: route.all_targets()[0].target for model, route in settings.models.items()}
    targets |= {model: embedding.target for model, embedding in settings.embeddings.items()}
    listed = [
        {"id": model, "object": "model", "created": 0, "owned_by": target.partition("/")[0]}
        for model, target in targets.items()
    ]
    if not name:
        await exchange.answer(200, msgspec.json.encode({"object": "list", "data": listed}))
        return
    found = [model for model in listed if model["id"] == name]
    if not found:
        raise NotFoundError(f"The model {name!r} does not exist here.", param="model", code="model_not_found")
    await exchange.answer(200, msgspec.json.encode(found[0]))
