"""The simulated embedder: lexical vectors, as late as the simulated model, without its faults."""

from __future__ import annotations

import asyncio

from firsttoken.embedding import EmbedCall, Embeddings
from firsttoken.providers import lexical
from firsttoken.providers.embed_local import LocalEmbedder
from firsttoken.providers.simulated import MODEL, Simulated
from firsttoken.providers.upstream import Connection
from firsttoken.settings import SimulatedProvider


class SimulatedEmbedder:
    """An embedder that takes its time."""

    def __init__(self, settings: SimulatedProvider) -> None:
        self._model = Simulated(settings)
        self._embedder = LocalEmbedder(MODEL, lexical.SIZES, lexical.embed)
        self._device = asyncio.Lock()

    async def embed(self, call: EmbedCall) -> Embeddings:
        """Return the vectors of ``call``, after the times of its profile."""
        profile = self._model.profile_for(call.headers)
        await asyncio.sleep(profile.ttft_ms / 1000)
        if busy := profile.embed_call_ms + profile.embed_text_ms * call.request.count():
            async with self._device:
                await asyncio.sleep(busy / 1000)
        return await self._embedder.embed(call)


def embedder(
    _name: str, settings: SimulatedProvider, _model: str, _connection: Connection | None
) -> SimulatedEmbedder:
    """Return the simulated embedder."""
    return SimulatedEmbedder(settings)
