"""Embedders inside this process: no call, no key, no download (docs/adr/0005)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from firsttoken.embedding import EmbedCall, Embeddings, EmbedRequest, estimate_tokens
from firsttoken.errors import ConfigError, UnsupportedFieldError
from firsttoken.providers import lexical
from firsttoken.providers.upstream import Connection
from firsttoken.settings import LocalProvider
from firsttoken.wire import json_body

MODELS = ("lexical", "static")
_PER_TURN = 16
"""Texts between two turns of the event loop, a few milliseconds: other calls must not wait for a batch."""


class LocalEmbedder:
    """Computes vectors in this process; texts of queries and of documents are treated alike."""

    def __init__(self, model: str, sizes: tuple[int, int, int], embed: Callable[[str, int], bytes]) -> None:
        self.model = model
        self._least, self._default, self._most = sizes
        self._embed = embed

    async def embed(self, call: EmbedCall) -> Embeddings:
        """Return the vectors of ``call``. Raises UnsupportedFieldError."""
        request = call.request
        json_body.refuse_unknown(call.source, self.model)
        if request.tokens:
            message = f"input: {self.model} reads texts, not tokens of another model's vocabulary."
            raise UnsupportedFieldError(message, param="input")
        dimensions = self._dimensions(request)
        vectors = []
        for position, text in enumerate(request.inputs):
            if position % _PER_TURN == _PER_TURN - 1:
                await asyncio.sleep(0)
            vectors.append(self._embed(text, dimensions))
        tokens = estimate_tokens(request.inputs)
        return Embeddings(tuple(vectors), tokens=tokens, estimated=True, model=self.model)

    def _dimensions(self, request: EmbedRequest) -> int:
        wanted = self._default if request.dimensions is None else request.dimensions
        if not self._least <= wanted <= self._most:
            message = f"dimensions: {self.model} has vectors of {self._least} to {self._most}; got {wanted}."
            raise UnsupportedFieldError(message, param="dimensions")
        return wanted


def embedder(name: str, settings: LocalProvider, model: str, _connection: Connection | None) -> LocalEmbedder:
    """Return a local embedder. Raises ConfigError for an unknown one, or a table that cannot be read."""
    if model == "lexical":
        least, _, most = lexical.SIZES
        return LocalEmbedder(lexical.MODEL, (least, settings.dimensions, most), lexical.embed)
    if model == "static":
        from firsttoken.providers.static_table import StaticTable

        table = StaticTable(settings.path, f"providers.{name}.path")
        return LocalEmbedder(table.name, (1, table.dimensions, table.dimensions), table.embed)
    raise ConfigError(f"embeddings: target {name}/{model}: expected one of {', '.join(MODELS)}")
